"""Directions without labels: principal components (GANSpace, Härkönen et al. 2020) and SeFa (Shen and Zhou 2021).

Principal components are the directions in which w varies most, or the output of a layer. SeFa needs no samples: it
takes the directions of w that change the styles of layers most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from stylegan.networks.base import Generator
from torch_utils.errors import UserError
from torch_utils.text import counted

MAX_BYTES = 2 << 30  # of activations


# Principal components of w


def covariance(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Mean [D] and covariance [D,D] in float64, and the count, of batches [n,D], each read once.

    Updates about the running mean (Chan, Golub, LeVeque 1983), because sums of squares would cancel. Raises UserError
    for fewer than two samples.
    """
    count, mean, scatter = 0, torch.zeros(0), torch.zeros(0)
    for batch in batches:
        x = batch.double()
        own = x.mean(dim=0)
        centred = x - own
        if not count:
            mean, scatter = torch.zeros_like(own), torch.zeros(len(own), len(own), dtype=torch.float64)
        total = count + len(x)
        shift = own - mean
        scatter = scatter + centred.T @ centred + torch.outer(shift, shift) * (count * len(x) / total)
        mean, count = mean + shift * (len(x) / total), total
    if count < 2:
        raise UserError(f"{counted(count, 'sample')} cannot vary; use some thousand")
    return mean, scatter / (count - 1), count


def components(cov: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first principal components of a covariance [D,D]: [count,D] of unit length, and their variances [count].

    Largest variance first. Raises UserError for more than D.
    """
    if not 1 <= count <= len(cov):
        raise UserError(f"there are {len(cov)} principal components, not {count}; use a smaller count")
    variances, vectors = torch.linalg.eigh(cov)
    return upright(vectors.T.flip(0)[:count]), variances.flip(0)[:count]


def upright(vectors: Tensor) -> Tensor:
    """Vectors [K,D], turned so that the largest entry of each is positive, because their sign is arbitrary."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0)


# Principal components of activations


def activations(G: Generator, batches: Iterable[Tensor], layer: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of w [n,D] with the output of a layer for them, [n,C*H*W], both on the CPU."""
    for w in batches:
        with torch.inference_mode():
            features = G.activations(G.broadcast(w.to(G.device)), layer)
        yield w, features.flatten(1).cpu()


def from_activations(pairs: Iterable[tuple[Tensor, Tensor]], count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Directions of w [count,D] (not of unit length) that cause the principal components of activations.

    Also the share of the variance of the activations that each component has, [count].

    pairs: batches of w [n,D] and activations [n,F]. w is regressed on the coordinates along the components, so each
    direction is the mean change of w for one unit of its own coordinate (GANSpace, equation 3).
    Raises UserError if the activations need too much memory, and for fewer samples than components.
    """
    ws: list[Tensor] = []
    features: list[Tensor] = []
    held = 0
    for w, feature in pairs:
        held += feature.numel() * 4
        if held > MAX_BYTES:
            raise UserError(f"the activations of {sum(len(part) for part in ws)} samples already take "
                            f"{held / 2**30:.1f} GiB; use an earlier layer or fewer --samples")  # fmt: skip
        ws.append(w.double())
        features.append(feature.float())
    w, x = torch.cat(ws), torch.cat(features)
    if not 1 <= count < min(x.shape):
        raise UserError(f"{len(x)} samples of {x.shape[1]} activations do not have {counted(count, 'component')}; use "
                        "more samples")  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, sizes, basis = torch.pca_lowrank(x, q=min(count + 8, *x.shape), niter=4)  # some more, for accuracy
    centred = x - x.mean(dim=0)
    shares = sizes[:count].square() / centred.square().sum()
    return torch.linalg.lstsq((centred @ basis[:, :count]).double(), w - w.mean(dim=0)).solution, shares


# SeFa


def style_weights(G: Generator, rows: Sequence[int]) -> Tensor:
    """The matrix A [sum of style_dim,w_dim] from w to the styles of the layers that these rows of ws feed.

    Without layers to the image, unless a row feeds only those (`NetworkConfig.main_layers`). In float64, on the CPU.
    """
    layers = [layer for row in rows for layer in G.config.main_layers(row)]
    return torch.cat([G.style_weight(layer).detach().double().cpu() for layer in layers])


def sefa(A: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The unit vectors d for which |A d| is largest: [count,D], orthonormal, and |A d|^2 [count], largest first.

    The |A d|^2 of all D vectors add up to the sum of the squares of A.

    They are the eigenvectors of A^T A (Shen and Zhou 2021, equation 6), found as singular vectors of A, which keeps
    the digits that squaring would lose. Raises UserError for more than D.
    """
    if not 1 <= count <= A.shape[1]:
        raise UserError(f"there are {A.shape[1]} such directions, not {count}; use a smaller count")
    _, sizes, vectors = torch.linalg.svd(A, full_matrices=len(A) < A.shape[1])
    padded = torch.zeros(A.shape[1], dtype=A.dtype)
    padded[: len(sizes)] = sizes
    return upright(vectors[:count]), padded[:count].square()
