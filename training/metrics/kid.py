"""Kernel inception distance (Binkowski et al. 2018, section 4): unbiased, so that few pictures will do."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError
from training.metrics.rows import Rows

SUBSETS, LARGEST = 100, 1000


def mmd2(x: Tensor, y: Tensor) -> float:
    """The squared maximum mean discrepancy of features [N,D] and [N,D], estimated without bias, in float64.

    The kernel is (x.y / D + 1)^3.
    """
    count, dims = x.shape
    x, y = x.double(), y.double()
    within = (x @ x.T / dims + 1) ** 3 + (y @ y.T / dims + 1) ** 3
    across = (x @ y.T / dims + 1) ** 3
    return float((within.sum() - within.trace()) / (count * (count - 1)) - 2 * across.mean())


def kid(reals: Rows, fakes: Rows, seed: int = 0, subsets: int = SUBSETS, largest: int = LARGEST) -> tuple[float, float]:
    """The mean of `mmd2` over random subsets of at most `largest`, and its standard error.

    The error is that of drawing subsets of these pictures; other pictures would differ by somewhat more.
    Raises UserError for fewer than two pictures.
    """
    count = min(len(reals), len(fakes), largest)
    if count < 2:
        raise UserError("kid needs two pictures of each kind, and better some hundreds")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        chosen = [torch.as_tensor(rows[rng.choice(len(rows), count, replace=False)]) for rows in (fakes, reals)]
        found.append(mmd2(*chosen))
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(subsets)) if subsets > 1 else 0.0
