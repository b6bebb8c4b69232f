"""The self-test of the ops detects mistakes, and every kernel passes it, also with large tensors."""

from __future__ import annotations

import pytest
import torch

from ops.selftest import CASES, DTYPES, LAYOUTS, Case, failures, features, interleaved, passes

CPU = torch.device("cpu")
MEMORY = 16 << 20  # bytes; larger results bypass the cache
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_functions_take_turns():
    order = []
    found = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, seconds=0, least=2)
    assert order == ["a", "b"] * 3 and set(found) == {"a", "b"}


@every_case
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_case_can_be_run_and_timed(case, dtype, layout):
    tensors = case.tensors(features((2, 4, 8, 8), DTYPES[dtype], layout, CPU))
    runs = passes(case, tensors, "ref")
    assert runs["forward"]().ndim == 4
    assert len(runs["forward+backward"]()) == len(tensors) - len(case.constants)


@every_case
def test_the_kernels_are_correct(case):
    for dtype in DTYPES.values():
        for layout in LAYOUTS:
            assert failures(case, CPU, dtype, layout) == []


@pytest.mark.parametrize("mistake", [0.999, float("nan")])
def test_mistakes_in_a_gradient_are_detected(mistake):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, dy):
            return dy * 2 * mistake

    case = Case("double", lambda x: [x], lambda t, impl: t[0] * 2 if impl == "ref" else Wrong.apply(t[0]))
    found = failures(case, CPU, torch.float32, "contiguous")
    assert len(found) == 2 and all(line.startswith("gradient 0 at ") for line in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@every_case
def test_large_results_are_the_same(case, layout, dtype):
    """With an odd width, so that rows begin anywhere in a cache line."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 20, 165, 167, generator=generator).to(dtype).contiguous(memory_format=layout)
    torch.manual_seed(1)
    rest = case.tensors(one)[1:]
    with torch.no_grad():
        small = case.run([one, *rest], "cpu")
        count = MEMORY // (small.numel() * small.element_size()) + 1
        many = one.expand(count, -1, -1, -1).contiguous(memory_format=layout)
        # Each sample has its own style and noise.
        large = case.run([many, *(t.expand(count, *t.shape[1:]) if t.ndim > 1 else t for t in rest)], "cpu")
    assert count > 1 and all(torch.equal(row[None], small) for row in large)
