"""What follows each convolution of a StyleGAN generator: noise, bias, activation, instance norm, style."""

from __future__ import annotations

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

    x: [N,C,H,W]  bias, strength: [C]  noise: [1 or N,1,H,W]  style: [N,2C], scales and then shifts; scales are around 0.
    Every part but the bias may be left out. Statistics are float32; the result has x's dtype.
    """
    if noise is not None and strength is not None:
        x = torch.addcmul(x, noise.to(x.dtype), strength.to(x.dtype)[:, None, None])
    x = bias_act(x, bias, activation)
    if instance_norm:
        return adain(x, style)
    return x if style is None else x * _per_map(style, 0, x.dtype).add(1) + _per_map(style, 1, x.dtype)


def adain(x: Tensor, style: Tensor | None, eps: float = 1e-8) -> Tensor:
    """Normalise each feature map to zero mean and unit variance, then scale it by 1 + style and shift it.

    x: [N,C,H,W]  style: [N,2C] or None -> [N,C,H,W].
    """
    var, mean = torch.var_mean(x.float(), dim=(2, 3), unbiased=False, keepdim=True)
    scale = (var + eps).rsqrt()
    if style is not None:
        scale = scale * (_per_map(style, 0, torch.float32) + 1)
    shift = -mean * scale
    if style is not None:
        shift = shift + _per_map(style, 1, torch.float32)
    return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))


def _per_map(style: Tensor, which: int, dtype: torch.dtype) -> Tensor:
    return style.unflatten(1, (2, -1))[:, which, :, None, None].to(dtype)
