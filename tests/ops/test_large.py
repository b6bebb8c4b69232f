"""What is too large for the cache takes another way to memory, with the same numbers in it."""

from __future__ import annotations

import pytest
import torch

from ops.selftest import CASES

MEMORY = 16 << 20  # bytes; from here on


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_large_results(case, layout, dtype):
    """Of an odd width, so that rows begin anywhere within a line of the cache."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 20, 165, 167, generator=generator).to(dtype).contiguous(memory_format=layout)
    torch.manual_seed(1)
    rest = case.tensors(one)[1:]
    with torch.no_grad():
        small = case.run([one, *rest], "cpu")
        count = MEMORY // (small.numel() * small.element_size()) + 1
        many = one.expand(count, -1, -1, -1).contiguous(memory_format=layout)
        # A style belongs to a sample, and so does its noise.
        large = case.run([many, *(t.expand(count, *t.shape[1:]) if t.ndim > 1 else t for t in rest)], "cpu")
    assert count > 1 and all(torch.equal(row[None], small) for row in large)
