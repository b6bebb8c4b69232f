"""Pad, upsample, filter, downsample: the one operation behind all resampling of images and feature maps.

The derivative is the same operation with up and down exchanged, so one kernel serves all orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.autograd import compute_dtype, define, library, use_kernel

Factor = int | Sequence[int]
# Up to this number of taps, one pass over memory with all their products costs less than two passes.
_FEW_TAPS = 4


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 1,
    down: Factor = 1,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    *,
    impl: str = "auto",
) -> Tensor:
    """Pad, upsample, filter, downsample, in x's dtype and layout. x: [N,C,H,W] -> [N,C,H',W'].

    f: [kh,kw], or [k] for a separable filter with the same taps along both axes, or None for a single 1.
    up, down: one factor, or [x, y]. padding: of the upsampled x; one number, [x, y] or [left, right, top, bottom];
    negative numbers crop. flip_filter: correlate x with the filter instead of convolving. gain multiplies the result.
    H' = (H * up + top + bottom - kh) // down + 1. x has derivatives of any order; f is a constant.

    Raises ValueError, which names the argument, for shapes, devices, factors or paddings that do not match.
    """
    ups, downs, pads = parse_factor(up, "up"), parse_factor(down, "down"), parse_padding(padding)
    _check(x, f, ups, downs, pads)
    f = None if f is None else f.detach()
    if not use_kernel(impl, x):
        return upfirdn2d_ref(x, f, ups, downs, pads, flip_filter, gain)
    y: Tensor = torch.ops.stylegan.upfirdn2d(x, f, ups, downs, pads, flip_filter, float(gain))
    return y


def upfirdn2d_ref(
    x: Tensor, f: Tensor | None, up: list[int], down: list[int], padding: list[int], flip: bool, gain: float
) -> Tensor:  # fmt: skip
    """The specification of `upfirdn2d`, in plain PyTorch."""
    x = _insert_zeros(x, *up)
    if f is None:
        return pad_or_crop(x, padding)[:, :, :: down[1], :: down[0]] * gain
    f = (f if flip else f.flip(list(range(f.ndim)))).to(compute_dtype(x))
    if f.ndim == 1 and len(f) <= _FEW_TAPS:
        f = torch.outer(f, f)
    # The convolution itself does padding that is equal on both sides, without a copy.
    left, right, top, bottom = padding
    inside = (top, left) if top == bottom and left == right and min(padding) >= 0 else (0, 0)
    if inside == (0, 0) and any(padding):
        x = pad_or_crop(x, padding)
    channels = x.shape[1]
    if f.ndim == 2:
        f = (f * gain).to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv2d(x, f, None, (down[1], down[0]), inside, groups=channels)
    row = f.to(x.dtype)[None, :].expand(channels, 1, 1, -1)
    column = (f * gain).to(x.dtype)[:, None].expand(channels, 1, -1, 1)
    x = F.conv2d(x, row, None, (1, down[0]), (0, inside[1]), groups=channels)
    return F.conv2d(x, column, None, (down[1], 1), (inside[0], 0), groups=channels)


def pad_or_crop(x: Tensor, padding: list[int]) -> Tensor:
    """F.pad in two steps, since it cannot crop one side by more than x has and pad the other at the same time."""
    if min(padding) < 0 < max(padding):
        x, padding = F.pad(x, [max(p, 0) for p in padding]), [min(p, 0) for p in padding]
    return F.pad(x, padding)


def _insert_zeros(x: Tensor, up_x: int, up_y: int) -> Tensor:
    if up_x == up_y == 1:
        return x
    n, c, h, w = x.shape
    u = _empty(x, [n, c, h * up_y, w * up_x]).zero_()
    u[:, :, ::up_y, ::up_x] = x
    return u


def _empty(x: Tensor, shape: list[int]) -> Tensor:
    """An empty tensor in the layout of a kernel's result for x, see `dense_like`."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def parse_factor(value: Factor, name: str) -> list[int]:
    """One factor or [x, y] -> [x, y]."""
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} must be one number, or [x, y], of at least 1, got {value}")
    return pair


def parse_padding(value: Factor) -> list[int]:
    """One number, [x, y] or all four -> [left, right, top, bottom]."""
    pads = [value] * 4 if isinstance(value, int) else list(value)
    if len(pads) == 2:
        pads = [pads[0], pads[0], pads[1], pads[1]]
    if len(pads) != 4:
        raise ValueError(f"padding must be one number, [x, y] or [left, right, top, bottom], got {value}")
    return pads


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """Width and height of a filter."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def _check(x: Tensor, f: Tensor | None, up: list[int], down: list[int], padding: list[int]) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x must be [N,C,H,W] of a floating point dtype, got {list(x.shape)} {x.dtype}")
    if f is not None:
        if f.ndim not in (1, 2) or f.numel() == 0 or not f.is_floating_point():
            raise ValueError(f"f must be [k] or [kh,kw] of a floating point dtype, got {list(f.shape)} {f.dtype}")
        if f.device != x.device:
            raise ValueError(f"f must be on x's device {x.device}, got {f.device}")
    if min(_out_size(x, f, up, down, padding)) < 1:
        raise ValueError(f"padding={padding} makes x {list(x.shape)} smaller than the filter {filter_size(f)[::-1]}")


def _out_size(x: Tensor, f: Tensor | None, up: list[int], down: list[int], padding: list[int]) -> tuple[int, int]:
    """Height and width of the result."""
    width, height = filter_size(f)
    left, right, top, bottom = padding
    return (
        (x.shape[2] * up[1] + top + bottom - height) // down[1] + 1,
        (x.shape[3] * up[0] + left + right - width) // down[0] + 1,
    )


# The op and its derivative

library.define(
    "upfirdn2d(Tensor x, Tensor? f, int[] up, int[] down, SymInt[] padding, bool flip, float gain) -> Tensor"
)


def _fake(x: Tensor, f: Tensor | None, up: list[int], down: list[int], padding: list[int], *rest: Any) -> Tensor:
    h, w = _out_size(x, f, up, down, padding)
    return _empty(x, [*x.shape[:2], h, w])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, ctx.up, ctx.down, padding, ctx.flip, ctx.gain = inputs
    ctx.save_for_backward(f)
    (width, height), (h, w), (out_h, out_w) = filter_size(f), x.shape[2:], output.shape[2:]
    left, top = width - 1 - padding[0], height - 1 - padding[2]
    # The padding of the other side follows from the size of the result, which is that of x.
    right = (w - 1) * ctx.up[0] + width - out_w * ctx.down[0] - left
    bottom = (h - 1) * ctx.up[1] + height - out_h * ctx.down[1] - top
    ctx.padding = [left, right, top, bottom]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (f,) = ctx.saved_tensors
    dx = torch.ops.stylegan.upfirdn2d(dy, f, ctx.down, ctx.up, ctx.padding, not ctx.flip, ctx.gain)
    return dx, *[None] * 6


define("upfirdn2d", _fake, _setup, _backward)
