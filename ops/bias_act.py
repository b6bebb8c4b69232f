"""Bias, activation, gain and clamp in one pass over memory, with fused first and second derivatives.

    y = clamp(gain * activation(x + bias), -clamp, clamp)

Two more ops are enough for its derivatives. With u = x + bias, and zeros where the result was clamped:

    bias_act_grad   dx = (dy + db) * gain * activation'(u)         linear in dy, and therefore its own adjoint
    bias_act_grad2  du = (dy + db) * ddx * gain * activation''(u)  the rest of the second derivative

db [C], the cotangent of the bias's gradient, is added to dy in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.autograd import compute_dtype, define, dense_like, derive, library, use_kernel

# In the order of `Act` in csrc/activation.h. The second argument is the slope of lrelu for negative numbers.
ACTIVATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "linear": lambda x, slope: x,
    "relu": lambda x, slope: F.relu(x),
    "lrelu": F.leaky_relu,
    "tanh": lambda x, slope: torch.tanh(x),
    "sigmoid": lambda x, slope: torch.sigmoid(x),
    "elu": lambda x, slope: F.elu(x),
    "selu": lambda x, slope: F.selu(x),
    "softplus": lambda x, slope: F.softplus(x),
    "swish": lambda x, slope: F.silu(x),
}
_NAMES = tuple(ACTIVATIONS)
_PIECEWISE_LINEAR = 3  # the number of activations, from the first on, whose slope follows from the result


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    activation: str = "linear",
    *,
    dim: int = 1,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """clamp(gain * activation(x + bias), -clamp, clamp), in x's dtype. x: any shape  bias: [x.shape[dim]], any dtype.

    activation: a key of ACTIVATIONS. slope: of "lrelu" for negative numbers, 0.2 in the whole StyleGAN family. gain: 1
    by default, because the scale of our weights already contains the He gain of sqrt(2). Inputs of 16 bits are computed
    in float32 and rounded once. There are derivatives of any order.

    Raises ValueError, which names the argument, for an unknown activation, a dim that x does not have, a bias of
    another length or on another device, a negative clamp, and an impl that does not exist on x's device.
    """
    dim = _check(x, bias, activation, dim, clamp)
    if not use_kernel(impl, x):
        return bias_act_ref(x, bias, activation, dim=dim, slope=slope, gain=gain, clamp=clamp)
    bias = None if bias is None else bias.to(compute_dtype(x)).contiguous()
    y: Tensor = torch.ops.stylegan.bias_act(
        x, bias, dim, _NAMES.index(activation), slope, gain, -1.0 if clamp is None else clamp
    )
    return y


def bias_act_ref(
    x: Tensor, bias: Tensor | None, activation: str, *, dim: int, slope: float, gain: float, clamp: float | None
) -> Tensor:  # fmt: skip
    """The specification of `bias_act`, in plain PyTorch."""
    if bias is not None:
        x = x + _along(dim, bias, x)
    x = ACTIVATIONS[activation](x, slope)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _along(dim: int, bias: Tensor, x: Tensor) -> Tensor:
    """A bias [x.shape[dim]] in x's dtype, of a shape that broadcasts to x."""
    return bias.to(x.dtype).reshape([-1 if d == dim else 1 for d in range(x.ndim)])


