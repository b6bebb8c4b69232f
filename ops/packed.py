"""Weights in the order in which a CPU's convolutions read them, for networks that only compute.

PyTorch rearranges a weight each time that it convolves with it. For one picture and small feature maps, that takes as
long as the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
