"""Bias and activation in one call."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bias_act(x: Tensor, bias: Tensor | None = None, activation: str = "linear") -> Tensor:
    """activation(x + bias). x: [N,C,...]  bias: [C] in any dtype.

    "lrelu" has slope 0.2, as everywhere in the StyleGAN family. The He gain of sqrt(2) is part of the weights' scale.
    """
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([1, -1] + [1] * (x.ndim - 2))
    if activation == "lrelu":
        return F.leaky_relu(x, 0.2)
    if activation == "relu":
        return F.relu(x)
    if activation == "linear":
        return x
    raise ValueError(f"unknown activation {activation!r}; use linear, relu or lrelu")
