"""Sliced Wasserstein distance of the patches of a Laplacian pyramid, as ProGAN measures it (Karras et al. 2018).

From each picture 128 patches of 7x7 are taken at each level of its pyramid, down to 16 pixels. Patches of two sets are
compared in random directions, level by level: coarse levels tell of structure, fine ones of detail and noise.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.errors import UserError
from torch_utils.rng import generator
from training.metrics.rows import Rows, blocks

PATCH, PATCHES, SMALLEST = 7, 128, 16
REPEATS, DIRECTIONS = 4, 128
SCALE = 1000.0  # as it is reported
_AT_ONCE = 64 << 20  # projections held at a time, for each of the two sets
_FILTER = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def levels(height: int, width: int) -> list[int]:
    """The heights of the levels. Raises UserError for pictures that are too small for one."""
    found = [height >> i for i in range(16) if min(height, width) >> i >= SMALLEST]
    if not found:
        raise UserError(f"swd takes patches of pictures of at least {SMALLEST} pixels, not of {width}x{height}")
    return found


def patch_dims(channels: int) -> int:
    """Numbers in a patch."""
    return channels * PATCH * PATCH


def patches(pictures: Tensor, first: int) -> Tensor:
    """uint8 [N,C,H,W] -> patches [N, levels*PATCHES*C*7*7], whose places are drawn from the pictures' numbers."""
    found = []
    for level, x in enumerate(laplacian_pyramid(pictures.float())):
        windows = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # [N,C,y,x,7,7]
        for i in range(len(x)):
            rng = generator(0, f"swd{level}", first + i)
            ys, xs = (torch.from_numpy(rng.integers(0, size, PATCHES)) for size in windows.shape[2:4])
            found.append(windows[i][:, ys, xs].transpose(0, 1).reshape(-1))  # [PATCHES,C,7,7]
    count = len(pictures)
    return torch.stack([torch.cat(found[i::count]) for i in range(count)])


def laplacian_pyramid(x: Tensor) -> list[Tensor]:
    """[N,C,H,W] -> what each level adds to the next coarser one, enlarged; the last level as it is (Burt 1983)."""
    found = []
    for _ in levels(*x.shape[2:])[1:]:
        coarse = _smooth(x)[:, :, ::2, ::2]
        found.append(x - _enlarged(coarse, x.shape[2:]))
        x = coarse
    return [*found, x]


def sliced_wasserstein(reals: Rows, fakes: Rows, channels: int, seed: int = 0) -> list[float]:
    """The distance at each level, finest first, times 1000. Rows: as `patches` makes them, equally many of both.

    Each channel of each set is brought to mean 0 and deviation 1 first, over all patches of a level.
    """
    dims = patch_dims(channels)
    width = PATCHES * dims
    return [
        SCALE * _level_distance(reals, fakes, slice(start, start + width), channels, seed)
        for start in range(0, reals[:1].shape[1], width)
    ]


def _level_distance(reals: Rows, fakes: Rows, part: slice, channels: int, seed: int) -> float:
    dims = patch_dims(channels)
    directions = np.random.default_rng(seed).standard_normal((dims, REPEATS * DIRECTIONS)).astype(np.float32)
    directions /= np.sqrt(np.square(directions).sum(axis=0))
    size = max(1, _AT_ONCE // (4 * PATCHES * len(reals)))
    scales = [_scale(rows, part, channels) for rows in (reals, fakes)]
    total = 0.0
    for some in torch.from_numpy(directions).split(size, dim=1):
        a, b = (
            _projected(rows, part, some, mean, spread)
            for rows, (mean, spread) in zip((reals, fakes), scales, strict=True)
        )
        total += float((a - b).abs().mean(dim=1).sum())
    return total / (REPEATS * DIRECTIONS)


def _scale(rows: Rows, part: slice, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, as they stand in a patch: [C*7*7] twice."""
    count, total, squares = 0, torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for block in blocks(rows, 64):
        x = block[:, part].double().reshape(-1, channels, PATCH * PATCH)
        count += x.shape[0] * x.shape[2]
        total += x.sum(dim=(0, 2))
        squares += x.square().sum(dim=(0, 2))
    mean = total / count
    spread = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
    return (mean.float().repeat_interleave(PATCH * PATCH), spread.float().repeat_interleave(PATCH * PATCH))


def _projected(rows: Rows, part: slice, directions: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Where the patches lie along each direction, in order: [directions,patches]."""
    found = torch.empty(directions.shape[1], len(rows) * PATCHES)
    start = 0
    for block in blocks(rows, 64):
        x = (block[:, part].float().reshape(-1, len(mean)) - mean) / spread
        found[:, start : start + len(x)] = (x @ directions).T
        start += len(x)
    return found.sort(dim=1).values


def _smooth(x: Tensor, gain: float = 1.0) -> Tensor:
    """Blurred with the binomial filter of 5 pixels, the picture being mirrored at its edges."""
    channels = x.shape[1]
    kernel = torch.outer(_FILTER, _FILTER).to(x.device) * gain
    return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), kernel.expand(channels, 1, 5, 5), groups=channels)


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    sparse = x.new_zeros(*x.shape[:2], *size)
    sparse[:, :, ::2, ::2] = x
    return _smooth(sparse, 4.0)
