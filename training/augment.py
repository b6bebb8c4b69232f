"""DiffAugment: the discriminator sees changed images, so that it does not memorise a small data set.

(S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han: Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS 2020.)
Reals and fakes are changed in the same ways, in both halves of a step; as the generator learns through the change, what
it makes itself stays as it should be.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Augmentation

DRAWS = 7  # uniform numbers for each image: three for colour, two each for the others
SHIFT, HOLE = 1 / 8, 1 / 2  # of a side: the farthest shift (at least a pixel), and the side of what is cut out


def augment(images: Tensor, draws: Tensor, kinds: tuple[Augmentation, ...]) -> Tensor:
    """images [N,C,H,W] in [-1, 1], each changed as its row of draws [N,7] says. Differentiable.

    draws: uniform in [0, 1), on the CPU, so that no GPU has to wait for the shifts
    """
    brightness, saturation, contrast, _, _, top, left = draws.float().to(images.device).unbind(dim=1)
    height, width = images.shape[2:]
    if "color" in kinds:
        color, opacity = images[:, :3], images[:, 3:]
        color = color + _each(brightness - 0.5)
        color = _away_from(color.mean(dim=1, keepdim=True), color, _each(2 * saturation))
        color = _away_from(color.mean(dim=(1, 2, 3), keepdim=True), color, _each(contrast + 0.5))
        images = torch.cat([color, opacity], dim=1)
    if "translation" in kinds:
        images = _shifted(images, _steps(draws[:, 3], height), _steps(draws[:, 4], width))
    if "cutout" in kinds:
        hole = _within(top, height)[:, None, :, None] & _within(left, width)[:, None, None, :]
        images = images * ~hole
    return images


def _each(values: Tensor) -> Tensor:
    """[N] for images [N,C,H,W]."""
    return values[:, None, None, None]


def _away_from(mean: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return mean + (images - mean) * factor


def _steps(draws: Tensor, side: int) -> list[int]:
    """Whole pixels from -SHIFT to SHIFT of a side, each equally likely."""
    most = int(side * SHIFT + 0.5)
    return [int(u * (2 * most + 1)) - most for u in draws.tolist()]


def _shifted(images: Tensor, down: list[int], right: list[int]) -> Tensor:
    """Each image moved by whole pixels; what comes in is grey."""
    rows = zip(images.split(1), down, right, strict=True)
    return torch.cat([F.pad(image, (x, -x, y, -y)) for image, y, x in rows])


def _within(draws: Tensor, side: int) -> Tensor:
    """Which of the places along a side lie in the hole, whose middle may be anywhere. [N,side]."""
    middle = draws[:, None] * side
    places = torch.arange(side, device=draws.device) + 0.5
    return (places - middle).abs() < side * HOLE / 2
