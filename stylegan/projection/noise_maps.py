"""Noise maps as something to optimise: what keeps them noise (Karras et al. 2020, appendix D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def autocorrelation(maps: Sequence[Tensor]) -> Tensor:
    """How far maps [N,1,H,W] are from white noise, [N]: squared correlation with themselves, shifted by one, each way.

    Summed over the maps and, by averaging 2x2 (which keeps white noise white if doubled), over scales down to 8 pixels.
    """
    total = maps[0].new_zeros(len(maps[0]))
    waiting = sorted(maps, key=lambda m: m.shape[2])
    while waiting:
        # All of a size at once, the reduced ones among them: a few operations for each size, not for each map.
        size = waiting[-1].shape[2:]
        together = torch.cat([m for m in waiting if m.shape[2:] == size], dim=1)
        waiting = [m for m in waiting if m.shape[2:] != size]
        for dim in (2, 3):
            total = total + (together * together.roll(1, dim)).mean(dim=(2, 3)).square().sum(dim=1)
        if min(size) > 8 and not (size[0] % 2 or size[1] % 2):
            waiting.append(F.avg_pool2d(together, 2) * 2)
    return total


@torch.no_grad()
def normalize(maps: Sequence[Tensor]) -> None:
    """In place: each map of each picture to mean 0 and variance 1."""
    for m in maps:
        m -= m.mean(dim=(1, 2, 3), keepdim=True)
        m *= m.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12).rsqrt()
