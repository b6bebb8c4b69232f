"""The derivative of a function of tensors through its formula, for orders that no kernel is worth writing for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def derive(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor | None], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients of the inputs (None for those that are None), given the gradients of the function's results.

    `function` is written in plain PyTorch. What comes back can be differentiated again.
    """
    with torch.enable_grad():
        leaves: list[Any] = [None if t is None else _leaf(t) for t in inputs]
        pairs = [(out, g) for out, g in zip(function(*leaves), grads, strict=True) if out.requires_grad]
        wanted = [t for t in leaves if t is not None]
        outputs, cotangents = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, wanted, cotangents, create_graph=True, allow_unused=True))
    return [None if t is None else next(found) for t in inputs]


def _leaf(t: Tensor) -> Tensor:
    """t as the start of a graph of its own, or as part of the one it is in."""
    return t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
