"""Kernel inception distance (Binkowski et al. 2018, section 4): unbiased, so that few pictures will do."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    return _compared(x, y).value


def kid(reals: Rows, fakes: Rows, seed: int = 0, subsets: int = SUBSETS, largest: int = LARGEST) -> tuple[float, float]:
    """The mean of `mmd2` over random subsets of at most `largest`, and its standard error.

    Where a subset is all there is, it is taken once. The error is that of other pictures, real and fake, drawn anew.
    Raises UserError for fewer than two pictures.
    """
    count = min(len(reals), len(fakes), largest)
    if count < 2:
        raise UserError("kid needs two pictures of each kind, and better some hundreds")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(1 if count == len(reals) == len(fakes) else subsets):
        x, y = (torch.as_tensor(rows[rng.choice(len(rows), count, replace=False)]) for rows in (fakes, reals))
        found.append(_compared(x, y))
    values = [one.value for one in found]
    among = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
    return float(np.mean(values)), math.sqrt(_variance(found, len(fakes), len(reals)) + among)


@dataclass(frozen=True)
class _Compared:
    """One estimate, and what its variance comes of (Hoeffding's parts; Serfling 1980, section 5.2).

    alone: the variance of what a picture adds by itself, a fake and a real one
    pairs: the variance of what only two together add, two fakes, two reals, and one of each
    """

    value: float
    alone: tuple[float, float]
    pairs: tuple[float, float, float]


def _compared(x: Tensor, y: Tensor) -> _Compared:
    """Of features [N,D] and [N,D]."""
    count, dims = x.shape
    x, y = x.double(), y.double()
    xx, yy, xy = ((a @ b.T / dims + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    value = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (count * (count - 1)) - 2 * xy.mean()
    rows_x, rows_y = ((k.sum(dim=1) - k.diagonal()) / (count - 1) for k in (xx, yy))
    pairs_x, pairs_y = (_apart(k, rows) for k, rows in ((xx, rows_x), (yy, rows_y)))
    mean_x, mean_y = xy.mean(dim=1), xy.mean(dim=0)
    across = float((xy - mean_x[:, None] - mean_y + xy.mean()).square().mean())
    # The mean of a row is also off by what its pairs add, which is no part of what the picture adds by itself.
    alone_x = float((rows_x - mean_x).var()) - (pairs_x + across) / count
    alone_y = float((rows_y - mean_y).var()) - (pairs_y + across) / count
    return _Compared(float(value), (alone_x, alone_y), (pairs_x, pairs_y, across))


def _apart(kernel: Tensor, rows: Tensor) -> float:
    """The mean square of what is left of a kernel [N,N] without the means of its rows [N], the diagonal left out."""
    left = kernel - rows[:, None] - rows + rows.mean()
    return float(left.fill_diagonal_(0).square().sum()) / (len(rows) * (len(rows) - 1))


def _variance(found: list[_Compared], fakes: int, reals: int) -> float:
    """Of an estimate from so many fakes and reals."""
    x, y = (max(0.0, float(np.mean([one.alone[side] for one in found]))) for side in (0, 1))
    xx, yy, xy = (float(np.mean([one.pairs[kind] for one in found])) for kind in (0, 1, 2))
    return 4 * x / fakes + 4 * y / reals + 2 * xx / fakes**2 + 2 * yy / reals**2 + 4 * xy / (fakes * reals)
