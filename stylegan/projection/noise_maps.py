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
    for at_full_size in maps:
        m = at_full_size
        while True:
            for dim in (2, 3):
                total = total + (m * m.roll(1, dim)).mean(dim=(1, 2, 3)).square()
            if min(m.shape[2:]) <= 8 or m.shape[2] % 2 or m.shape[3] % 2:
                break
            m = F.avg_pool2d(m, 2) * 2
    return total


@torch.no_grad()
def normalize(maps: Sequence[Tensor]) -> None:
    """In place: each map of each picture to mean 0 and variance 1."""
    for m in maps:
        m -= m.mean(dim=(1, 2, 3), keepdim=True)
        m *= m.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12).rsqrt()
