"""Which implementation of an op runs, and in which layout its kernels answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ops import BuildError, build, mode

IMPLEMENTATIONS = ("auto", "ref", "cpu", "cuda")

# Every op is defined here, in Python, so that it can be traced and differentiated whether its kernels are compiled or
# not; the compiled libraries only add the kernels.
library = torch.library.Library("stylegan", "DEF")


def use_kernel(impl: str, x: Tensor) -> bool:
    """Should an op run its compiled kernel on x, or the reference?

    "auto" takes the kernel where it can be had, and on meta tensors; "cpu" and "cuda" insist on it. Raises ValueError
    for a name that is no implementation or not one for x's device, and BuildError if a kernel that was insisted on
    cannot be had.
    """
    if impl == "ref":
        return False
    device = x.device.type
    if impl == "auto":
        if device == "meta":  # nothing is computed there: the op tells shapes, be there a kernel or not
            return mode() != "ref"
        return device in ("cpu", "cuda") and build.available(device)
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl={impl!r} is none of {', '.join(IMPLEMENTATIONS)}")
    if impl != device:
        raise ValueError(f"impl={impl!r} was asked for, but x is on {device}")
    if mode() == "ref":
        raise BuildError(f"impl={impl!r} was asked for, but STYLEGAN_OPS=ref forbids it")
    if not build.available(device):
        raise BuildError(f"impl={impl!r} was asked for: {build.why_not(device)}")
    return True


def dense_like(x: Tensor) -> Tensor:
    """An empty tensor in the layout in which kernels answer for x: its own if that is dense, else contiguous.

    Dense is what is contiguous or channels_last; `dense` in csrc/tensors.h is the same rule.
    """
    if x.is_contiguous() or not (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return torch.empty_like(x, memory_format=torch.channels_last)


def compute_dtype(x: Tensor) -> torch.dtype:
    """What kernels compute in: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


# The derivative of a function of tensors through its formula, for orders that no kernel is worth writing for


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


# Derivatives of the ops, as `torch.library.register_autograd` registers them, at less cost for each call


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
