"""Features as the metrics take them: a tensor [N,D], or anything that gives tensors for slices and lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError

BLOCK = 4096


class Rows(Protocol):
    """N rows of D numbers, of which a part is in memory at a time. A tensor [N,D] is that as well."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice | np.ndarray, /) -> Tensor: ...


def blocks(rows: Rows, size: int = BLOCK) -> Iterator[Tensor]:
    """All rows, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : min(start + size, len(rows))]


# Frechet inception distance (Heusel et al. 2017, equation 6): how far apart two Gaussians of features are


@dataclass(frozen=True)
class Moments:
    """mean [D] and covariance [D,D] in float64. The covariance is divided by N, as in the published code."""

    mean: Tensor
    covariance: Tensor


def moments(rows: Rows) -> Moments:
    """Of features [N,D], in two passes, a block at a time."""
    mean = sum((block.double().sum(dim=0) for block in blocks(rows)), torch.zeros(())) / len(rows)
    products = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in blocks(rows):
        centred = block.double() - mean
        products.addmm_(centred.T, centred)
    return Moments(mean, products / len(rows))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    The last trace is the sum of the singular values of R_a^T R_b, where C = R R^T: no root of a product that is not
    symmetric, and exact for covariances without full rank as well.
    """
    overlap = torch.linalg.svdvals(_root(a.covariance).T @ _root(b.covariance)).sum()
    gap = (a.mean - b.mean).square().sum()
    return float(gap + a.covariance.trace() + b.covariance.trace() - 2 * overlap)


def require_enough(count: int, dims: int, whose: str, name: str) -> None:
    """Raises UserError where a covariance of `dims` features cannot be had of `count` images."""
    if count <= dims:
        raise UserError(
            f"{count} {whose} are too few for the covariance of {dims} features, more than {dims} are needed; "
            f"measure {name.replace('fid', 'kid', 1)} instead, which is unbiased for any number"
        )


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    rounding = 8 * torch.finfo(values.dtype).eps * values[-1]  # what is smaller is 0 that was not computed exactly
    return vectors * torch.where(values > rounding, values, 0.0).sqrt()


# Kernel inception distance (Binkowski et al. 2018, section 4): unbiased, so that few images will do


SUBSETS, LARGEST = 100, 1000


