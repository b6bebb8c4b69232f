"""Which implementation of an op runs, and in which layout its kernels answer."""

from __future__ import annotations

import torch
from torch import Tensor

from ops import build
from ops.errors import BuildError
from ops.mode import mode

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
