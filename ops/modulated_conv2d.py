"""Modulated convolution: each sample's style scales the input channels of a convolution that all samples share.

Scaling activations instead of weights gives the same result (StyleGAN2, section 2.2) without a kernel for each sample.
Demodulation divides by the norm of the kernel that a sample would have had, which is a product of two small matrices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-8
Convolution = Callable[..., Tensor]


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    conv: Convolution = F.conv2d,
    demodulate: bool = True,
    noise: Tensor | None = None,
    input_gain: Tensor | None = None,
) -> Tensor:
    """Convolve x with a weight scaled by each sample's style. x: [N,I,H,W]  weight: [O,I,kh,kw]  styles: [N,I].

    Returns [N,O,H',W'] in x's dtype. conv(x, weight) is the convolution itself, with its padding and resampling:

        functools.partial(conv2d_resample, f=f, up=2, padding=1, flip_weight=False)       StyleGAN2
        functools.partial(F.conv2d, padding=2), weight and styles from `normalised`       StyleGAN3

    noise: is added to the result, and broadcasts to it. input_gain: [], [I] or [N,I], a scale of the input that
    demodulation does not undo. Raises ValueError, which names the argument, for shapes that do not match.
    """
    _check(x, weight, styles)
    if demodulate:
        return demodulated_conv2d(x, *prepared(weight, x.dtype), styles, conv, noise, input_gain)
    scale = styles if input_gain is None else styles * input_gain
    y = conv(x * scale.to(x.dtype)[:, :, None, None], weight.to(x.dtype))
    return y if noise is None else y + noise.to(y.dtype)


def prepared(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What demodulation needs of a weight [O,I,kh,kw]: itself in `dtype`, and the sums of its squares [O,I].

    It is the same for all styles, so a network that only generates may keep it.
    """
    if dtype == torch.float16:
        weight = _bounded(weight)
    return weight.to(dtype), weight.square().sum((2, 3))


def demodulated_conv2d(
    x: Tensor,
    kernel: Tensor,
    squares: Tensor,
    styles: Tensor,
    conv: Convolution = F.conv2d,
    noise: Tensor | None = None,
    input_gain: Tensor | None = None,
) -> Tensor:
    """`modulated_conv2d` with demodulation. kernel, squares: from `prepared`, for x's dtype"""
    if x.dtype == torch.float16:  # the largest is 1, so that no sum overflows
        styles = styles / styles.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    scale = styles if input_gain is None else styles * input_gain
    y = conv(x * scale.to(x.dtype)[:, :, None, None], kernel)
    factor = (styles.square() @ squares.t() + EPS).rsqrt().to(y.dtype)[:, :, None, None]
    return y * factor if noise is None else torch.addcmul(noise.to(y.dtype), y, factor)


def modulated_conv2d_grouped(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    conv: Convolution = F.conv2d,
    demodulate: bool = True,
    noise: Tensor | None = None,
) -> Tensor:
    """The same as `modulated_conv2d`, up to rounding, by a kernel for each sample in one convolution with N groups.

    conv: takes `groups` as well. It needs memory for N kernels, and pays where a device would wait for small ones.
    """
    _check(x, weight, styles)
    n = len(x)
    kernels = weight * styles[:, None, :, None, None]
    if demodulate:
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + EPS).rsqrt()
    y = conv(x.flatten(0, 1)[None], kernels.flatten(0, 1).to(x.dtype), groups=n)
    y = y.unflatten(1, (n, -1))[0]
    return y if noise is None else y + noise.to(y.dtype)


def normalised(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Scale to a mean square of 1: the weight per output channel, the styles as a whole (StyleGAN3)."""
    return (
        weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt(),
        styles * styles.square().mean().rsqrt(),
    )


def _bounded(weight: Tensor) -> Tensor:
    """Scale so that no sum overflows float16 (StyleGAN2-ADA, on mixed precision). Demodulation undoes it."""
    largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return weight / (largest * weight[0].numel() ** 0.5)


def _check(x: Tensor, weight: Tensor, styles: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"x must be [N,I,H,W], got {list(x.shape)}")
    n, channels = x.shape[:2]
    if weight.ndim != 4 or weight.shape[1] != channels:
        raise ValueError(f"weight must be [O,{channels},kh,kw] for x {list(x.shape)}, got {list(weight.shape)}")
    if list(styles.shape) != [n, channels]:
        raise ValueError(f"styles must be {[n, channels]} for x {list(x.shape)}, got {list(styles.shape)}")
