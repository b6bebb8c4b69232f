"""Changing the resolution of feature maps and pictures: filters, nearest, box, and convolutions that do it on the way.

A 3x3 convolution after nearest upsampling, or before 2x2 averaging, equals one 4x4 convolution of stride 2 whose kernel
sums the 3x3 kernel's neighbours: the same function with 4 multiplications instead of 9 per pixel and channel pair.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.conv2d import conv2d, conv_transpose2d, packed
from ops.upfirdn2d import Factor, filter_size, parse_factor, parse_padding, upfirdn2d


def upsample_nearest(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat each pixel factor x factor times. [N,C,H,W] -> [N,C,factor*H,factor*W]."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")


def downsample_box(x: Tensor, factor: int = 2) -> Tensor:
    """Average blocks of factor x factor pixels. [N,C,H,W] -> [N,C,H/factor,W/factor]."""
    return x if factor == 1 else F.avg_pool2d(x, factor)


def merged_kernel(weight: Tensor, gain: float = 1.0, turned: bool = False) -> Tensor:
    """gain times the sum of a kernel and its copies shifted by one pixel right, down, and both. [O,I,3,3] -> [O,I,4,4].

    A product with a constant matrix: many times faster than sums of shifted slices, in both directions. turned: by half
    a turn, as a transposed convolution takes it.
    """
    make = _shifts.__wrapped__ if torch.compiler.is_compiling() else _shifts
    return (weight.flatten(2) @ make(gain, turned, weight.dtype, weight.device)).unflatten(2, (4, 4))


@functools.lru_cache(maxsize=256)
def _shifts(gain: float, turned: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """gain times the matrix [9,16] that sums a 3x3 kernel and its shifted copies, kept as `_normalised` is."""
    with torch.inference_mode(False):
        shifts = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=dtype, device=device)
        matrix = torch.kron(shifts, shifts) * gain
        return matrix.flip(1) if turned else matrix


def upsampling_kernel(weight: Tensor, gain: float = 1.0) -> Tensor:
    """What `upsample_conv2d` takes for gain * weight. [O,I,3,3] -> [I,O,4,4]."""
    return merged_kernel(weight, gain, turned=True).transpose(0, 1)


def downsampling_kernel(weight: Tensor, gain: float = 1.0) -> Tensor:
    """What `conv2d_downsample` takes for gain * weight. [O,I,3,3] -> [O,I,4,4]."""
    return merged_kernel(weight, gain / 4)


def upsample_conv2d(x: Tensor, kernel: Tensor) -> Tensor:
    """conv2d(upsample_nearest(x), weight), padded to keep the size. x: [N,I,H,W] -> [N,O,2H,2W].

    kernel: `upsampling_kernel(weight)`, in x's dtype, or what `packed_for_upsampling` made of it.
    """
    return conv_transpose2d(x, kernel, stride=2, padding=1)


def packed_for_upsampling(kernel: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """A kernel as `upsample_conv2d` reads it for x [batch,I,*size], without derivatives; see ops/packed.py."""
    return packed(kernel, batch, size, stride=2, padding=1, transposed=True)


def conv2d_downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """downsample_box(conv2d(x, weight)), padded to keep the size. x: [N,I,H,W] -> [N,O,H/2,W/2].

    kernel: `downsampling_kernel(weight)`, in x's dtype.
    """
    return conv2d(x, kernel, stride=2, padding=1)


def blur(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Separable low-pass filter, normalised to sum 1, zeros beyond the border. Keeps the size. x: [N,C,H,W].

    With an even number of taps the extra pixel of padding goes right and below (TensorFlow's SAME).
    """
    if not taps:
        return x
    make = _normalised.__wrapped__ if torch.compiler.is_compiling() else _normalised
    before, after = (len(taps) - 1) // 2, len(taps) // 2
    return upfirdn2d(x, make(tuple(taps), x.device), padding=(before, after, before, after), flip_filter=True)


@functools.lru_cache(maxsize=64)
def _normalised(taps: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, because copying even a few numbers to a GPU waits for all that it has been given to do."""
    with torch.inference_mode(False):
        row = torch.tensor(taps, dtype=torch.float32, device=device)
        return row / row.sum()


def setup_filter(
    taps: Tensor | Sequence[Any] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """A float32 filter for `upfirdn2d`: [k], if separable, or [kh,kw].

    taps: [k] for a separable filter, which becomes its outer product unless it is long (8 taps or more; or as
    `separable` says), [kh,kw], or one number; None is a single 1. normalize makes the sum 1, before the gain.
    """
    f = torch.as_tensor(1.0 if taps is None else taps, dtype=torch.float32, device=device)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"taps must be a number, [k] or [kh,kw], not {list(f.shape)}")
    f = f[None] if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if separable and f.ndim != 1:
        raise ValueError(f"separable: a filter {list(f.shape)} is not given by one row of taps")
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return f * gain ** (f.ndim / 2)  # a separable filter is applied twice


def filter2d(
    x: Tensor, f: Tensor | None, padding: Factor = 0, flip_filter: bool = False, gain: float = 1.0,
    *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Filter, keeping the size, but for the padding asked for beyond that. x: [N,C,H,W]."""
    pads = _padded(padding, f, lambda k, axis: (k // 2, (k - 1) // 2))
    return upfirdn2d(x, f, 1, 1, pads, flip_filter, gain, impl=impl)


def upsample2d(
    x: Tensor, f: Tensor | None, up: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1.0,
    *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Upsample and filter; the size is multiplied by up, the mean stays. padding: beyond that. x: [N,C,H,W]."""
    ups = parse_factor(up, "up")
    pads = up_padding(padding, f, ups)
    return upfirdn2d(x, f, ups, 1, pads, flip_filter, gain * ups[0] * ups[1], impl=impl)


def downsample2d(
    x: Tensor, f: Tensor | None, down: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1.0,
    *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Filter and downsample; the size is divided by down. padding: beyond that. x: [N,C,H,W]."""
    downs = parse_factor(down, "down")
    return upfirdn2d(x, f, 1, downs, down_padding(padding, f, downs), flip_filter, gain, impl=impl)


def up_padding(padding: Factor, f: Tensor | None, up: list[int]) -> list[int]:
    """What keeps an upsampled and filtered picture in place, at up times its size, added to `padding`."""
    return _padded(padding, f, lambda k, axis: ((k + up[axis] - 1) // 2, (k - up[axis]) // 2))


def down_padding(padding: Factor, f: Tensor | None, down: list[int]) -> list[int]:
    """What keeps a filtered and downsampled picture in place, at its size over down, added to `padding`."""
    return _padded(padding, f, lambda k, axis: ((k - down[axis] + 1) // 2, (k - down[axis]) // 2))


def _padded(padding: Factor, f: Tensor | None, sides: Callable[[int, int], tuple[int, int]]) -> list[int]:
    """padding, plus what sides(taps, axis) says for the two sides along x (axis 0) and y (axis 1)."""
    width, height = filter_size(f)
    return [p + more for p, more in zip(parse_padding(padding), (*sides(width, 0), *sides(height, 1)), strict=True)]
