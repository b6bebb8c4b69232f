"""Directions without samples: those of w that move the styles most (SeFa, Shen and Zhou 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan.directions.direction import upright
from stylegan.generator import Generator
from torch_utils.errors import UserError


def style_weights(G: Generator, layers: Sequence[int]) -> Tensor:
    """The matrix A [sum of 2C,w_dim] that makes w the styles of `layers`, float64 on the CPU."""
    dense = [G.synthesis.style_layer(layer).style for layer in layers]
    return torch.cat([(layer.weight * layer.scale).detach().double().cpu() for layer in dense])


def sefa(A: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The unit vectors d for which |A d| is largest: [count,D], orthonormal, and |A d|^2 [count], largest first.

    |A d|^2 of all D of them add up to the sum of the squares of A.

    They are the eigenvectors of A^T A (Shen and Zhou 2021, equation 6), found as singular vectors of A, which keeps
    the digits that squaring would lose. Raises UserError for more than D.
    """
    if not 1 <= count <= A.shape[1]:
        raise UserError(f"there are {A.shape[1]} such directions, not {count}")
    _, sizes, vectors = torch.linalg.svd(A, full_matrices=len(A) < A.shape[1])
    padded = torch.zeros(A.shape[1], dtype=A.dtype)
    padded[: len(sizes)] = sizes
    return upright(vectors[:count]), padded[:count].square()
