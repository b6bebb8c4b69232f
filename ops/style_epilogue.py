"""The operations after each convolution of a StyleGAN generator in one: noise, bias, activation, instance norm, style.

    a = lrelu(x + noise * strength + bias)
    y = (1 + scale) * (a - mean(a)) / std(a) + shift            mean and deviation over each feature map

(StyleGAN, section 2 and equation 1.) The derivative is an op as well, `style_epilogue_grad`. The second derivative,
which path length and gradient penalties on the generator need, is computed through its formula in plain PyTorch.

In training, noise is not stored: the kernels make the number of each pixel from the place of its image (see
`ops.philox`) where they need it, once forward and once backward.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ops.autograd import compute_dtype, define, dense_like, derive, library, use_kernel
from ops.bias_act import bias_act_ref
from ops.philox import normals, require_places

SLOPES = {"linear": 1.0, "relu": 0.0, "lrelu": 0.2}
EPS = 1e-8


def style_epilogue(
    x: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    style: Tensor | None = None,
    activation: str = "lrelu",
    instance_norm: bool = True,
    *,
    stream: int = 0,
    impl: str = "auto",
) -> Tensor:
    """AdaIN(activation(x + noise * strength + bias), style), in x's dtype and layout.

    x: [N,C,H,W]  bias, strength: [C]  style: [N,2C], scales (around 0), then shifts
    noise: maps [1 or N,1,H,W]; or places, int64 [N,2], for the normal numbers of `stream` of each, in the order of the
    pixels, as `noise_maps` returns them
    Everything except x may be None; noise has no effect without strength. Statistics are computed in float32 (float64
    for float64) with eps 1e-8. There are derivatives of any order.

    Raises ValueError, which names the argument, for shapes, devices or activations that do not match.
    """
    _check(x, bias, noise, strength, style, activation, stream)
    if noise is None or strength is None:
        noise = strength = None
    if not use_kernel(impl, x):
        maps = noise_maps(noise, x, stream, impl="ref")
        return style_epilogue_ref(x, bias, maps, strength, style, SLOPES[activation], instance_norm)
    small = [None if t is None else t.contiguous() if _are_places(t) else t.to(compute_dtype(x)).contiguous()
             for t in (bias, noise, strength, style)]  # fmt: skip
    y: Tensor = torch.ops.stylegan.style_epilogue(x, *small, stream, SLOPES[activation], instance_norm, EPS)[0]
    return y


def noise_maps(noise: Tensor | None, x: Tensor, stream: int, *, impl: str = "auto") -> Tensor | None:
    """Maps as they are; places as the maps [N,1,H,W] for x [N,C,H,W] that the kernels make of them."""
    if noise is None or not _are_places(noise):
        return noise
    height, width = x.shape[2:]
    return normals(noise, height * width, stream, impl=impl).view(len(noise), 1, height, width)


def _are_places(noise: Tensor) -> bool:
    return noise.dtype == torch.int64


def style_epilogue_ref(
    x: Tensor, bias: Tensor | None, noise: Tensor | None, strength: Tensor | None, style: Tensor | None,
    slope: float, norm: bool,
) -> Tensor:  # fmt: skip
    """The specification of `style_epilogue`, in plain PyTorch."""
    dtype = x.dtype
    if noise is not None and strength is not None:
        x = x + noise.to(dtype) * strength.to(dtype)[:, None, None]
    a = bias_act_ref(x, bias, "lrelu", dim=1, slope=slope, gain=1, clamp=None).to(compute_dtype(x))
    if norm:
        centred = a - a.mean(dim=(2, 3), keepdim=True)
        a = centred * (centred.square().mean(dim=(2, 3), keepdim=True) + EPS).rsqrt()
    if style is not None:
        scale, shift = style.to(a.dtype)[:, :, None, None].chunk(2, dim=1)
        a = a * (scale + 1) + shift
    return a.to(dtype)


def _check(
    x: Tensor, bias: Tensor | None, noise: Tensor | None, strength: Tensor | None, style: Tensor | None,
    activation: str, stream: int,
) -> None:  # fmt: skip
    if activation not in SLOPES:
        raise ValueError(f"activation must be one of {', '.join(SLOPES)}, got {activation!r}")
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x must be [N,C,H,W] of a floating point dtype, got {list(x.shape)} {x.dtype}")
    n, c, h, w = x.shape
    if noise is not None and _are_places(noise):
        require_places(noise, stream, n)
        if noise.device != x.device:
            raise ValueError(f"noise must be on x's device {x.device}, got {noise.device}")
        noise = None
    shapes = {"bias": (bias, [[c]]), "strength": (strength, [[c]]), "style": (style, [[n, 2 * c]]),
              "noise": (noise, [[n, 1, h, w], [1, 1, h, w]])}  # fmt: skip
    for name, (value, allowed) in shapes.items():
        if value is None:
            continue
        if list(value.shape) not in allowed:
            raise ValueError(f"{name} must be {allowed[0]} for x {list(x.shape)}, got {list(value.shape)}")
        if value.device != x.device:
            raise ValueError(f"{name} must be on x's device {x.device}, got {value.device}")


# The ops and their derivatives

_INPUTS = "Tensor? bias, Tensor? noise, Tensor? strength, Tensor? style"
library.define(
    f"style_epilogue(Tensor x, {_INPUTS}, int stream, float slope, bool norm, float eps) -> (Tensor, Tensor, Tensor)"
)
library.define(
    f"style_epilogue_grad(Tensor dy, Tensor x, {_INPUTS}, Tensor mean, Tensor rstd, int stream, float slope, bool norm)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


def _fake(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty(x.shape[:2], dtype=compute_dtype(x))
    return dense_like(x), mean, torch.empty_like(mean)


def _fake_grad(dy: Tensor, x: Tensor, bias: Any, noise: Any, strength: Any, style: Any, *rest: Any) -> Any:
    n, c = x.shape[:2]
    channels = x.new_empty([c], dtype=compute_dtype(x))
    return dense_like(x), channels, torch.empty_like(channels), channels.new_empty([0 if style is None else n, 2 * c])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.stream, ctx.slope, ctx.norm, _ = inputs
    _, mean, rstd = output
    ctx.save_for_backward(*tensors, mean, rstd)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, *statistics: Any) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 9
    x, bias, noise, strength, style, mean, rstd = ctx.saved_tensors
    dx, d_bias, d_strength, d_style = torch.ops.stylegan.style_epilogue_grad(
        dy, x, bias, noise, strength, style, mean, rstd, ctx.stream, ctx.slope, ctx.norm
    )
    d_noise = None
    if noise is not None and ctx.needs_input_grad[2]:
        d_noise = (dx.to(noise.dtype) * strength[:, None, None]).sum(dim=1, keepdim=True).sum_to_size(noise.shape)
    given = zip((bias, strength, style), (d_bias, d_strength, d_style), strict=True)
    d_bias, d_strength, d_style = (None if t is None else found for t, found in given)
    return dx, d_bias, d_noise, d_strength, d_style, None, None, None, None


def _setup_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, _, _, ctx.stream, ctx.slope, ctx.norm = inputs
    ctx.save_for_backward(*tensors)


def _backward_grad(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """The derivative of the first derivative's formula, in which the statistics are functions of x."""
    dy, x, bias, noise, strength, style = ctx.saved_tensors
    inputs = dy, x, bias, noise_maps(noise, x, ctx.stream), strength, style
    found = derive(partial(style_epilogue_grad_ref, ctx.slope, ctx.norm), inputs, grads)
    if noise is not None and _are_places(noise):
        found[3] = None
    return *found, *[None] * 5


