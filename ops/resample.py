"""Changing the resolution of feature maps and pictures: blur, nearest, box, and convolutions that do it on the way.

A 3x3 convolution after nearest upsampling, or before 2x2 averaging, equals one 4x4 convolution of stride 2 whose kernel
sums the 3x3 kernel's neighbours: the same function with 4 multiplications instead of 9 per pixel and channel pair.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.conv2d import conv2d, conv_transpose2d


def upsample_nearest(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat each pixel factor x factor times. [N,C,H,W] -> [N,C,factor*H,factor*W]."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")


def downsample_box(x: Tensor, factor: int = 2) -> Tensor:
    """Average blocks of factor x factor pixels. [N,C,H,W] -> [N,C,H/factor,W/factor]."""
    return x if factor == 1 else F.avg_pool2d(x, factor)


def merged_kernel(weight: Tensor, gain: float = 1.0) -> Tensor:
    """gain times the sum of a kernel and its copies shifted by one pixel right, down, and both. [O,I,3,3] -> [O,I,4,4].

    A product with a constant matrix: many times faster than sums of shifted slices, in both directions.
    """
    shifts = weight.new_tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    return (weight.flatten(2) @ (torch.kron(shifts, shifts) * gain)).unflatten(2, (4, 4))


def upsampling_kernel(weight: Tensor, gain: float = 1.0) -> Tensor:
    """What `upsample_conv2d` takes for gain * weight. [O,I,3,3] -> [I,O,4,4]."""
    return merged_kernel(weight, gain).flip((2, 3)).transpose(0, 1)


def downsampling_kernel(weight: Tensor, gain: float = 1.0) -> Tensor:
    """What `conv2d_downsample` takes for gain * weight. [O,I,3,3] -> [O,I,4,4]."""
    return merged_kernel(weight, gain / 4)


def upsample_conv2d(x: Tensor, kernel: Tensor) -> Tensor:
    """conv2d(upsample_nearest(x), weight), padded to keep the size. x: [N,I,H,W] -> [N,O,2H,2W].

    kernel: `upsampling_kernel(weight)`, in x's dtype.
    """
    return conv_transpose2d(x, kernel, stride=2, padding=1)


def conv2d_downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """downsample_box(conv2d(x, weight)), padded to keep the size. x: [N,I,H,W] -> [N,O,H/2,W/2].

    kernel: `downsampling_kernel(weight)`, in x's dtype.
    """
    return conv2d(x, kernel, stride=2, padding=1)


def blur(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Separable low-pass filter, normalised to sum 1, zeros beyond the border. Keeps the size. x: [N,C,H,W].

    With an even number of taps the extra pixel of padding goes right and below (TensorFlow's SAME).
    """
    return _Blur.apply(x, tuple(taps), False) if taps else x


class _Blur(torch.autograd.Function):
    """The derivative of a filter is the flipped filter, at any order: no gradient for the kernel is ever computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: tuple[float, ...], adjoint: bool) -> Tensor:
        ctx.taps, ctx.adjoint = taps, adjoint
        row = torch.tensor(taps, dtype=torch.float32, device=x.device)
        kernel = torch.outer(row, row) / row.sum() ** 2
        before, after = (len(taps) - 1) // 2, len(taps) // 2
        if adjoint:
            kernel, before, after = kernel.flip((0, 1)), after, before
        channels = x.shape[1]
        kernel = kernel.to(x.dtype).expand(channels, 1, *kernel.shape)
        if before == after:
            return F.conv2d(x, kernel, padding=before, groups=channels)
        return F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=channels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Blur.apply(grads[0], ctx.taps, not ctx.adjoint), None, None
