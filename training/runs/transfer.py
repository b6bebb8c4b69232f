"""Starting from another network's weights, also from those of a narrower one (Net2Net, Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import NetworkConfig
from stylegan.networks.layers import SQRT2
from stylegan.networks.registry import family_of
from torch_utils.device import without_contents
from torch_utils.settings import replaced
from training.config import FLAGS
from training.data.labels import renamed
from training.state import TrainState

CENTRE = "mapping.w_avg"
Network = Generator | Discriminator


def transfer_weights(source: str, state: TrainState, class_names: Sequence[str] = ()) -> str:
    """Copy what fits (same name and shape) from the snapshot `source` into G, D and the average; say what does not.

    class_names: those of the new data; where the snapshot has others, they are said too.
    Networks with more feature maps than those of `source` compute what they do (see `Family.widened`).
    Raises UserError if `source` cannot be opened.
    """
    snap = open_snapshot(source)
    lines = [f"Weights from {source}:"]
    own = state.G.config.own_widths
    for name, target, origin, typed in (("G", state.G, snap.G, {}), ("D", state.D, snap.D, own)):
        lines.append(f"  {name}: {_copy(target, origin, typed) if origin else 'none in the file, starts fresh'}")
    if others := renamed(snap.class_names, class_names):
        lines.append(f"  Classes: {others}; the weights of each number are taken, the names are those of the data")
    state.G_ema.load_state_dict(state.G.state_dict())
    return "\n".join(lines)


def inherited(source: str, model: NetworkConfig) -> dict[str, Any]:
    """Settings, by dotted name, with which the weights of the snapshot `source` fit `model`.

    Raises UserError if `source` cannot be opened.
    """
    return {f"model.{name}": value for name, value in model.inherited(open_snapshot(source).config).items()}


@torch.no_grad()
def _copy(target: Network, origin: Network, typed: Mapping[str, str]) -> str:
    """Copy in place. Returns how many tensors were taken, how many of them widened, and which were not.

    typed: for settings of the width that are typed under another name, that name
    """
    mine, theirs = target.state_dict(), dict(origin.state_dict())
    if CENTRE in mine and CENTRE in theirs and mine[CENTRE].shape != theirs[CENTRE].shape:
        theirs[CENTRE] = _of_all_classes(theirs[CENTRE], mine[CENTRE])
    recoloured = _recolour(theirs, origin, target)
    widened = family_of(target.config.family).widened if target.config.wider_than(origin.config) else None
    widths = target.config.widths_of(origin.config)
    narrow = _resized(target, widths)
    grown, left, too_wide = 0, {name: "only there" for name in theirs if name not in mine}, False
    for name, tensor in mine.items():
        if name not in theirs:
            left[name] = "new"
            continue
        if theirs[name].shape == tensor.shape:
            tensor.copy_(theirs[name])
            continue
        only_width = name in narrow and theirs[name].shape == narrow[name].shape
        if only_width and widened is not None:
            tensor.copy_(widened(name, theirs[name], tensor, target.config))
            grown += 1
        else:
            left[name] = f"{tuple(theirs[name].shape)} there, {tuple(tensor.shape)} here"
            too_wide |= only_width
    taken = len(mine.keys() & theirs.keys() - left.keys())
    said = f"{taken} tensors taken" + (f", {grown} of them widened" if grown else "")
    said += f", {recoloured} of them for images of other channels" if recoloured else ""
    said += f", {len(left)} not: {_grouped(left)}" if left else ""
    flags = " ".join(f"{FLAGS[f'model.{typed.get(name, name)}'].spelling} {value}" for name, value in widths.items())
    return said + (f"\n     (more would fit with {flags})" if too_wide else "")


def _grouped(left: Mapping[str, str]) -> str:
    """Names of tensors with the reason why each was not taken, in short: a block of a network counts once."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reason in left.items():
        block = ".".join(name.split(".")[: 3 if name.startswith("synthesis.blocks") else 2])
        groups.setdefault((block, reason if reason in ("new", "only there") else ""), []).append(name)
    more = {block: f" and {len(names) - 1} more of {block[0]}" if names[1:] else "" for block, names in groups.items()}
    return "; ".join(f"{names[0]} ({left[names[0]]}){more[block]}" for block, names in groups.items())


def _recolour(weights: dict[str, Tensor], origin: Network, target: Network) -> int:
    """Make the layers to and from images fit those of `target`, in place: grey becomes three equal channels, and three
    become grey by their mean; alpha is new and opaque, or is dropped. Returns how many tensors have changed.

    What is not grey, RGB, or one of these with alpha, stays as it is.
    """
    there, here = origin.config.channels, target.config.channels
    layers = family_of(target.config.family).image_layers
    alike = type(origin.config) is type(target.config)
    if there == here or not layers or not alike or max(there, here) > 4:
        return 0
    names = [name for name in weights if name.startswith(layers)]
    to_here, to_there = _colours(there, here), _colours(here, there)
    for layer in {name.rpartition(".")[0] for name in names}:
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        if isinstance(target, Generator):
            matrix, opaque = to_here
            weights[f"{layer}.weight"] = torch.einsum("ab,bihw->aihw", matrix, weight)
            weights[f"{layer}.bias"] = matrix @ bias + opaque
        else:
            matrix, opaque = to_there
            scale = (1 / there) ** 0.5  # equalised learning rate: of the gain and this, here and there
            weights[f"{layer}.bias"] = bias + SQRT2 * scale * torch.einsum("obhw,b->o", weight, opaque)
            weights[f"{layer}.weight"] = (here / there) ** 0.5 * torch.einsum("obhw,ba->oahw", weight, matrix)
    return len(names)


def _colours(source: int, dest: int) -> tuple[Tensor, Tensor]:
    """Images with `source` channels as images with `dest`, at each pixel: matrix [dest,source] and offset [dest]."""
    matrix, offset = torch.zeros(dest, source), torch.zeros(dest)
    colours = {1: 1, 2: 1, 3: 3, 4: 3}
    ours, theirs = colours[dest], colours[source]
    matrix[:ours, :theirs] = torch.eye(ours) if ours == theirs else 1 / theirs
    if dest > ours and source > theirs:
        matrix[ours, theirs] = 1
    elif dest > ours:
        offset[ours] = 1
    return matrix, offset


def _resized(network: Network, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors that the network would have with these widths, without contents; none without widths."""
    if not widths:
        return {}
    with without_contents():
        return type(network)(replaced(network.config, widths)).state_dict()


def _of_all_classes(centre: Tensor, like: Tensor) -> Tensor:
    """Classes that are not the same have the average of all in common; as it is where w is of another length."""
    if centre.shape[-1] != like.shape[-1]:
        return centre
    return centre.view(-1, centre.shape[-1]).mean(dim=0).expand_as(like)
