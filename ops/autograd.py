"""Derivatives of the ops, as `torch.library.register_autograd` registers them, at less cost for each call.

A training step calls more than three hundred ops and derivatives of ops, and other processor cores wait meanwhile.
PyTorch's own wrapper reads the op's schema for each that has a derivative, which takes longer than a small feature map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ops.dispatch import library


def differentiable(name: str, setup: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Register the derivative of the op `name`, whose arguments have no defaults.

    setup(ctx, inputs, output) keeps what backward(ctx, *gradients of the results) needs, which returns a gradient or
    None for each input.
    """
    below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
    if below_autograd is None:  # it is no public part of PyTorch
        torch.library.register_autograd(f"stylegan::{name}", backward, setup_context=setup, lib=library)
        return
    op = getattr(torch.ops.stylegan, name).default

    def forward(ctx: Any, *args: Any) -> Any:
        with below_autograd():
            result = op(*args)
        setup(ctx, args, result)
        return result

    parts = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    derivative: Any = type(f"Derivative_{name}", (torch.autograd.Function,), parts)

    def run(*args: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return derivative.apply(*args)
        with below_autograd():
            return op(*args)

    library.impl(name, run, "Autograd")
