"""Sliced Wasserstein distance of the patches of a Laplacian pyramid, as ProGAN measures it (Karras et al. 2018).

From each image 128 patches of 7x7 are taken at each level of its pyramid, down to 16 pixels. Patches of two sets are
compared in random directions, level by level: coarse levels tell of structure, fine ones of detail and noise.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.networks.sampling import generator
from torch_utils.errors import UserError
from training.metrics.quality import Rows, blocks

PATCH, PATCHES, SMALLEST = 7, 128, 16
REPEATS, DIRECTIONS = 4, 128
SCALE = 1000.0  # as it is reported
_AT_ONCE = 64 << 20  # projections held at a time, for each of the two sets
_FILTER = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def levels(height: int, width: int) -> list[int]:
    """The heights of the levels. Raises UserError for images that are too small for one."""
    found = [height >> i for i in range(16) if min(height, width) >> i >= SMALLEST]
    if not found:
        raise UserError(f"swd takes patches of images of at least {SMALLEST} pixels, not of {width}x{height}")
    return found


def patch_dims(channels: int) -> int:
    """Numbers in a patch."""
    return channels * PATCH * PATCH


def patches(images: Tensor, first: int) -> Tensor:
    """uint8 [N,C,H,W] -> patches [N, levels*PATCHES*C*7*7], whose places are drawn from the images' numbers."""
    found = []
    for level, x in enumerate(laplacian_pyramid(images.float())):
        windows = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # [N,C,y,x,7,7]
        for i in range(len(x)):
            rng = generator(0, f"swd{level}", first + i)
            ys, xs = (torch.from_numpy(rng.integers(0, size, PATCHES)) for size in windows.shape[2:4])
            found.append(windows[i][:, ys, xs].transpose(0, 1).reshape(-1))  # [PATCHES,C,7,7]
    count = len(images)
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
    """Blurred with the binomial filter of 5 pixels, the image being mirrored at its edges."""
    channels = x.shape[1]
    kernel = torch.outer(_FILTER, _FILTER).to(x.device) * gain
    return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), kernel.expand(channels, 1, 5, 5), groups=channels)


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    sparse = x.new_zeros(*x.shape[:2], *size)
    sparse[:, :, ::2, ::2] = x
    return _smooth(sparse, 4.0)


# Multi-scale structural similarity (Wang et al. 2003) of pairs of fakes: high where all are alike (Odena 2017)


WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
WINDOW, SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """uint8 [N,C,H,W] and [N,C,H,W] -> how alike the images of each pair are, [N]: 1 for the same image.

    At scales with less than 11 pixels the window shrinks with the image, as ProGAN has it. Raises UserError for
    images of less than 16 pixels.
    """
    require_size(*a.shape[2:])
    x, y = a.double(), b.double()
    found = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for scale, weight in enumerate(WEIGHTS):
        whole, contrast = _similarity(x, y)
        last = scale == len(WEIGHTS) - 1
        found = found * (whole if last else contrast).clamp_min(0) ** weight
        if not last:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return found


def require_size(height: int, width: int) -> None:
    """Raises UserError for images that are too small for the scales."""
    if min(height, width) < SMALLEST:
        raise UserError(f"ms-ssim needs images of at least {SMALLEST} pixels, not {width}x{height}")


def pair_similarity(images: Tensor, first: int = 0) -> Tensor:
    """Images 0 and 1, 2 and 3, ... are pairs: uint8 [N,C,H,W] -> [N,1], both of a pair having its similarity."""
    return ms_ssim(images[0::2], images[1::2]).float().repeat_interleave(2)[:, None]


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and without its term of brightness, averaged over places and channels: [N] twice."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + _C2) / (var_x + var_y + _C2)
    brightness = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (contrast * brightness).mean(dim=(1, 2, 3)), contrast.mean(dim=(1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Means under a Gaussian window, where it lies wholly within the image."""
    size = min(WINDOW, *x.shape[2:])
    places = torch.arange(size, dtype=torch.float64, device=x.device) - (size - 1) / 2
    window = torch.exp(-places.square() / (2 * (SIGMA * size / WINDOW) ** 2))
    kernel = (window / window.sum()).expand(x.shape[1], 1, 1, size)
    return F.conv2d(F.conv2d(x, kernel, groups=x.shape[1]), kernel.transpose(2, 3), groups=x.shape[1])


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Of [N]: the mean, and how far it may be off (one standard error)."""
    spread = float(values.std()) if len(values) > 1 else 0.0
    return float(values.mean()), spread / math.sqrt(len(values))
