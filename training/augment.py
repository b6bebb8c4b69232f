"""DiffAugment: the discriminator sees changed images, so that it does not memorise a small data set.

(S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han: Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS 2020.)
Reals and fakes are changed in the same ways, in both halves of a step; as the generator learns through the change, what
it makes itself stays as it should be.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Augmentation

DRAWS = 7  # uniform numbers for each image: three for colour, two each for the others
SHIFT, HOLE = 1 / 8, 1 / 2  # of a side: the farthest shift (at least a pixel), and the side of what is cut out


def augment(images: Tensor, draws: Tensor, kinds: tuple[Augmentation, ...]) -> Tensor:
    """images [N,C,H,W] in [-1, 1], each changed as its row of draws [N,7] says. Differentiable.

    draws: uniform in [0, 1); they are not read, so that nobody has to wait for a GPU
    """
    draws = draws.to(images.device)
    brightness, saturation, contrast, _, _, top, left = draws.float().unbind(dim=1)
    height, width = images.shape[2:]
    if "color" in kinds:
        color, opacity = images[:, :3], images[:, 3:]
        color = color + _each(brightness - 0.5)
        color = _away_from(color.mean(dim=1, keepdim=True), color, _each(2 * saturation))
        color = _away_from(color.mean(dim=(1, 2, 3), keepdim=True), color, _each(contrast + 0.5))
        images = torch.cat([color, opacity], dim=1)
    if "translation" in kinds:
        images = _Shifted.apply(images, _steps(draws[:, 3], height), _steps(draws[:, 4], width))
    if "cutout" in kinds:
        hole = _within(top, height)[:, None, :, None] & _within(left, width)[:, None, None, :]
        images = images * ~hole
    return images


def _each(values: Tensor) -> Tensor:
    """[N] for images [N,C,H,W]."""
    return values[:, None, None, None]


def _away_from(mean: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return mean + (images - mean) * factor


def _most(side: int) -> int:
    """The farthest shift, in pixels."""
    return int(side * SHIFT + 0.5)


def _steps(draws: Tensor, side: int) -> Tensor:
    """Whole pixels from -`_most` to `_most`, each equally likely, int64 [N]."""
    places = 2 * _most(side) + 1
    return (draws * places).long().clamp(max=places - 1) - _most(side)


class _Shifted(torch.autograd.Function):
    """Each image [N,C,H,W] moved by whole pixels [N] down and right; what comes in is grey.

    The gradient moves back. As the derivative of a gather it would be scattered, which takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, down: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(down, right)
        channels, height, width = images.shape[1:]
        high, wide = _most(height), _most(width)
        framed = F.pad(images, (wide, wide, high, high)).flatten(2)
        rows = torch.arange(height, device=down.device) + high - down[:, None]
        columns = torch.arange(width, device=down.device) + wide - right[:, None]
        places = (rows * (width + 2 * wide))[:, :, None] + columns[:, None, :]
        return framed.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1)).view(images.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        down, right = ctx.saved_tensors
        return _Shifted.apply(grads[0], -down, -right), None, None


def _within(draws: Tensor, side: int) -> Tensor:
    """Which of the places along a side lie in the hole, whose middle may be anywhere. [N,side]."""
    middle = draws[:, None] * side
    places = torch.arange(side, device=draws.device) + 0.5
    return (places - middle).abs() < side * HOLE / 2
