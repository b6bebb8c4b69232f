"""Multi-scale structural similarity (Wang et al. 2003) of pairs of fakes: high where all are alike (Odena 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.errors import UserError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
WINDOW, SIGMA, SMALLEST = 11, 1.5, 16
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """uint8 [N,C,H,W] and [N,C,H,W] -> how alike the pictures of each pair are, [N]: 1 for the same picture.

    At scales with less than 11 pixels the window shrinks with the picture, as ProGAN has it. Raises UserError for
    pictures of less than 16 pixels.
    """
    if min(a.shape[2:]) < SMALLEST:
        raise UserError(f"ms-ssim needs pictures of at least {SMALLEST} pixels, not {a.shape[3]}x{a.shape[2]}")
    x, y = a.double(), b.double()
    found = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for scale, weight in enumerate(WEIGHTS):
        whole, contrast = _similarity(x, y)
        last = scale == len(WEIGHTS) - 1
        found = found * (whole if last else contrast).clamp_min(0) ** weight
        if not last:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return found


def pair_similarity(pictures: Tensor, first: int = 0) -> Tensor:
    """Pictures 0 and 1, 2 and 3, ... are pairs: uint8 [N,C,H,W] -> [N,1], both of a pair having its similarity."""
    return ms_ssim(pictures[0::2], pictures[1::2]).float().repeat_interleave(2)[:, None]


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and without its term of brightness, averaged over places and channels: [N] twice."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + _C2) / (var_x + var_y + _C2)
    brightness = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return (contrast * brightness).mean(dim=(1, 2, 3)), contrast.mean(dim=(1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Means under a Gaussian window, where it lies wholly within the picture."""
    size = min(WINDOW, *x.shape[2:])
    places = torch.arange(size, dtype=torch.float64, device=x.device) - (size - 1) / 2
    window = torch.exp(-places.square() / (2 * (SIGMA * size / WINDOW) ** 2))
    kernel = (window / window.sum()).expand(x.shape[1], 1, 1, size)
    return F.conv2d(F.conv2d(x, kernel, groups=x.shape[1]), kernel.transpose(2, 3), groups=x.shape[1])


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Of [N]: the mean, and how far it may be off (one standard error)."""
    spread = float(values.std()) if len(values) > 1 else 0.0
    return float(values.mean()), spread / math.sqrt(len(values))
