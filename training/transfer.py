"""Starting from another network's weights, also from those of a narrower one (Net2Net, Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import NetworkConfig
from stylegan.networks.registry import family_of
from torch_utils.settings import replaced
from training.config import FLAGS
from training.state import TrainState

CENTRE = "mapping.w_avg"
Network = Generator | Discriminator


def transfer_weights(source: str, state: TrainState) -> str:
    """Copy what fits (same name and shape) from the snapshot `source` into G, D and the average; say what does not.

    Networks with more feature maps than those of `source` compute what they do (see `Family.widened`).
    Raises UserError if `source` cannot be opened.
    """
    snap = open_snapshot(source)
    lines = [f"Weights from {source}:"]
    own = state.G.config.own_widths
    for name, target, origin, typed in (("G", state.G, snap.G, {}), ("D", state.D, snap.D, own)):
        lines.append(f"  {name}: {_copy(target, origin, typed) if origin else 'none in the file, starts fresh'}")
    state.G_ema.load_state_dict(state.G.state_dict())
    return "\n".join(lines)


def width_of(source: str, model: NetworkConfig) -> dict[str, int]:
    """The settings in which `model` is narrower than the snapshot `source`, by dotted name, as wide.

    Raises UserError if `source` cannot be opened.
    """
    found = model.width_of(open_snapshot(source).config)
    return {f"model.{name}": value for name, value in found.items()}


@torch.no_grad()
def _copy(target: Network, origin: Network, typed: Mapping[str, str]) -> str:
    """Copy in place. Returns how many tensors were taken, how many of them widened, and which were not.

    typed: for settings of the width that are typed under another name, that name
    """
    mine, theirs = target.state_dict(), origin.state_dict()
    if CENTRE in mine and CENTRE in theirs and mine[CENTRE].shape != theirs[CENTRE].shape:
        theirs[CENTRE] = _of_all_classes(theirs[CENTRE], mine[CENTRE])
    widened = family_of(target.config.family).widened if target.config.wider_than(origin.config) else None
    widths = target.config.widths_of(origin.config)
    narrow = _resized(target, widths)
    grown, left, too_wide = 0, [], False
    for name, tensor in mine.items():
        if name not in theirs:
            left.append(f"{name} (new)")
            continue
        if theirs[name].shape == tensor.shape:
            tensor.copy_(theirs[name])
            continue
        only_width = name in narrow and theirs[name].shape == narrow[name].shape
        if only_width and widened is not None:
            tensor.copy_(widened(name, theirs[name], tensor, target.config))
            grown += 1
        else:
            left.append(f"{name} ({tuple(theirs[name].shape)} there, {tuple(tensor.shape)} here)")
            too_wide |= only_width
    said = f"{len(mine) - len(left)} tensors taken" + (f", {grown} of them widened" if grown else "")
    left += [f"{name} (only there)" for name in theirs if name not in mine]
    said += f", {len(left)} not: {'; '.join(left)}" if left else ""
    flags = " ".join(f"{FLAGS[f'model.{typed.get(name, name)}'].spelling} {value}" for name, value in widths.items())
    return said + (f"\n     (more would fit with {flags})" if too_wide else "")


def _resized(network: Network, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors that the network would have with these widths, without contents; none without widths."""
    if not widths:
        return {}
    with torch.device("meta"):
        return type(network)(replaced(network.config, widths)).state_dict()


def _of_all_classes(centre: Tensor, like: Tensor) -> Tensor:
    """Classes that are not the same have the average of all in common; as it is where w is of another length."""
    if centre.shape[-1] != like.shape[-1]:
        return centre
    return centre.view(-1, centre.shape[-1]).mean(dim=0).expand_as(like)
