"""A wider network that computes what a narrower one does, to go on from (Chen et al. 2016, Net2Net, section 3).

The new feature maps start as those of a fresh network do, but nobody looks at them yet: the weights by which old maps
depend on new ones are zero. So the picture is the same, and training finds out what the new maps are good for.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import stylegan
from stylegan.networks.base import ModelConfig
from stylegan.networks.generator import Generator
from stylegan.networks.stylegan1 import Discriminator
from training.state import TrainState


def wider(narrow: ModelConfig, wide: ModelConfig) -> bool:
    """Has `wide` more feature maps, and nowhere fewer, at the resolutions that both have?

    Never for networks with pixel norm, in which every map depends on all others.
    """
    shared = [2, *(res for res in narrow.resolutions if res in wide.resolutions)]  # 2: the dense layers of D
    pairs = [(narrow.nf(res), wide.nf(res)) for res in shared]
    return all(n <= w for n, w in pairs) and any(n < w for n, w in pairs) and not wide.pixel_norm


def statistics(cfg: ModelConfig) -> int:
    """How many inputs of the discriminator's last convolution are no feature maps but the minibatch deviation."""
    return cfg.mbstd_features if cfg.mbstd_group > 1 else 0


def widened(name: str, narrow: Tensor, fresh: Tensor, last: int) -> Tensor:
    """The tensor `name` of the wider network, from that of the narrower one and a fresh one of the wider.

    The two differ in how many feature maps they are of, and in nothing else.

    last: how many `statistics` there are. They are averages over all maps: scores change a little where 4x4 is wider.
    """
    wide = fresh.clone()
    if name.endswith(".const"):  # [1,C,h,w]
        wide[:, : narrow.shape[1]] = narrow
    elif ".style." in name:  # the scales of all maps, then the shifts of all
        wide.unflatten(0, (2, -1))[:, : len(narrow) // 2] = narrow.unflatten(0, (2, -1))
    elif narrow.ndim == 1:
        wide[: len(narrow)] = narrow
    else:  # [outputs, inputs, ...], scaled by 1 / sqrt(fan_in) when used
        maps = narrow.shape[1] - (last if name == "head.conv.weight" else 0)
        old = wide[: len(narrow)].zero_()
        old[:, :maps] = narrow[:, :maps]
        old[:, old.shape[1] - narrow.shape[1] + maps :] = narrow[:, maps:]
        old *= (old[0].numel() / narrow[0].numel()) ** 0.5
    return wide


# Starting from another network's weights


CENTRE = "mapping.w_avg"
Network = Generator | Discriminator


def transfer_weights(source: str, state: TrainState) -> str:
    """Copy what fits (same name and shape) from the snapshot `source` into G, D and the average; say what does not.

    Networks with more feature maps than those of `source` compute what they do (see `widen`).
    Raises UserError if `source` cannot be opened.
    """
    snap = stylegan.load(source)
    lines = [f"Weights from {source}:"]
    d_flag = "--fmap-max" if state.G.cfg.d_fmap_max is None else "--d-fmap-max"
    for name, target, origin, flag in (("G", state.G, snap.G, "--fmap-max"), ("D", state.D, snap.D, d_flag)):
        lines.append(f"  {name}: {_copy(target, origin, flag) if origin else 'none in the file, starts fresh'}")
    state.G_ema.load_state_dict(state.G.state_dict())
    return "\n".join(lines)


def width_of(source: str, model: ModelConfig) -> dict[str, int]:
    """The settings of feature maps in which `model` is narrower than the snapshot `source`, by dotted name, as wide.

    A discriminator that is narrower there than the generator stays so, unless it would be narrower than `model`'s.
    Raises UserError if `source` cannot be opened.
    """
    theirs = stylegan.load(source).G.cfg
    wide = {name: getattr(theirs, name) for name in ("fmap_base", "fmap_max")}
    found = {f"model.{name}": value for name, value in wide.items() if value > getattr(model, name)}
    own = theirs.of_discriminator.fmap_max
    if own < theirs.fmap_max and own >= model.of_discriminator.fmap_max:
        found["model.d_fmap_max"] = own
    return found


@torch.no_grad()
def _copy(target: Network, origin: Network, flag: str) -> str:
    """Copy in place. Returns how many tensors were taken, how many of them widened, and which were not.

    flag: the one that says how many feature maps `target` has at most
    """
    mine, theirs = target.state_dict(), origin.state_dict()
    if CENTRE in mine and CENTRE in theirs and mine[CENTRE].shape != theirs[CENTRE].shape:
        theirs[CENTRE] = _of_all_classes(theirs[CENTRE], mine[CENTRE])
    grows, as_narrow = wider(origin.cfg, target.cfg), _with_maps_of(origin, target)
    grown, left, too_wide = 0, [], False
    for name, tensor in mine.items():
        if name not in theirs:
            left.append(f"{name} (new)")
            continue
        if theirs[name].shape == tensor.shape:
            tensor.copy_(theirs[name])
            continue
        only_maps = theirs[name].shape == as_narrow[name].shape
        if only_maps and grows:
            tensor.copy_(widened(name, theirs[name], tensor, statistics(target.cfg)))
            grown += 1
        else:
            left.append(f"{name} ({tuple(theirs[name].shape)} there, {tuple(tensor.shape)} here)")
            too_wide |= only_maps
    said = f"{len(mine) - len(left)} tensors taken" + (f", {grown} of them widened" if grown else "")
    left += [f"{name} (only there)" for name in theirs if name not in mine]
    said += f", {len(left)} not: {'; '.join(left)}" if left else ""
    advice = f"\n     (more would fit with --fmap-base {origin.cfg.fmap_base} {flag} {origin.cfg.fmap_max})"
    return said + (advice if too_wide else "")


def _with_maps_of(origin: Network, target: Network) -> dict[str, Tensor]:
    """The tensors that `target` would have with as many feature maps as `origin`, without contents."""
    with torch.device("meta"):
        cfg = replace(target.cfg, fmap_base=origin.cfg.fmap_base, fmap_max=origin.cfg.fmap_max)
        return type(target)(cfg).state_dict()


def _of_all_classes(centre: Tensor, like: Tensor) -> Tensor:
    """Classes that are not the same have the average of all in common; as it is where w is of another length."""
    if centre.shape[-1] != like.shape[-1]:
        return centre
    return centre.view(-1, centre.shape[-1]).mean(dim=0).expand_as(like)