def style_epilogue_grad_ref(
    slope: float, norm: bool, dy: Tensor, x: Tensor,
    bias: Tensor | None, noise: Tensor | None, strength: Tensor | None, style: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The specification of the first derivative: the gradients of x, bias, strength and style (or empty), given dy.

    If n are the normalised activations and m is the mean over a feature map, the norm's derivative is
    rstd * (g - m(g) - n * m(g * n)).
    """
    dtype = compute_dtype(x)
    u = x.to(dtype)
    if noise is not None and strength is not None:
        u = u + noise.to(dtype) * strength.to(dtype)[:, None, None]
    if bias is not None:
        u = u + bias.to(dtype)[:, None, None]
    slopes = torch.where(u > 0, torch.ones_like(u), slope)
    normed, g = u * slopes, dy.to(dtype)
    rstd = torch.ones_like(u[:, :, :1, :1])
    if norm:
        centred = normed - normed.mean(dim=(2, 3), keepdim=True)
        rstd = (centred.square().mean(dim=(2, 3), keepdim=True) + EPS).rsqrt()
        normed = centred * rstd
    d_scale, d_shift = (g * normed).sum(dim=(2, 3), keepdim=True), g.sum(dim=(2, 3), keepdim=True)
    if norm:
        area = x.shape[2] * x.shape[3]
        g = g - d_shift / area - normed * (d_scale / area)
    if style is not None:
        g = g * (style.to(dtype)[:, : x.shape[1], None, None] + 1)
    dx = g * rstd * slopes
    d_bias = dx.sum(dim=(0, 2, 3))
    d_strength = torch.zeros_like(d_bias) if noise is None else (dx * noise.to(dtype)).sum(dim=(0, 2, 3))
    d_style = torch.cat([d_scale, d_shift], dim=1).flatten(1)
    return dx.to(x.dtype), d_bias, d_strength, d_style if style is not None else d_style[:0]


define("style_epilogue", _fake, _setup, _backward)
define("style_epilogue_grad", _fake_grad, _setup_grad, _backward_grad)
