"""PyTorch's convolutions, with second derivatives that use its fast weight gradient, and weights packed for the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ops.autograd import define, library


def conv2d(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, transposed: bool = False) -> Tensor:
    """F.conv2d. x: [N,I,H,W]  weight: [O,I,k,k] -> [N,O,H',W'], with H' = (H + 2 padding - k) // stride + 1.

    transposed: F.conv_transpose2d, with weight [I,O,k,k] and H' = (H - 1) stride - 2 padding + k.
    weight: may also be a result of `packed`.
    """
    if weight.is_mkldnn:
        return _convolve_packed(x, weight, stride, padding, transposed)
    y: Tensor = torch.ops.stylegan.conv2d(x, weight, stride, padding, transposed, [0, 0])
    return y


# The op, and the gradient of its weight


def _conv2d(x: Tensor, w: Tensor, stride: int, padding: int, transposed: bool, extra: list[int]) -> Tensor:
    """extra: rows and columns that a transposed convolution adds because no stride reached them."""
    return torch.ops.aten.convolution(x, w, None, [stride] * 2, [padding] * 2, [1, 1], transposed, extra, 1)


def _conv2d_dw(x: Tensor, g: Tensor, kernel: list[int], stride: int, padding: int) -> Tensor:
    """x: [N,I,H,W]  g: [N,O,H',W'] -> [O,I,*kernel]."""
    w = x.new_empty([g.shape[1], x.shape[1], *kernel])  # only its shape is read
    return torch.ops.aten.convolution_backward(
        g, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]


library.define("conv2d(Tensor x, Tensor w, int stride, int padding, bool transposed, SymInt[] extra) -> Tensor")
library.define("conv2d_dw(Tensor x, Tensor g, SymInt[] kernel, int stride, int padding) -> Tensor")
library.impl("conv2d", _conv2d, "CompositeExplicitAutograd")
library.impl("conv2d_dw", _conv2d_dw, "CompositeExplicitAutograd")


# Derivatives: those of the two ops are made of the two ops


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


def _extra(large: Tensor, small: Tensor, kernel: int, stride: int, padding: int) -> list[int]:
    """Rows and columns that are missing when `small` is enlarged to the size of `large` again."""
    return [large.shape[d] - ((small.shape[d] - 1) * stride - 2 * padding + kernel) for d in (2, 3)]


def _wanted(ctx: Any, index: int) -> bool:
    """Whether this backward pass needs the gradient of input `index`. R1 needs that of the images only.

    PyTorch passes this information to its own operators but not to custom ones, which have to ask the engine. If it
    cannot answer (it knows nothing of leaves, and the function may disappear), True costs time and is still correct.
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


define("conv2d", _conv2d, _setup, _backward)
define("conv2d_dw", _conv2d_dw, _setup_dw, _backward_dw)


# Packed weights, for networks that only generate. PyTorch rearranges a weight each time that it convolves with it on a
# CPU. For one image and small feature maps, that takes as long as the convolution.

_PACK = ("_reorder_convolution_weight", "_reorder_convolution_transpose_weight")


def packed(
    weight: Tensor, batch: int, size: tuple[int, int], stride: int = 1, padding: int = 0, transposed: bool = False
) -> Tensor:  # fmt: skip
    """`weight` in the order in which `conv2d` reads it for x [batch,I,*size].

    Other x work as well, but the weight is then rearranged again. Results are equal up to rounding, because sums may be
    computed in another order. A packed weight has no derivative. Returns `weight` itself where packing is not possible.
    """
    pack = getattr(torch.ops.mkldnn, _PACK[transposed], None) if torch.backends.mkldnn.is_available() else None
    if pack is None or weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return weight
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    channels = weight.shape[0 if transposed else 1]
    found: Tensor = pack(weight, padding=[padding] * 2, stride=[stride] * 2, input_size=[batch, channels, *size])
    return found


def _convolve_packed(x: Tensor, weight: Tensor, stride: int, padding: int, transposed: bool) -> Tensor:
    """Convolve with a packed weight. Raises RuntimeError if a derivative would be needed."""
    if x.requires_grad and torch.is_grad_enabled():  # PyTorch would silently return none
        raise RuntimeError("a packed weight has no derivative: use the weight itself, or torch.no_grad()")
    rest: Any = ([stride] * 2, [1, 1], 1, "none", [], "")  # dilation, groups, and no operation afterwards
    if transposed:
        y: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, None, [padding] * 2, [0, 0], *rest)
    else:
        y = torch.ops.mkldnn._convolution_pointwise(x, weight, None, [padding] * 2, *rest)
    return y
