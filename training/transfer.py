"""Starting from another network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import stylegan
from training.state import TrainState

CENTRE = "mapping.w_avg"


def transfer_weights(source: str, state: TrainState) -> str:
    """Copy what fits (same name and shape) from the snapshot `source` into G, D and the average; say what does not.

    Raises UserError if `source` cannot be opened.
    """
    snap = stylegan.load(source)
    lines = [f"Weights from {source}:"]
    for name, target, origin in (("G", state.G, snap.G), ("D", state.D, snap.D)):
        if origin is None:
            lines.append(f"  {name}: none in the file, starts fresh")
            continue
        fitting, left = _copy(target, origin)
        lines.append(f"  {name}: {fitting} tensors taken" + (f", {len(left)} not: {'; '.join(left)}" if left else ""))
    state.G_ema.load_state_dict(state.G.state_dict())
    return "\n".join(lines)


@torch.no_grad()
def _copy(target: nn.Module, origin: nn.Module) -> tuple[int, list[str]]:
    """Copy in place. Returns how many tensors were taken, and a line for each that was not."""
    mine, theirs = target.state_dict(), origin.state_dict()
    if CENTRE in mine and CENTRE in theirs and mine[CENTRE].shape != theirs[CENTRE].shape:
        theirs[CENTRE] = _of_all_classes(theirs[CENTRE], mine[CENTRE])
    left = []
    for name, tensor in mine.items():
        if name not in theirs:
            left.append(f"{name} (new)")
        elif theirs[name].shape != tensor.shape:
            left.append(f"{name} ({tuple(theirs[name].shape)} there, {tuple(tensor.shape)} here)")
        else:
            tensor.copy_(theirs[name])
    left += [f"{name} (only there)" for name in theirs if name not in mine]
    return len([n for n in mine if n in theirs and theirs[n].shape == mine[n].shape]), left


def _of_all_classes(centre: Tensor, like: Tensor) -> Tensor:
    """Classes that are not the same have the average of all in common; as it is where w is of another length."""
    if centre.shape[-1] != like.shape[-1]:
        return centre
    return centre.view(-1, centre.shape[-1]).mean(dim=0).expand_as(like)
