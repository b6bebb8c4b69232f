"""How an op is defined: the choice between kernel and reference, the layout of its results, and its derivatives.

Every op is defined here and in its own file, in Python, so that it can be traced and differentiated whether or not its
kernels are compiled. The compiled libraries only add the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ops import BuildError, build, mode

IMPLEMENTATIONS = ("auto", "ref", "cpu", "cuda")

library = torch.library.Library("stylegan", "DEF")


# The choice of the implementation


def use_kernel(impl: str, x: Tensor) -> bool:
    """Whether an op must run its compiled kernel on x, rather than its reference.

    "auto" selects the kernel where it is available, and on meta tensors; "cpu" and "cuda" require it. Raises ValueError
    for an unknown name or one that does not fit x's device, and BuildError if a required kernel is not available.
    """
    if impl == "ref":
        return False
    device = x.device.type
    if impl == "auto":
        if device == "meta":  # only shapes are computed, and the op's definition is enough for that
            return mode() != "ref"
        return device in ("cpu", "cuda") and build.available(device)
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl != device:
        raise ValueError(f"impl={impl!r} needs x on that device, but x is on {device}")
    if mode() == "ref":
        raise BuildError(f"impl={impl!r} needs the kernels, but STYLEGAN_OPS=ref disables them")
    if not build.available(device):
        raise BuildError(f"impl={impl!r} needs the kernels: {build.why_not(device)}")
    return True


# Layouts and number formats


def dense_like(x: Tensor) -> Tensor:
    """An empty tensor in the layout of a kernel's result for x: that of x if it is dense, else contiguous.

    Contiguous and channels_last tensors are dense; `dense` in csrc/tensors.h applies the same rule.
    """
    if x.is_contiguous() or not (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return torch.empty_like(x, memory_format=torch.channels_last)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The format in which kernels compute on x: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


# Derivatives


def define(
    name: str, fake: Callable[..., Any], setup: Callable[..., None], backward: Callable[..., Any]
) -> None:  # fmt: skip
    """Register the shapes and the derivative of the op `name`, as `torch.library` does, at a lower cost per call.

    fake returns empty results. setup(ctx, inputs, output) saves what backward(ctx, *gradients of the results) needs;
    backward returns a gradient or None for each input. The op's arguments must not have defaults.
    """
    torch.library.register_fake(f"stylegan::{name}", fake, lib=library)
    below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
    if below_autograd is None:  # it does not belong to PyTorch's public interface
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


def derive(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor | None], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients of the inputs (None for inputs that are None), given the gradients of the function's results.

    For orders of derivatives that are too rare for a kernel: `function` is written in plain PyTorch, and the gradients
    can be differentiated again.
    """
    with torch.enable_grad():
        leaves: list[Any] = [None if t is None else _leaf(t) for t in inputs]
        pairs = [(out, g) for out, g in zip(function(*leaves), grads, strict=True) if out.requires_grad]
        wanted = [t for t in leaves if t is not None]
        outputs, cotangents = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, wanted, cotangents, create_graph=True, allow_unused=True))
    return [None if t is None else next(found) for t in inputs]


def _leaf(t: Tensor) -> Tensor:
    """t as the start of a new graph, or as a part of the graph to which it already belongs."""
    return t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