def _check(x: Tensor, bias: Tensor | None, activation: str, dim: int, clamp: float | None) -> int:
    """Check the arguments; return dim counted from the front."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if not x.is_floating_point():
        raise ValueError(f"x must be of a floating point dtype, got {x.dtype}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp must be None or at least 0, got {clamp}")
    if bias is None:
        return 0
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must be from {-x.ndim} to {x.ndim - 1} for x {list(x.shape)}, got {dim}")
    if bias.ndim != 1 or bias.shape[0] != x.shape[dim]:
        raise ValueError(f"bias must be [{x.shape[dim]}] like dimension {dim} of x, got {list(bias.shape)}")
    if bias.device != x.device:
        raise ValueError(f"bias must be on x's device {x.device}, got {bias.device}")
    return dim % x.ndim


# The ops and their derivatives


class _Spec(NamedTuple):
    """The arguments of the ops that are not tensors, in the order of their schemas."""

    dim: int
    act: int
    slope: float
    gain: float
    clamp: float

    @property
    def piecewise_linear(self) -> bool:
        return self.act < _PIECEWISE_LINEAR


_SPEC = "int dim, int act, float slope, float gain, float clamp"
library.define(f"bias_act(Tensor x, Tensor? bias, {_SPEC}) -> Tensor")
library.define(
    f"bias_act_grad(Tensor dy, Tensor? db, Tensor seen, Tensor? bias, {_SPEC}, bool reduce) -> (Tensor, Tensor)"
)
library.define(f"bias_act_grad2(Tensor dy, Tensor? db, Tensor ddx, Tensor x, Tensor? bias, {_SPEC}) -> Tensor")


def _fake_grad(dy: Tensor, db: Tensor | None, seen: Tensor, bias: Tensor | None, dim: int, *rest: Any) -> Any:
    return dense_like(seen), dy.new_empty([dy.shape[dim] if rest[-1] else 0], dtype=compute_dtype(dy))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias, *plain = inputs
    ctx.spec = _Spec(*plain)
    # The slope is computed from the result where its sign is enough, so that x is not kept in memory.
    if ctx.spec.piecewise_linear:
        ctx.save_for_backward(output, None)
    else:
        ctx.save_for_backward(x, bias)
    ctx.wants_bias = bias is not None and ctx.needs_input_grad[1]


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    seen, bias = ctx.saved_tensors
    dx, db = torch.ops.stylegan.bias_act_grad(dy, None, seen, bias, *ctx.spec, ctx.wants_bias)
    return dx, db if ctx.wants_bias else None, *[None] * 5


def _setup_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dy, db, seen, bias, *plain, ctx.reduced = inputs
    ctx.spec = _Spec(*plain)
    ctx.save_for_backward(dy, db, seen, bias)
    ctx.wants_db = db is not None and ctx.needs_input_grad[1]


def _backward_grad(ctx: Any, ddx: Tensor, ddb: Tensor) -> tuple[Tensor | None, ...]:
    dy, db, seen, bias = ctx.saved_tensors
    g_dy, g_db = torch.ops.stylegan.bias_act_grad(
        ddx, ddb if ctx.reduced else None, seen, bias, *ctx.spec, ctx.wants_db
    )
    g_db = g_db if ctx.wants_db else None
    if ctx.spec.piecewise_linear:
        return g_dy, g_db, None, None, *[None] * 6
    if ctx.reduced:
        ddx = ddx + _along(ctx.spec.dim, ddb, ddx)
    g_x = torch.ops.stylegan.bias_act_grad2(dy, db, ddx, seen, bias, *ctx.spec)
    others = [d for d in range(g_x.ndim) if d != ctx.spec.dim]
    return g_dy, g_db, g_x, None if bias is None else g_x.sum(others, dtype=compute_dtype(g_x)), *[None] * 6


def _setup_grad2(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.spec = _Spec(*inputs[5:])
    ctx.save_for_backward(*inputs[:5])


def _backward_grad2(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    """Third and higher orders, which training does not need."""
    return *derive(partial(bias_act_grad2_ref, ctx.spec), ctx.saved_tensors, [g]), *[None] * 5


def bias_act_grad2_ref(
    spec: _Spec, dy: Tensor, db: Tensor | None, ddx: Tensor, x: Tensor, bias: Tensor | None
) -> list[Tensor]:  # fmt: skip
    """(dy + db) * ddx * gain * activation''(x + bias), as the derivative of a derivative."""
    u = x if bias is None else x + _along(spec.dim, bias, x)
    dy = dy if db is None else dy + _along(spec.dim, db, dy)
    clamp = None if spec.clamp < 0 else spec.clamp
    y = bias_act_ref(u, None, _NAMES[spec.act], dim=spec.dim, slope=spec.slope, gain=spec.gain, clamp=clamp)
    (dx,) = torch.autograd.grad(y, u, torch.ones_like(y), create_graph=True)
    (curvature,) = torch.autograd.grad(dx.sum(), u, create_graph=True)
    return [dy * ddx * curvature]


define("bias_act", lambda x, *rest: dense_like(x), _setup, _backward)
define("bias_act_grad", _fake_grad, _setup_grad, _backward_grad)
define("bias_act_grad2", lambda dy, db, ddx, x, *rest: dense_like(x), _setup_grad2, _backward_grad2)
