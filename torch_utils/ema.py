"""The averaged copy of a network."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def track(average: nn.Module, model: nn.Module, halflife_kimg: float, batch: int) -> None:
    """Move the averaged weights towards the model's; half of the past is forgotten per half-life. Buffers are copied.

    batch: images shown since the last call. A half-life of 0 copies the weights.
    """
    keep = 0.5 ** (batch / (halflife_kimg * 1000)) if halflife_kimg > 0 else 0.0
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)
