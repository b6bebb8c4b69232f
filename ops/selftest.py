"""Every op as the networks use it, in one table: what is tried by doctor.py and timed by benchmarks/ops.py."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
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


# How long functions take beside each other, and how many bytes an op must move at the least


LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def interleaved(
    functions: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, least: int = 3
) -> dict[str, float]:
    """The median time of each function, in seconds. They take turns, so that a slow spell of the machine hits all.

    seconds: how long to go on, in all; but each runs `least` times, after one that does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    rounds = -1
    while rounds < least or time.perf_counter() < end:
        for name, function in functions.items():
            _settle(device)
            begun = time.perf_counter()
            function()
            _settle(device)
            if rounds >= 0:
                times[name].append(time.perf_counter() - begun)
        rounds += 1
    return {name: statistics.median(found) for name, found in times.items()}


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def features(shape: tuple[int, ...], dtype: torch.dtype, layout: str, device: torch.device) -> Tensor:
    """Random feature maps [N,C,H,W]."""
    return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=LAYOUTS[layout])


def passes(case: Case, tensors: list[Tensor], impl: str) -> dict[str, Callable[[], object]]:
    """What there is to time: the op alone, and the op with all the derivatives that training takes."""
    inputs = [t.detach().requires_grad_(i not in case.constants) for i, t in enumerate(tensors)]
    leaves = [t for t in inputs if t.requires_grad]
    dy = torch.randn_like(case.run(tensors, "ref"))

    def forward() -> object:
        with torch.no_grad():
            return case.run(tensors, impl)

    def both() -> object:
        return torch.autograd.grad(case.run(inputs, impl), leaves, dy)

    return {"forward": forward, "forward+backward": both}


def least_bytes(case: Case, tensors: list[Tensor]) -> dict[str, int]:
    """That must be read and written if nothing is touched twice; keys as of `passes`.

    Backwards, the cotangent is read and a gradient written for each input, or a constant read again; x itself is read
    unless the op is linear.
    """
    with torch.no_grad():
        result = size(case.run([t.to("meta") for t in tensors], "ref"))
    inputs = sum(map(size, tensors))
    forward = inputs + result
    return {
        "forward": forward,
        "forward+backward": forward + result + inputs + (0 if case.linear else size(tensors[0])),
    }


def size(x: Tensor) -> int:
    """In bytes."""
    return x.numel() * x.element_size()


# Does an op's kernel on this machine compute what its reference in plain PyTorch does, and how much sooner?


SHAPES = ((2, 16, 16, 16), (3, 5, 9, 7))
SLACK = 4.0  # a kernel may err so many times as much as plain PyTorch does with the same inputs
FLOOR = 1e-5  # or by so much of the largest number
TIMED_SHAPE = (16, 64, 64, 64)


def mistakes(case: Case, device: torch.device) -> str:
    """What a kernel computes that its reference does not, over number formats and layouts; "" if nothing."""
    found = []
    for name, dtype in DTYPES.items():
        for layout in LAYOUTS:
            try:
                found += [f"{name} {layout}: {wrong}" for wrong in failures(case, device, dtype, layout)]
            except RuntimeError as error:  # what a kernel raises
                found.append(f"{name} {layout}: {str(error).splitlines()[0]}")
    return "; ".join(found[:2]) + (f"; and {len(found) - 2} more" if len(found) > 2 else "")


def milliseconds(case: Case, device: torch.device) -> dict[str, float]:
    """Forward and backward, of the kernel and of the reference."""
    tensors = case.tensors(features(TIMED_SHAPE, torch.float32, "contiguous", device))
    tiers = {"kernel": device.type, "reference": "ref"}
    both = {tier: passes(case, tensors, impl)["forward+backward"] for tier, impl in tiers.items()}
    return {tier: 1000 * seconds for tier, seconds in interleaved(both, device, seconds=0.5).items()}


def failures(case: Case, device: torch.device, dtype: torch.dtype, layout: str) -> list[str]:
    """What differs, in words, in the value and the first derivatives. Empty if the kernel is right."""
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
            if not error <= allowed:  # nor if it is not a number
                found.append(f"{name} at {list(shape)} is off by {error:.1e}, where {allowed:.1e} is allowed")
    return found


def _outputs(case: Case, tensors: list[Tensor], impl: str) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = case.run(leaves, impl)
    # The same cotangent whatever the dtype: its numbers fit the smallest. Not smooth, as norms would cancel it.
    generator = torch.Generator().manual_seed(1)
    dy = torch.randn(y.shape, generator=generator).bfloat16().to(y.device, y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def _distance(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()
