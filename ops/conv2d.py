"""Weights in the order in which a CPU's convolutions read them, for networks that only compute.

PyTorch rearranges a weight each time that it convolves with it. For one picture and small feature maps, that takes as
long as the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ops.autograd import differentiable, library

_PACK = ("_reorder_convolution_weight", "_reorder_convolution_transpose_weight")


def packed(
    weight: Tensor, batch: int, size: tuple[int, int], stride: int = 1, padding: int = 0, transposed: bool = False
) -> Tensor:  # fmt: skip
    """What `conv2d`, or `conv_transpose2d` if transposed, takes in place of `weight` for x [batch,I,*size].

    For other x it works as well, but is rearranged again. The result is the same but for its rounding, as sums may be
    added up in another order; it has no derivative. Where there is no such form, it is `weight` itself.
    """
    pack = getattr(torch.ops.mkldnn, _PACK[transposed], None) if torch.backends.mkldnn.is_available() else None
    if pack is None or weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return weight
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    channels = weight.shape[0 if transposed else 1]
    found: Tensor = pack(weight, padding=[padding] * 2, stride=[stride] * 2, input_size=[batch, channels, *size])
    return found


def convolve_packed(x: Tensor, weight: Tensor, stride: int, padding: int, transposed: bool) -> Tensor:
    """A convolution with what `packed` made. Raises RuntimeError where a derivative would be wanted."""
    if x.requires_grad and torch.is_grad_enabled():  # PyTorch would say nothing, and give none
        raise RuntimeError("a packed weight has no derivative: use the weight itself, or torch.no_grad()")
    rest: Any = ([stride] * 2, [1, 1], 1, "none", [], "")  # dilation, groups, and nothing to do afterwards
    if transposed:
        y: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, None, [padding] * 2, [0, 0], *rest)
    else:
        y = torch.ops.mkldnn._convolution_pointwise(x, weight, None, [padding] * 2, *rest)
    return y


# PyTorch's own convolutions, with derivatives of derivatives that use its fast weight gradient


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """F.conv2d. x: [N,I,H,W]  weight: [O,I,k,k] -> [N,O,H',W'], with H' = (H + 2 padding - k) // stride + 1.

    weight: or what `packed` made of it.
    """
    if weight.is_mkldnn:
        return convolve_packed(x, weight, stride, padding, False)
    y: Tensor = torch.ops.stylegan.conv2d(x, weight, stride, padding, False, [0, 0])
    return y


def conv_transpose2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """F.conv_transpose2d. x: [N,I,H,W]  weight: [I,O,k,k] -> [N,O,H',W'], with H' = (H - 1) stride - 2 padding + k.

    weight: or what `packed` made of it.
    """
    if weight.is_mkldnn:
        return convolve_packed(x, weight, stride, padding, True)
    y: Tensor = torch.ops.stylegan.conv2d(x, weight, stride, padding, True, [0, 0])
    return y


def _conv2d(x: Tensor, w: Tensor, stride: int, padding: int, transposed: bool, extra: list[int]) -> Tensor:
    """extra: rows and columns that a transposed convolution adds, those on which a stride never landed."""
    return torch.ops.aten.convolution(x, w, None, [stride] * 2, [padding] * 2, [1, 1], transposed, extra, 1)


def _conv2d_dw(x: Tensor, g: Tensor, kernel: list[int], stride: int, padding: int) -> Tensor:
    """x: [N,I,H,W]  g: [N,O,H',W'] -> [O,I,*kernel]."""
    w = x.new_empty([g.shape[1], x.shape[1], *kernel])  # only its shape is looked at
    return torch.ops.aten.convolution_backward(
        g, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]


library.define("conv2d(Tensor x, Tensor w, int stride, int padding, bool transposed, SymInt[] extra) -> Tensor")
library.define("conv2d_dw(Tensor x, Tensor g, SymInt[] kernel, int stride, int padding) -> Tensor")
library.impl("conv2d", _conv2d, "CompositeExplicitAutograd")
library.impl("conv2d_dw", _conv2d_dw, "CompositeExplicitAutograd")


def _extra(large: Tensor, small: Tensor, kernel: int, stride: int, padding: int) -> list[int]:
    """What is missing when `small` is spread out to the size of `large` again."""
    return [large.shape[d] - ((small.shape[d] - 1) * stride - 2 * padding + kernel) for d in (2, 3)]


def _wanted(ctx: Any, index: int) -> bool:
    """Does this backward pass lead to input `index`? R1 asks for the gradient of the picture only.

    Custom operators, unlike PyTorch's own, are not told and have to ask the engine. Where that is not possible (it
    knows nothing of leaves, and the question may disappear) the answer is yes, which costs time and nothing else.
    """
    if not ctx.needs_input_grad[index]:
        return False
    ask, node = getattr(torch._C, "_will_engine_execute_node", None), ctx.next_functions[index][0]
    if ask is None or node is None:
        return True
    try:
        return bool(ask(node))
    except RuntimeError:  # a leaf
        return True


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, w, ctx.stride, ctx.padding, ctx.transposed, _ = inputs
    ctx.save_for_backward(x, w)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, w = ctx.saved_tensors
    dx = dw = None
    if _wanted(ctx, 0):
        extra = [0, 0] if ctx.transposed else _extra(x, g, w.shape[2], ctx.stride, ctx.padding)
        dx = torch.ops.stylegan.conv2d(g, w, ctx.stride, ctx.padding, not ctx.transposed, extra)
    if _wanted(ctx, 1):
        large, small = (g, x) if ctx.transposed else (x, g)
        dw = torch.ops.stylegan.conv2d_dw(large, small, w.shape[2:], ctx.stride, ctx.padding)
    return dx, dw, None, None, None, None


def _setup_dw(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, g, kernel, ctx.stride, ctx.padding = inputs
    ctx.kernel = kernel[0]
    ctx.save_for_backward(x, g)


def _backward_dw(ctx: Any, ddw: Tensor) -> tuple[Tensor | None, ...]:
    x, g = ctx.saved_tensors
    dx = dg = None
    if _wanted(ctx, 0):
        extra = _extra(x, g, ctx.kernel, ctx.stride, ctx.padding)
        dx = torch.ops.stylegan.conv2d(g, ddw, ctx.stride, ctx.padding, True, extra)
    if _wanted(ctx, 1):
        dg = torch.ops.stylegan.conv2d(x, ddw, ctx.stride, ctx.padding, False, [0, 0])
    return dx, dg, None, None, None


torch.library.register_fake("stylegan::conv2d", _conv2d, lib=library)
torch.library.register_fake("stylegan::conv2d_dw", _conv2d_dw, lib=library)
differentiable("conv2d", _setup, _backward)
differentiable("conv2d_dw", _setup_dw, _backward_dw)
