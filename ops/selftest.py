"""Does an op's kernel on this machine compute what its reference in plain PyTorch does, and how much sooner?"""

from __future__ import annotations

import torch
from torch import Tensor

from ops.catalogue import Case
from ops.measure import DTYPES, LAYOUTS, features, interleaved, passes

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
