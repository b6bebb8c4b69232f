"""Random numbers that depend on seed and position only, and operations on latents.

The numbers for image 17 depend on the seed and on 17, and on nothing else. So there is no generator state to save, and
it makes no difference how a batch is split over micro-batches or processes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ops.philox import normals
from torch_utils.errors import UserError


def generator(seed: int, stream: str, position: int) -> np.random.Generator:
    """Returns the generator of (seed, stream, position), a counter-based Philox. position >= 0."""
    key = (seed % 2**64) << 64 | zlib.crc32(stream.encode())
    # The position is the upper half of the 256-bit counter, so that the numbers of two positions never overlap.
    return np.random.Generator(np.random.Philox(key=key, counter=position << 128))


def places_of(seed: int, stream: str, positions: range, device: torch.device) -> Tensor:
    """The places of (seed, stream) at some positions, int64 [N,2], for `ops.philox`; made on the device."""
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest(), "little", signed=True)
    places = torch.full((len(positions), 2), key, device=device)
    places[:, 1] = torch.arange(positions.start, positions.stop, positions.step, device=device)
    return places


def noise_at(places: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The noise maps [N,1,H,W] that layers of these heights and widths make of places."""
    return [normals(places, h * w, layer).view(len(places), 1, h, w) for layer, (h, w) in enumerate(sizes)]


# Operations on latents: pure functions of z [N,z_dim], w [N,w_dim] and ws [N,L,w_dim]


def z_for_seeds(seeds: Iterable[int], z_dim: int) -> Tensor:
    """z [N,z_dim] by the convention of the field, with which a seed is the same face in all tools:
    RandomState(seed).randn(z_dim)."""
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.asarray(rows, dtype=np.float32).reshape(-1, z_dim))


def noise_for_seeds(seeds: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """A noise map [N,1,H,W] for each layer. Each image's map comes from its own seed and is the same in any batch."""
    per_seed = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        per_seed.append([torch.randn(1, 1, h, w, generator=generator) for h, w in sizes])
    return [torch.cat(maps) for maps in zip(*per_seed, strict=True)]


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Move the first `cutoff` layers (None: all) of ws [N,L,D] towards w_avg [N,D] or [1,D] (StyleGAN, appendix B)."""
    if psi == 1:
        return ws
    cutoff = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([torch.lerp(w_avg[:, None], ws[:, :cutoff], psi), ws[:, cutoff:]], dim=1)


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Turn the rows of a [...,D] to those of b, at even speed, by the fraction t (a number or [...,1]) of their angle.

    Lengths go from |a| to |b| (Shoemake, Animating Rotation with Quaternion Curves, 1985). Computed in float64.
    """
    a, b, t = a.double(), b.double(), torch.as_tensor(t, dtype=torch.float64, device=a.device)
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    u, v = a / length_a, b / length_b
    # Exact for small angles, as acos is not.
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    turned = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
    turned = torch.where(angle.sin() < 1e-9, torch.lerp(u, v, t), turned) * (length_a + (length_b - length_a) * t)
    return torch.where(length_a * length_b == 0, torch.lerp(a, b, t), turned)


def mix(ws_a: Tensor, ws_b: Tensor, crossover: int | Tensor) -> Tensor:
    """Layers below `crossover` from a, the others from b; both [N,L,D]. crossover: a number, or one per sample [N]."""
    layer = torch.arange(ws_a.shape[1], device=ws_a.device)[None, :, None]
    if isinstance(crossover, Tensor):
        crossover = crossover.to(ws_a.device)[:, None, None]
    return torch.where(layer < crossover, ws_a, ws_b)


def mix_layers(ws_a: Tensor, ws_b: Tensor, layers: Sequence[int]) -> Tensor:
    """a with the styles of b in `layers` (StyleGAN, figure 3); both [N,L,D], or one of them [1,L,D]."""
    ws_a, ws_b = torch.broadcast_tensors(ws_a, ws_b)
    chosen = torch.zeros(ws_a.shape[1], dtype=torch.bool, device=ws_a.device)
    chosen[list(layers)] = True
    return torch.where(chosen[None, :, None], ws_b, ws_a)


def move(ws: Tensor, vector: Tensor, step: float, layers: Sequence[int]) -> Tensor:
    """Add step * vector to `layers` of ws [N,L,D]. vector: [1,D], or [L,D] with a row for each layer.

    Raises UserError for layers that do not exist.
    """
    beyond = [layer for layer in layers if not 0 <= layer < ws.shape[1]]
    if beyond:
        raise UserError(f"there is no layer {beyond[0]}: these latents have {ws.shape[1]}, 0 to {ws.shape[1] - 1}")
    steps = torch.zeros_like(ws[:1])
    chosen = list(layers)
    steps[:, chosen] = (step * vector).to(ws).expand(ws.shape[1], -1)[chosen]
    return ws + steps
