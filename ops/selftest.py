"""Tests and timings of the fused ops on this machine, for doctor.py and benchmarks/ops.py."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.autograd import compute_dtype
from ops.bias_act import bias_act
from ops.style_epilogue import style_epilogue
from ops.upfirdn2d import upfirdn2d

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

SHAPES = ((2, 16, 16, 16), (3, 5, 9, 7))
SLACK = 4.0  # a kernel's error may be this many times that of plain PyTorch with the same inputs,
FLOOR = 1e-5  # plus this share of the largest number
TIMED_SHAPE = (16, 64, 64, 64)


# The cases


@dataclass(frozen=True)
class Case:
    """One use of an op.

    tensors: makes the differentiable arguments from x [N,C,H,W], x first. run: calls the op with them, in the given
    implementation. linear: its derivative does not read x again. constants: indices of tensors for which training needs
    no gradient.
    """

    name: str
    tensors: Callable[[Tensor], list[Tensor]]
    run: Callable[[list[Tensor], str], Tensor]
    linear: bool = False
    constants: frozenset[int] = frozenset()


def features(shape: tuple[int, ...], dtype: torch.dtype, layout: str, device: torch.device) -> Tensor:
    """Random feature maps [N,C,H,W]."""
    return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=LAYOUTS[layout])


def _per_channel(x: Tensor) -> Tensor:
    """A parameter [C], float32 even for feature maps of 16 bits."""
    return torch.randn(x.shape[1], dtype=compute_dtype(x), device=x.device)


def _epilogue_tensors(x: Tensor) -> list[Tensor]:
    """x, bias, noise, strength and style."""
    noise = torch.randn_like(x[:, :1], dtype=compute_dtype(x))
    style = torch.randn(x.shape[0], 2 * x.shape[1], dtype=compute_dtype(x), device=x.device)
    return [x, _per_channel(x), noise, _per_channel(x), style]


def _resampling(name: str, taps: list[float], up: int, down: int, padding: list[int]) -> Case:
    """upfirdn2d with a separable filter of sum 1, and the gain that upsampling needs."""

    @functools.cache  # because copying it to a GPU takes longer than using it
    def f(device: torch.device) -> Tensor:
        return torch.tensor(taps, device=device) / sum(taps)

    def run(tensors: list[Tensor], impl: str) -> Tensor:
        x = tensors[0]
        return upfirdn2d(x, f(x.device), up, down, padding, gain=up**2, impl=impl)

    return Case(name, lambda x: [x], run, linear=True)


def _noise_of_places(tensors: list[Tensor], impl: str) -> Tensor:
    x, strength = tensors
    places = torch.full((len(x), 2), 2**40 + 5, device=x.device)
    return style_epilogue(x, None, places, strength, None, "linear", instance_norm=False, stream=3, impl=impl)


CASES = (  # each op as the networks use it
    Case("bias_act", lambda x: [x, _per_channel(x)],
         lambda t, impl: bias_act(t[0], t[1], "lrelu", gain=math.sqrt(2), impl=impl)),
    Case("style_epilogue", _epilogue_tensors, lambda t, impl: style_epilogue(t[0], t[1], t[2], t[3], t[4], impl=impl),
         constants=frozenset({2})),  # the noise
    Case("noise_of_places", lambda x: [x, _per_channel(x)], _noise_of_places),
    _resampling("blur121", [1, 2, 1], 1, 1, [1, 1, 1, 1]),
    _resampling("blur1331", [1, 3, 3, 1], 1, 1, [2, 1, 2, 1]),
    _resampling("up1331", [1, 3, 3, 1], 2, 1, [2, 1, 2, 1]),
    _resampling("down1331", [1, 3, 3, 1], 1, 2, [1, 1, 1, 1]),
)  # fmt: skip


# Correctness


def mistakes(case: Case, device: torch.device) -> str:
    """The differences between a kernel and its reference in all dtypes and layouts, as one line; "" if none."""
    found = []
    for name, dtype in DTYPES.items():
        for layout in LAYOUTS:
            try:
                found += [f"{name} {layout}: {wrong}" for wrong in failures(case, device, dtype, layout)]
            except RuntimeError as error:  # raised by a kernel
                found.append(f"{name} {layout}: {str(error).splitlines()[0]}")
    return "; ".join(found[:2]) + (f"; and {len(found) - 2} more" if len(found) > 2 else "")


def failures(case: Case, device: torch.device, dtype: torch.dtype, layout: str) -> list[str]:
    """A sentence for each value and each first derivative in which the kernel differs; empty if it is correct."""
    found = []
    for shape in SHAPES:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            tensors = case.tensors(features(shape, dtype, layout, device))
        exact = _outputs(case, [t.double() for t in tensors], "ref")
        plain, ours = _outputs(case, tensors, "ref"), _outputs(case, tensors, device.type)
        names = ["the value", *(f"gradient {index}" for index in range(len(tensors)))]
        for name, a, b, c in zip(names, exact, plain, ours, strict=True):
            error, allowed = _distance(c, a), SLACK * _distance(b, a) + FLOOR * a.abs().max().item()
            if not error <= allowed:  # true also if it is not a number
                found.append(f"{name} at {list(shape)} is off by {error:.1e}, where {allowed:.1e} is allowed")
    return found


def _outputs(case: Case, tensors: list[Tensor], impl: str) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = case.run(leaves, impl)
    # The same cotangent for every dtype: bfloat16 represents its numbers. Noise, as norms would cancel a smooth one.
    generator = torch.Generator().manual_seed(1)
    dy = torch.randn(y.shape, generator=generator).bfloat16().to(y.device, y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def _distance(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


# Speed


def milliseconds(case: Case, device: torch.device) -> dict[str, float]:
    """The time of forward and backward, for the kernel and for the reference."""
    tensors = case.tensors(features(TIMED_SHAPE, torch.float32, "contiguous", device))
    tiers = {"kernel": device.type, "reference": "ref"}
    both = {tier: passes(case, tensors, impl)["forward+backward"] for tier, impl in tiers.items()}
    return {tier: 1000 * seconds for tier, seconds in interleaved(both, device, seconds=0.5).items()}


def passes(case: Case, tensors: list[Tensor], impl: str) -> dict[str, Callable[[], object]]:
    """The functions to time: the op itself, and the op with all derivatives that training needs."""
    inputs = [t.detach().requires_grad_(i not in case.constants) for i, t in enumerate(tensors)]
    leaves = [t for t in inputs if t.requires_grad]
    dy = torch.randn_like(case.run(tensors, "ref"))

    def forward() -> object:
        with torch.no_grad():
            return case.run(tensors, impl)

    def both() -> object:
        return torch.autograd.grad(case.run(inputs, impl), leaves, dy)

    return {"forward": forward, "forward+backward": both}


def interleaved(
    functions: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, least: int = 3
) -> dict[str, float]:
    """The median time of each function, in seconds. They take turns, so that a slow phase of the machine affects all.

    seconds: duration of the whole measurement; but each function runs at least `least` times, plus once as a warm-up.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    rounds = -1
    while rounds < least or time.perf_counter() < end:
        for name, function in functions.items():
            _synchronise(device)
            begun = time.perf_counter()
            function()
            _synchronise(device)
            if rounds >= 0:
                times[name].append(time.perf_counter() - begun)
        rounds += 1
    return {name: statistics.median(found) for name, found in times.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
