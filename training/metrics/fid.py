"""Frechet inception distance (Heusel et al. 2017, equation 6): how far apart two Gaussians of features are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_utils.errors import UserError
from training.metrics.rows import Rows, blocks


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
    """Raises UserError where a covariance of `dims` features cannot be had of `count` pictures."""
    if count <= dims:
        raise UserError(
            f"{count} {whose} are too few for the covariance of {dims} features, more than {dims} are needed; "
            f"measure {name.replace('fid', 'kid', 1)} instead, which is unbiased for any number"
        )


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    rounding = 8 * torch.finfo(values.dtype).eps * values[-1]  # what is smaller is 0 that was not computed exactly
    return vectors * torch.where(values > rounding, values, 0.0).sqrt()
