"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

A set of pictures is taken for the union of balls around its features, each as large as the distance to its k-th
neighbour in the set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.metrics.rows import Rows, blocks

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
    """Of features [N,D] and [M,D]; k neighbours (3 for precision and recall, 5 for density and coverage)."""
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
    """The distance of each row to its k-th neighbour among the others. [N]."""
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
