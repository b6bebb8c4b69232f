"""Starting from another network's weights."""

from __future__ import annotations

import torch
from torch import Tensor

import stylegan
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from training.state import TrainState
from training.widen import statistics, widened, wider

CENTRE = "mapping.w_avg"


def transfer_weights(source: str, state: TrainState) -> str:
    """Copy what fits (same name and shape) from the snapshot `source` into G, D and the average; say what does not.

    Networks with more feature maps than those of `source` compute what they do (see `widen`).
    Raises UserError if `source` cannot be opened.
    """
    snap = stylegan.load(source)
    lines = [f"Weights from {source}:"]
    for name, target, origin in (("G", state.G, snap.G), ("D", state.D, snap.D)):
        if origin is None:
            lines.append(f"  {name}: none in the file, starts fresh")
            continue
        fitting, grown, left = _copy(target, origin)
        lines.append(
            f"  {name}: {fitting} tensors taken"
            + (f", {grown} of them widened" if grown else "")
            + (f", {len(left)} not: {'; '.join(left)}" if left else "")
        )
        theirs, ours = origin.cfg, target.cfg
        if left and (theirs.fmap_base, theirs.fmap_max) != (ours.fmap_base, ours.fmap_max):
            lines.append(f"  --fmap-base {theirs.fmap_base} --fmap-max {theirs.fmap_max} would fit {name} better")
    state.G_ema.load_state_dict(state.G.state_dict())
    return "\n".join(lines)


@torch.no_grad()
def _copy(target: Generator | Discriminator, origin: Generator | Discriminator) -> tuple[int, int, list[str]]:
    """Copy in place. Returns how many tensors were taken, how many of them widened, and a line for each other one."""
    mine, theirs = target.state_dict(), origin.state_dict()
    if CENTRE in mine and CENTRE in theirs and mine[CENTRE].shape != theirs[CENTRE].shape:
        theirs[CENTRE] = _of_all_classes(theirs[CENTRE], mine[CENTRE])
    grows = wider(origin.cfg, target.cfg)
    grown, left = 0, []
    for name, tensor in mine.items():
        if name not in theirs:
            left.append(f"{name} (new)")
        elif theirs[name].shape == tensor.shape:
            tensor.copy_(theirs[name])
        elif grows and _fits_in(name, theirs[name], tensor):
            tensor.copy_(widened(name, theirs[name], tensor, statistics(target.cfg)))
            grown += 1
        else:
            left.append(f"{name} ({tuple(theirs[name].shape)} there, {tuple(tensor.shape)} here)")
    taken = len(mine) - len(left)
    return taken, grown, left + [f"{name} (only there)" for name in theirs if name not in mine]


def _fits_in(name: str, narrow: Tensor, wide: Tensor) -> bool:
    """Do they differ in how many feature maps they are of, and in nothing else?"""
    return (
        not name.startswith("mapping.")
        and narrow.ndim == wide.ndim
        and all(n <= w for n, w in zip(narrow.shape, wide.shape, strict=True))
    )


def _of_all_classes(centre: Tensor, like: Tensor) -> Tensor:
    """Classes that are not the same have the average of all in common; as it is where w is of another length."""
    if centre.shape[-1] != like.shape[-1]:
        return centre
    return centre.view(-1, centre.shape[-1]).mean(dim=0).expand_as(like)