def kid(reals: Rows, fakes: Rows, seed: int = 0, subsets: int = SUBSETS, largest: int = LARGEST) -> tuple[float, float]:
    """The mean over random subsets of at most `largest`, and its standard error.

    Of each subset it is the squared maximum mean discrepancy, with the kernel (x.y / D + 1)^3. Where a subset is all
    there is, it is taken once. The error is that of other images, real and fake. Raises UserError for fewer than two.
    """
    count = min(len(reals), len(fakes), largest)
    if count < 2:
        raise UserError("kid needs two images of each kind, and better some hundreds")
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

    each: the variance of what an image adds by itself, a fake and a real one
    pairs: the variance of what only two together add, two fakes, two reals, and one of each
    """

    value: float
    each: tuple[float, float]
    pairs: tuple[float, float, float]


def _compared(x: Tensor, y: Tensor) -> _Compared:
    """Of features [N,D] and [N,D], in float64."""
    count, dims = x.shape
    x, y = x.double(), y.double()
    xx, yy, xy = ((a @ b.T / dims + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    value = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (count * (count - 1)) - 2 * xy.mean()
    rows_x, rows_y = ((k.sum(dim=1) - k.diagonal()) / (count - 1) for k in (xx, yy))
    pairs_x, pairs_y = (_apart(k, rows) for k, rows in ((xx, rows_x), (yy, rows_y)))
    mean_x, mean_y = xy.mean(dim=1), xy.mean(dim=0)
    across = float((xy - mean_x[:, None] - mean_y + xy.mean()).square().mean())
    # The mean of a row is also off by what its pairs add, which is no part of what the image adds by itself.
    each_x = float((rows_x - mean_x).var()) - (pairs_x + across) / count
    each_y = float((rows_y - mean_y).var()) - (pairs_y + across) / count
    return _Compared(float(value), (each_x, each_y), (pairs_x, pairs_y, across))


def _apart(kernel: Tensor, rows: Tensor) -> float:
    """The mean square of what is left of a kernel [N,N] without the means of its rows [N], the diagonal left out."""
    left = kernel - rows[:, None] - rows + rows.mean()
    return float(left.fill_diagonal_(0).square().sum()) / (len(rows) * (len(rows) - 1))


def _variance(found: list[_Compared], fakes: int, reals: int) -> float:
    """Of an estimate from so many fakes and reals."""
    x, y = (max(0.0, float(np.mean([one.each[side] for one in found]))) for side in (0, 1))
    xx, yy, xy = (float(np.mean([one.pairs[kind] for one in found])) for kind in (0, 1, 2))
    return 4 * x / fakes + 4 * y / reals + 2 * xx / fakes**2 + 2 * yy / reals**2 + 4 * xy / (fakes * reals)


# Inception score (Salimans et al. 2016, section 4): are images clearly of a class, and of many classes together?


SPLITS = 10


def inception_score(probabilities: Rows, splits: int = SPLITS) -> tuple[float, float]:
    """exp of the mean divergence of each row of [N,classes] from their mean: mean and deviation over `splits` parts.

    Raises UserError for fewer images than parts.
    """
    if len(probabilities) < splits:
        raise UserError(f"the inception score is a mean over {splits} parts, and {len(probabilities)} images are too "
                        f"few; ask for thousands")  # fmt: skip
    scores = []
    for i in range(splits):
        part = probabilities[i * len(probabilities) // splits : (i + 1) * len(probabilities) // splits].double()
        logs = torch.where(part > 0, part.log(), 0.0)  # 0 log 0 is 0
        mean = part.mean(dim=0, keepdim=True)
        divergence = (part * (logs - torch.where(mean > 0, mean.log(), 0.0))).sum(dim=1).mean()
        scores.append(float(divergence.exp()))
    return float(np.mean(scores)), float(np.std(scores))


# Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020)


ROWS, COLUMNS = 1024, 8192  # distances held at a time


@dataclass(frozen=True)
class Agreement:
    """precision: share of fakes in the reals' balls   recall: share of reals in the fakes' balls
    density: reals' balls that a fake lies in, on average, over k   coverage: share of reals' balls with a fake in it
    """

    precision: float
    recall: float
    density: float
    coverage: float


def agreement(reals: Rows, fakes: Rows, k: int = 3) -> Agreement:
    """Of features [N,D] and [M,D]; k neighbours (3 for precision and recall, 5 for density and coverage).

    Raises UserError for fewer than k + 1 images of either kind.
    """
    real_radii, fake_radii = radii(reals, k), radii(fakes, k)
    hits, nearest = _against(fakes, reals, real_radii)
    inside_fakes, _ = _against(reals, fakes, fake_radii)
    return Agreement(
        precision=float((hits > 0).double().mean()),
        recall=float((inside_fakes > 0).double().mean()),
        density=float(hits.double().sum() / (k * len(fakes))),
        coverage=float((nearest < real_radii).double().mean()),
    )


def radii(rows: Rows, k: int) -> Tensor:
    """The distance of each row to its k-th neighbour among the others. [N].

    Raises UserError if there are not so many others.
    """
    if not 0 < k < len(rows):
        raise UserError(f"none of {len(rows)} images has {k} neighbours; take more images, or fewer neighbours")
    found = []
    for some in blocks(rows, ROWS):
        best = torch.full((len(some), 0), torch.inf, dtype=some.dtype)
        for others in blocks(rows, COLUMNS):
            distances = torch.cat([best, torch.cdist(some, others)], dim=1)
            best = distances.topk(min(k + 1, distances.shape[1]), dim=1, largest=False).values
        found.append(best.max(dim=1).values)  # a row is its own first neighbour
    return torch.cat(found)


def _against(rows: Rows, centres: Rows, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """In how many of the balls each row lies, [N], and how near to each centre a row comes, [M]."""
    nearest = torch.full((len(centres),), torch.inf, dtype=sizes.dtype)
    hits = []
    for some in blocks(rows, ROWS):
        inside = torch.zeros(len(some), dtype=torch.int64)
        start = 0
        for others in blocks(centres, COLUMNS):
            here = slice(start, start + len(others))
            distances = torch.cdist(some, others)
            inside += (distances <= sizes[here]).sum(dim=1)
            nearest[here] = torch.minimum(nearest[here], distances.min(dim=0).values)
            start += len(others)
        hits.append(inside)
    return torch.cat(hits), nearest
