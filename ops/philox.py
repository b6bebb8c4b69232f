"""Random numbers as pure functions of where they are used: nothing is stored, and no generator has a state.

A place is a key and a position, 64 bits each, usually of a run and of an image in it. A place has many streams, for
example one for the noise of each layer. Numbers 4b to 4b+3 of a stream are made of the four words of block b of
Philox4x32-10 with that key and the counter (b, stream, position) (Salmon et al., Parallel Random Numbers: As Easy as 1,
2, 3, 2011): uniform numbers in [0, 1) from 24 bits of a word each, normal numbers from pairs of words (Box and Muller,
A Note on the Generation of Random Normal Deviates, 1958), at most 6.8.

The kernels of CPU and CUDA give the same numbers to the last bit. Those of the reference in plain PyTorch are the same
for uniform numbers, and differ by at most 1e-6 for normal ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ops.autograd import library, use_kernel

LARGEST_STREAM = 2**32 - 2


def normals(places: Tensor, count: int, stream: int = 0, *, impl: str = "auto") -> Tensor:
    """The first `count` normal numbers of a stream of each place: int64 [N,2] -> float32 [N,count]."""
    return philox(places, count, 0, stream, impl=impl)


def philox(places: Tensor, normals: int, uniforms: int, stream: int = 0, *, impl: str = "auto") -> Tensor:
    """The first normal numbers of a stream, then the first uniform numbers of the stream after it.

    places: int64 [N,2], a key and a position in each row -> float32 [N,normals+uniforms]
    Raises ValueError, which names the argument, for shapes, types and numbers that cannot be.
    """
    require_places(places, stream)
    if min(normals, uniforms) < 0 or max(normals, uniforms) > 2**34:
        raise ValueError(f"normals and uniforms must be from 0 to 2**34, got {normals} and {uniforms}")
    if not use_kernel(impl, places):
        return philox_ref(places, normals, uniforms, stream)
    numbers: Tensor = torch.ops.stylegan.philox(places, stream, normals, uniforms)
    return numbers


def require_places(places: Tensor, stream: int = 0, count: int | None = None) -> None:
    """Raises ValueError unless these are places, `count` of them if it is given, and a stream."""
    wanted = places.shape[:1] if count is None else (count,)
    if places.dtype != torch.int64 or places.shape != (*wanted, 2):
        raise ValueError(
            f"places must be int64 [{'N' if count is None else count},2], got {places.dtype} {list(places.shape)}"
        )
    if not 0 <= stream <= LARGEST_STREAM:
        raise ValueError(f"stream must be from 0 to {LARGEST_STREAM}, got {stream}")


def philox_ref(places: Tensor, normals: int, uniforms: int, stream: int) -> Tensor:
    """The specification of `philox`, in plain PyTorch."""
    distances, directions = _words(places, stream, normals).unflatten(1, (-1, 2)).unbind(2)
    # In float64, but from the same 32 bits as in float32: of the distance the kernels keep 24 that count.
    r = (-2 * (distances.float() * 2**-32 + 2**-33).double().log()).sqrt()
    turn = directions.double() * (2 * torch.pi / 2**32)
    pairs = torch.stack([r * turn.cos(), r * turn.sin()], dim=2)
    return torch.cat([
        pairs.flatten(1)[:, :normals].float(), (_words(places, stream + 1, uniforms)[:, :uniforms] >> 8) * 2**-24,
    ], dim=1)  # fmt: skip


_LOW = 0xFFFFFFFF


def _words(places: Tensor, stream: int, count: int) -> Tensor:
    """At least the first `count` words of a stream of each place: int64 [N,2] -> int64 [N,a multiple of 4]."""
    key, position = places[:, :1], places[:, 1:]
    block = torch.arange((count + 3) // 4, device=places.device).expand(len(places), -1)
    a, b, c, d = block, torch.full_like(block, stream), position & _LOW, position >> 32 & _LOW
    k0, k1 = key & _LOW, key >> 32 & _LOW
    for _ in range(10):
        # Products wrap around to a negative number; their bits are right.
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (q >> 32 & _LOW) ^ b ^ k0, q & _LOW, (p >> 32 & _LOW) ^ d ^ k1, p & _LOW
        k0, k1 = k0 + 0x9E3779B9 & _LOW, k1 + 0xBB67AE85 & _LOW
    return torch.stack([a, b, c, d], dim=2).flatten(1)


# The op: there is nothing to differentiate

library.define("philox(Tensor places, int stream, int normals, int uniforms) -> Tensor")


def _fake(places: Tensor, stream: int, normals: int, uniforms: int) -> Any:
    return places.new_empty([places.shape[0], normals + uniforms], dtype=torch.float32)


torch.library.register_fake("stylegan::philox", _fake, lib=library)
