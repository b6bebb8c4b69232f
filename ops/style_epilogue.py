"""What follows each convolution of a StyleGAN generator: noise, bias, activation, instance norm, style."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ops.bias_act import bias_act


def style_epilogue(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    style: Tensor | None,
    activation: str = "lrelu",
    instance_norm: bool = True,
) -> Tensor:
    """AdaIN(activation(x + noise * strength + bias), style) (StyleGAN, section 2 and equation 1).

    x: [N,C,H,W]  bias, strength: [C]  noise: [1 or N,1,H,W]  style: [N,2C], scales (around 0), then shifts.
    Every part but the bias may be left out. Statistics are float32; the result has x's dtype.
    """
    if noise is not None and strength is not None:
        x = torch.addcmul(x, noise.to(x.dtype), strength.to(x.dtype)[:, None, None])
    x = bias_act(x, bias, activation)
    if instance_norm:
        return adain(x, style)
    if style is None:
        return x
    gain, shift = _gain_and_shift(style, x.dtype)
    return torch.addcmul(shift, x, gain)


def adain(x: Tensor, style: Tensor | None) -> Tensor:
    """Normalise each feature map to zero mean and unit variance (eps 1e-8), then scale by 1 + style and shift.

    x: [N,C,H,W]  style: [N,2C] or None -> [N,C,H,W].
    """
    if style is None:
        style = x.new_zeros(x.shape[0], 2 * x.shape[1], dtype=torch.float32)
    return _AdaIN.apply(x, style)


class _AdaIN(torch.autograd.Function):
    """Plain PyTorch's own variance is slow in channels_last, and its derivative passes over memory many times.

    The backward is written in operations that can be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, style: Tensor) -> Tensor:
        ctx.save_for_backward(x, style)
        centred, rstd = _centred(x)
        gain, shift = _gain_and_shift(style, centred.dtype)
        return torch.addcmul(shift, centred, gain * rstd).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, style = ctx.saved_tensors
        centred, rstd = _centred(x)
        gain, _ = _gain_and_shift(style, centred.dtype)
        g = grads[0].to(centred.dtype)
        d_shift = g.sum(dim=(2, 3), keepdim=True)
        d_gain = (g * centred).sum(dim=(2, 3), keepdim=True) * rstd
        # gain * rstd * (g - mean(g) - normalised * mean(g * normalised)), in two passes
        area, scale = x.shape[2] * x.shape[3], gain * rstd
        dx = torch.addcmul(scale * d_shift / -area, g, scale)
        dx = torch.addcmul(dx, centred, scale * rstd * d_gain / -area)
        return dx.to(x.dtype), torch.cat([d_gain, d_shift], dim=1).flatten(1).to(style.dtype)


def _centred(x: Tensor, eps: float = 1e-8) -> tuple[Tensor, Tensor]:
    """x without its mean [N,C,H,W], and 1 / its standard deviation [N,C,1,1]; float32, or float64 for float64."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    return centred, (centred.square().mean(dim=(2, 3), keepdim=True) + eps).rsqrt()


def _gain_and_shift(style: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """style [N,2C] -> 1 + its first half, and its second half, each [N,C,1,1]."""
    gain, shift = style.to(dtype)[:, :, None, None].chunk(2, dim=1)
    return gain + 1, shift
