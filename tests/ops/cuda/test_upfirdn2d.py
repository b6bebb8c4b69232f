"""upfirdn2d's CUDA kernels, emulated, against the reference."""

from __future__ import annotations

import itertools

import pytest
import torch

from ops import upfirdn2d

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def check(emulated, shape, f, up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0), dtype=torch.float32,
          layout=torch.contiguous_format, flip=False, gain=1.0, offset=0):  # fmt: skip
    torch.manual_seed(sum(shape))
    n, c, h, w = shape
    last = layout == torch.channels_last
    # NaNs before and after, which must not be read, not even for a tap that is 0.
    flat = torch.randn(n * c * h * w + 32, dtype=torch.float64).to(dtype)
    flat[: 16 + offset] = flat[16 + offset + n * c * h * w :] = torch.nan
    x = flat[16 + offset : 16 + offset + n * c * h * w]
    x = x.view(n, h, w, c).permute(0, 3, 1, 2) if last else x.view(shape)
    plain = (list(up), list(down), list(pad))
    if min(upfirdn2d._out_size(x, f, *plain)) < 1:
        return
    got = emulated("upfirdn2d", x, f, *plain, flip, gain)
    wanted = upfirdn2d.upfirdn2d_ref(x.double(), None if f is None else f.double(), *plain, flip, gain)
    assert got.shape == wanted.shape and got.dtype == dtype
    assert got.numel() == 0 or got.is_contiguous(
        memory_format=layout if h * w > 1 and c > 1 else torch.contiguous_format
    )
    # Long separable filters need two passes, and 16-bit numbers are rounded in between.
    passes = 2 if f is not None and f.ndim == 1 else 1
    scale = 1.0 if wanted.numel() == 0 else max(1.0, float(wanted.abs().max()))
    tolerance = TOLERANCE[dtype] * passes
    torch.testing.assert_close(got.double(), wanted.double(), rtol=tolerance, atol=tolerance * scale)


def taps(*size):
    """Different numbers, so that exchanged taps are detected."""
    return torch.arange(1, 1 + torch.Size(size).numel(), dtype=torch.float32).sqrt().view(size) / 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
def test_the_filters_of_stylegan(emulated, dtype, layout, up, down):
    shapes = [(2, 3, 4, 4), (1, 8, 5, 7), (2, 16, 8, 8), (1, 2, 33, 35), (1, 5, 1, 9), (3, 24, 16, 2)]
    pads = itertools.cycle([(1, 1, 1, 1), (2, 1, 2, 1), (1, 2, 1, 2), (2, 2, 2, 2), (0, 3, 3, 1), (4, 5, -1, 6)])
    for shape, k in itertools.product(shapes, (3, 4)):
        for _ in range(2 if dtype == torch.float32 else 1):
            pad = next(pads)
            check(
                emulated, shape, taps(k), (up, up), (down, down), pad, dtype, layout, flip=sum(pad) % 2 == 0, gain=1.7
            )
        check(emulated, shape, taps(k, k), (up, up), (down, down), (2, 1, 2, 3), dtype, layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_any_filter_and_factors(emulated, dtype, layout):
    cases = [
        (None, (1, 1), (1, 1), (0, 0, 0, 0)), (None, (2, 3), (1, 2), (1, -1, 2, 0)),
        (taps(1), (2, 1), (1, 1), (0, 1, 0, 0)), (taps(5), (1, 1), (1, 1), (2, 2, 2, 2)),
        (taps(12), (2, 2), (1, 1), (6, 5, 6, 5)), (taps(8), (1, 1), (2, 2), (3, 3, 3, 3)),
        (taps(2, 5), (3, 2), (2, 3), (4, -2, 3, 3)), (taps(6, 1), (1, 4), (1, 3), (0, 0, 5, 7)),
        (taps(3, 3), (2, 2), (2, 2), (9, 9, 9, 9)), (taps(4), (1, 2), (2, 1), (1, 2, 3, 0)),
        (taps(7), (1, 2), (3, 1), (-1, 9, -2, 11)),
    ]  # fmt: skip
    for shape, flip in itertools.product([(2, 3, 6, 5), (1, 8, 7, 9), (1, 1, 1, 1), (0, 2, 6, 6)], (False, True)):
        for f, up, down, pad in cases:
            check(emulated, shape, f, up, down, pad, dtype, layout, flip, gain=0.8)


def test_unaligned_and_many_blocks(emulated):
    check(emulated, (1, 8, 9, 6), taps(4), pad=(2, 1, 2, 1), layout=torch.channels_last, offset=1)
    for layout in LAYOUTS:
        check(emulated, (2, 8, 70, 130), taps(3), pad=(1, 1, 1, 1), layout=layout)
        check(emulated, (2, 8, 40, 70), taps(4), up=(2, 2), pad=(2, 1, 2, 1), layout=layout, dtype=torch.bfloat16)


def test_a_filter_of_another_dtype_and_layout(emulated):
    f = taps(4, 8)[:, ::2].t().bfloat16()
    check(emulated, (1, 2, 8, 8), f, pad=(2, 1, 2, 1))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("up, down, k", list(itertools.product((1, 2), (1, 2), (3, 4, 5))))
def test_an_infinity_affects_only_outputs_that_use_it(emulated, layout, up, down, k):
    x = torch.zeros(1, 4, 8, 8).contiguous(memory_format=layout)
    x[:, :, 3, 4] = torch.inf
    plain = ([up, up], [down, down], [2, 1, 2, 1])
    got = emulated("upfirdn2d", x, torch.ones(k), *plain, False, 1.0)
    expected = upfirdn2d.upfirdn2d_ref(x.isinf().double(), torch.ones(k).double(), *plain, False, 1.0)
    assert torch.equal(got.isfinite(), expected == 0)
    assert not got.isnan().any()
