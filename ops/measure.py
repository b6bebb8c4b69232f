"""How long functions take beside each other, and how many bytes an op must move at the least."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ops.catalogue import Case

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
