"""Every op as the networks use it, in one table: what is tried by doctor.py and timed by benchmarks/ops.py."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.bias_act import bias_act
from ops.style_epilogue import style_epilogue
from ops.upfirdn2d import upfirdn2d


@dataclass(frozen=True)
class Case:
    """One use of an op.

    tensors: from x [N,C,H,W], what can be differentiated, x first. run: the op on those, by the implementation named.
    linear: its derivative need not look at x again. constants: which of the tensors training does not differentiate.
    """

    name: str
    tensors: Callable[[Tensor], list[Tensor]]
    run: Callable[[list[Tensor], str], Tensor]
    linear: bool = False
    constants: frozenset[int] = frozenset()


def _per_channel(x: Tensor) -> Tensor:
    return torch.randn(x.shape[1], dtype=_parameter_dtype(x), device=x.device)


def _epilogue_tensors(x: Tensor) -> list[Tensor]:
    """x, bias, noise, strength and style."""
    noise = torch.randn_like(x[:, :1], dtype=_parameter_dtype(x))
    style = torch.randn(x.shape[0], 2 * x.shape[1], dtype=_parameter_dtype(x), device=x.device)
    return [x, _per_channel(x), noise, _per_channel(x), style]


def _parameter_dtype(x: Tensor) -> torch.dtype:
    """Parameters stay float32 where feature maps are smaller."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _resampling(name: str, taps: list[float], up: int, down: int, padding: list[int]) -> Case:
    """upfirdn2d with a separable filter of sum 1, and the gain that upsampling needs."""

    @functools.cache  # as to copy it to a GPU takes longer than to use it
    def f(device: torch.device) -> Tensor:
        return torch.tensor(taps, device=device) / sum(taps)

    def run(tensors: list[Tensor], impl: str) -> Tensor:
        x = tensors[0]
        return upfirdn2d(x, f(x.device), up, down, padding, gain=up**2, impl=impl)

    return Case(name, lambda x: [x], run, linear=True)


CASES = (
    Case(
        "bias_act",
        lambda x: [x, _per_channel(x)],
        lambda t, impl: bias_act(t[0], t[1], "lrelu", gain=math.sqrt(2), impl=impl),
    ),
    Case(
        "style_epilogue",
        _epilogue_tensors,
        lambda t, impl: style_epilogue(t[0], t[1], t[2], t[3], t[4], impl=impl),
        constants=frozenset({2}),  # the noise
    ),
    _resampling("blur121", [1, 2, 1], 1, 1, [1, 1, 1, 1]),
    _resampling("blur1331", [1, 3, 3, 1], 1, 1, [2, 1, 2, 1]),
    _resampling("up1331", [1, 3, 3, 1], 2, 1, [2, 1, 2, 1]),
    _resampling("down1331", [1, 3, 3, 1], 1, 2, [1, 1, 1, 1]),
)
