"""Randomness keyed by position: what picture number 17 gets depends on the seed and on 17, and on nothing else.

No generator state has to be saved, and the way a batch is split over rounds or processes cannot matter.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError


def generator(seed: int, stream: str, position: int) -> np.random.Generator:
    """A generator of its own for (seed, stream, position), by the counter-based Philox. position >= 0."""
    key = (seed % 2**64) << 64 | zlib.crc32(stream.encode())
    # The position takes the upper half of the 256-bit counter, so that streams of different positions never overlap.
    return np.random.Generator(np.random.Philox(key=key, counter=position << 128))


# Operations on latents: pure functions of z [N,z_dim], w [N,w_dim] and ws [N,L,w_dim]


def z_for_seeds(seeds: Iterable[int], z_dim: int) -> Tensor:
    """The field's convention, so that a seed is the same face everywhere: RandomState(seed).randn(z_dim). [N,z_dim]."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.asarray(rows, dtype=np.float32).reshape(-1, z_dim))


def noise_for_seeds(seeds: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """One noise map [N,1,H,W] per layer, each picture's drawn from its own seed: the same in any batch."""
    per_seed = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        per_seed.append([torch.randn(1, 1, h, w, generator=generator) for h, w in sizes])
    return [torch.cat(maps) for maps in zip(*per_seed, strict=True)]


def broadcast(w: Tensor, num_ws: int) -> Tensor:
    """The same w for every layer. [N,w_dim] -> [N,num_ws,w_dim]."""
    return w[:, None].expand(-1, num_ws, -1)


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Pull the first `cutoff` layers (all, if None) of ws [N,L,D] towards w_avg [N,D] or [1,D].

    (StyleGAN, appendix B.)
    """
    if psi == 1:
        return ws
    cutoff = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([torch.lerp(w_avg[:, None], ws[:, :cutoff], psi), ws[:, cutoff:]], dim=1)


def mix(ws_a: Tensor, ws_b: Tensor, crossover: int | Tensor) -> Tensor:
    """Coarse styles from a, fine styles from b; both [N,L,D]. The crossover is a layer, or one per sample [N]."""
    layer = torch.arange(ws_a.shape[1], device=ws_a.device)[None, :, None]
    if isinstance(crossover, Tensor):
        crossover = crossover.to(ws_a.device)[:, None, None]
    return torch.where(layer < crossover, ws_a, ws_b)


def mix_layers(ws_a: Tensor, ws_b: Tensor, layers: Sequence[int]) -> Tensor:
    """a with the styles of b in `layers` (StyleGAN, figure 3); both [N,L,D], or one of them [1,L,D] for all."""
    ws_a, ws_b = torch.broadcast_tensors(ws_a, ws_b)
    chosen = torch.zeros(ws_a.shape[1], dtype=torch.bool, device=ws_a.device)
    chosen[list(layers)] = True
    return torch.where(chosen[None, :, None], ws_b, ws_a)


def move(ws: Tensor, vector: Tensor, step: float, layers: Sequence[int]) -> Tensor:
    """ws [N,L,D] with step * vector ([1,D], or another one for each layer, [L,D]) added in `layers`.

    Raises UserError for layers that ws has not.
    """
    beyond = [layer for layer in layers if not 0 <= layer < ws.shape[1]]
    if beyond:
        raise UserError(f"there is no layer {beyond[0]}: these latents have {ws.shape[1]}, 0 to {ws.shape[1] - 1}")
    steps = torch.zeros_like(ws[:1])
    chosen = list(layers)
    steps[:, chosen] = (step * vector).to(ws).expand(ws.shape[1], -1)[chosen]
    return ws + steps
