"""Filters, and changing the resolution of images and feature maps: upsampling, downsampling, blurring.

Two families of functions: with any filter, through `upfirdn2d` (StyleGAN2 and 3), and the simple ones of ProGAN and
StyleGAN: nearest, box and blur, also merged with the convolution that comes before or after.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ops.conv2d import conv2d, packed
from ops.upfirdn2d import Factor, filter_size, parse_factor, parse_padding, upfirdn2d

# Filters for `upfirdn2d`


def setup_filter(
    taps: Tensor | Sequence[Any] | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """A float32 filter: [k] if it is separable, else [kh,kw].

    taps: [k], [kh,kw] or one number; None means a single 1. A row [k] stays separable if it has 8 taps or more,
    otherwise it becomes its outer product; `separable` overrides that rule. normalize: scale to sum 1, before the gain.
    Raises ValueError for other shapes.
    """
    f = torch.as_tensor(1.0 if taps is None else taps, dtype=torch.float32, device=device)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"taps must be a number, [k] or [kh,kw], got {list(f.shape)}")
    f = f[None] if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if separable and f.ndim != 1:
        raise ValueError(f"taps of a separable filter must be [k], got {list(f.shape)}")
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return f * gain ** (f.ndim / 2)  # a separable filter is applied twice


def design_lowpass_filter(numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False) -> Tensor | None:
    """A windowed low-pass filter of sum 1 (StyleGAN3, appendix C.1): [numtaps], separable, or radial [numtaps,numtaps].

    cutoff, width (of the transition band) and fs (the sampling rate) have the same unit. The width of the transition
    band determines the Kaiser window. A filter of one tap has no effect: the result is None. Raises ValueError for
    fewer taps, and for a cutoff that is not between 0 and fs / 2.
    """
    if numtaps < 1:
        raise ValueError(f"numtaps must be at least 1, got {numtaps}")
    if not 0 < cutoff < fs / 2:
        raise ValueError(f"cutoff must be between 0 and fs / 2 = {fs / 2:g}, got {cutoff:g}")
    if numtaps == 1:
        return None
    from scipy.signal import firwin, kaiser_atten, kaiser_beta  # not at the top, because no training needs them
    from scipy.special import j1

    taps = firwin(numtaps, cutoff, width=width, fs=fs)
    if radial:
        position = np.arange(numtaps) - (numtaps - 1) / 2
        z = 2 * np.pi * cutoff / fs * np.hypot(*np.meshgrid(position, position))
        disc = np.divide(j1(z), z, out=np.full_like(z, 0.5), where=z > 0)  # the Fourier transform of a disc
        window = np.kaiser(numtaps, kaiser_beta(kaiser_atten(numtaps, width / (fs / 2))))
        taps = disc * np.outer(window, window)
    return torch.as_tensor(taps / taps.sum(), dtype=torch.float32)


# With any filter


def filter2d(
    x: Tensor, f: Tensor | None, padding: Factor = 0, flip_filter: bool = False, gain: float = 1.0,
    *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Filter x at the same size, or a larger one if `padding` is given. x: [N,C,H,W]."""
    pads = _padded(padding, f, lambda k, axis: (k // 2, (k - 1) // 2))
    return upfirdn2d(x, f, 1, 1, pads, flip_filter, gain, impl=impl)


def upsample2d(
    x: Tensor, f: Tensor | None, up: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1.0,
    *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Upsample and filter x: `up` times the size, with the same mean. padding: additional. x: [N,C,H,W]."""
    ups = parse_factor(up, "up")
    pads = up_padding(padding, f, ups)
    return upfirdn2d(x, f, ups, 1, pads, flip_filter, gain * ups[0] * ups[1], impl=impl)


def downsample2d(
    x: Tensor, f: Tensor | None, down: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1.0,
    *, impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Filter and downsample x: the size divided by `down`. padding: additional. x: [N,C,H,W]."""
    downs = parse_factor(down, "down")
    return upfirdn2d(x, f, 1, downs, down_padding(padding, f, downs), flip_filter, gain, impl=impl)


def up_padding(padding: Factor, f: Tensor | None, up: list[int]) -> list[int]:
    """`padding`, plus what keeps an upsampled and filtered image in place, at `up` times its size."""
    return _padded(padding, f, lambda k, axis: ((k + up[axis] - 1) // 2, (k - up[axis]) // 2))


def down_padding(padding: Factor, f: Tensor | None, down: list[int]) -> list[int]:
    """`padding`, plus what keeps a filtered and downsampled image in place, at its size divided by `down`."""
    return _padded(padding, f, lambda k, axis: ((k - down[axis] + 1) // 2, (k - down[axis]) // 2))


def _padded(padding: Factor, f: Tensor | None, sides: Callable[[int, int], tuple[int, int]]) -> list[int]:
    """`padding`, plus sides(taps, axis) for the two sides along x (axis 0) and y (axis 1)."""
    width, height = filter_size(f)
    return [p + more for p, more in zip(parse_padding(padding), (*sides(width, 0), *sides(height, 1)), strict=True)]


# Nearest, box and blur


def upsample_nearest(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat each pixel factor x factor times. [N,C,H,W] -> [N,C,factor*H,factor*W]."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")


def downsample_box(x: Tensor, factor: int = 2) -> Tensor:
    """Average blocks of factor x factor pixels. [N,C,H,W] -> [N,C,H/factor,W/factor]."""
    return x if factor == 1 else F.avg_pool2d(x, factor)


def blur(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Apply a separable low-pass filter, normalised to sum 1, with zeros beyond the border. x: [N,C,H,W] -> the same.

    With an even number of taps the additional pixel of padding is on the right and at the bottom (TensorFlow's SAME).
    """
    if not taps:
        return x
    before, after = (len(taps) - 1) // 2, len(taps) // 2
    return upfirdn2d(x, constant_filter(taps, x.device), padding=(before, after, before, after), flip_filter=True)


def constant_filter(taps: tuple[float, ...], device: torch.device) -> Tensor | None:
    """A separable filter of sum 1 for `upfirdn2d`, made once for each device; None without taps."""
    make = _normalised.__wrapped__ if torch.compiler.is_compiling() else _normalised
    return make(tuple(taps), device) if taps else None


@functools.lru_cache(maxsize=64)
def _normalised(taps: tuple[float, ...], device: torch.device) -> Tensor:
    """Cached, because copying even a few numbers to a GPU waits for all the work that it has been given."""
    with torch.inference_mode(False):
        row = torch.tensor(taps, dtype=torch.float32, device=device)
        return row / row.sum()


# Merged with a convolution: 3x3 after nearest upsampling, or before 2x2 averaging, equals one 4x4 convolution of stride
# 2 whose kernel sums neighbours of the 3x3 kernel. It needs 4 multiplications instead of 9 per pixel and channel pair.


def upsampling_kernel(weight: Tensor, gain: float = 1.0) -> Tensor:
    """The kernel for `upsample_conv2d` with gain * weight. [O,I,3,3] -> [I,O,4,4]."""
    return _merged(weight, gain, turned=True).transpose(0, 1)


def downsampling_kernel(weight: Tensor, gain: float = 1.0) -> Tensor:
    """The kernel for `conv2d_downsample` with gain * weight. [O,I,3,3] -> [O,I,4,4]."""
    return _merged(weight, gain / 4, turned=False)


def upsample_conv2d(x: Tensor, kernel: Tensor) -> Tensor:
    """conv2d(upsample_nearest(x), weight), padded to keep the size. x: [N,I,H,W] -> [N,O,2H,2W].

    kernel: `upsampling_kernel(weight)`, in x's dtype, or the result of `packed_for_upsampling`.
    """
    return conv2d(x, kernel, stride=2, padding=1, transposed=True)


def conv2d_downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """downsample_box(conv2d(x, weight)), padded to keep the size. x: [N,I,H,W] -> [N,O,H/2,W/2].

    kernel: `downsampling_kernel(weight)`, in x's dtype.
    """
    return conv2d(x, kernel, stride=2, padding=1)


def packed_for_upsampling(kernel: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """A kernel packed for `upsample_conv2d` with x [batch,I,*size]; see `ops.conv2d.packed`."""
    return packed(kernel, batch, size, stride=2, padding=1, transposed=True)


def _merged(weight: Tensor, gain: float, turned: bool) -> Tensor:
    """gain times the sum of a kernel and its copies shifted by one pixel right, down, and both. [O,I,3,3] -> [O,I,4,4].

    A product with a constant matrix is many times faster than sums of shifted slices, forward and backward. turned: by
    180 degrees, as a transposed convolution needs it.
    """
    make = _shifts.__wrapped__ if torch.compiler.is_compiling() else _shifts
    return (weight.flatten(2) @ make(gain, turned, weight.dtype, weight.device)).unflatten(2, (4, 4))


@functools.lru_cache(maxsize=256)
def _shifts(gain: float, turned: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """gain times the matrix [9,16] that sums a 3x3 kernel and its shifted copies; cached as `_normalised` is."""
    with torch.inference_mode(False):
        shifts = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=dtype, device=device)
        matrix = torch.kron(shifts, shifts) * gain
        return matrix.flip(1) if turned else matrix
