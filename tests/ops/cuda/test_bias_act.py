"""bias_act's CUDA kernels, emulated, against the reference and its derivatives."""

from __future__ import annotations

import pytest
import torch

from ops.bias_act import ACTIVATIONS, _Spec, bias_act_grad2_ref, bias_act_ref

NAMES = list(ACTIVATIONS)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAST = torch.channels_last
# About the width of a vector (2, 4, 8), a warp, a block of 256 threads, and a grid of 3 blocks.
SHAPES = [
    ((3, 5), 1), ((2, 8), 1), ((1, 1), 1), ((7,), 0), ((0, 3, 4, 4), 1), ((2, 3, 0, 4), 1),
    ((2, 3, 4, 4), 1), ((1, 2, 5, 7), 1), ((2, 16, 1, 1), 1), ((3, 17, 3, 3), 1), ((2, 3, 4, 5), 3), ((4, 3, 2, 2), 0),
    ((1, 1, 64, 81), 1), ((2, 2, 33, 65), 1), ((2, 40, 8, 8), 1), ((300, 6), 1), ((70, 130), 1), ((1, 9, 2, 4, 3), 1),
]  # fmt: skip
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def drawn(shape, dtype, layout=torch.contiguous_format, offset=0):
    """Random numbers between NaNs, which a kernel must neither read nor overwrite; offset 0 is aligned to 16 bytes."""
    n = torch.Size(shape).numel()
    around = torch.full([n + 128], torch.nan, dtype=dtype)
    start = 64 + (-(around.data_ptr() // around.element_size() + 64)) % (16 // around.element_size()) + offset
    x = around[start : start + n]
    x.copy_(torch.randn(n, dtype=torch.float64))
    if layout == LAST:
        b, c, h, w = shape
        return x.view(b, h, w, c).permute(0, 3, 1, 2)
    return x.view(shape)


def close(got, wanted, dtype):
    tolerance = TOLERANCE[dtype]
    scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
    torch.testing.assert_close(got.double(), wanted.double(), rtol=tolerance, atol=tolerance * scale)


def check(
    emulated, shape, dim, dtype, act, layout, offset=0, slope=0.2, gain=1.3, clamp=-1.0, with_bias=True, reduce=True
):  # fmt: skip
    torch.manual_seed(sum(shape) + dim)
    x, dy, ddx = (drawn(shape, dtype, layout, offset) for _ in range(3))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    bias, db = (drawn([shape[dim]], wide) if with_bias else None for _ in range(2))
    index, spec = NAMES.index(act), (dim, NAMES.index(act), slope, gain, clamp)

    u = x.double().requires_grad_()
    kept = {"dim": dim, "slope": slope, "gain": gain, "clamp": None if clamp < 0 else clamp}
    y = bias_act_ref(u, bias, act, **kept)
    got = emulated("bias_act", x, bias, *spec)
    assert got.dtype == dtype and got.shape == x.shape
    assert got.numel() == 0 or got.is_contiguous(memory_format=layout)
    close(got, y.detach(), dtype)

    # The exact gradient is computed at the result that the kernel itself has used.
    seen, seen_bias = (got, None) if index < 3 else (x, bias)
    column = [-1 if d == dim else 1 for d in range(len(shape))]
    g = dy.double() if db is None else dy.double() + db.double().view(column)
    (dx,) = torch.autograd.grad(y, u, g)
    got_dx, got_db = emulated("bias_act_grad", dy, db, seen, seen_bias, *spec, reduce)
    close(got_dx, dx, dtype)
    if reduce:
        sums = dx.movedim(dim, 0).reshape(shape[dim], -1).sum(1)
        scale = max(1.0, float(dx.abs().sum()) / max(1, shape[dim]))
        torch.testing.assert_close(got_db.double(), sums, rtol=1e-5, atol=1e-6 * scale)
    else:
        assert got_db.numel() == 0

    got_grad2 = emulated("bias_act_grad2", dy, db, ddx, x, bias, *spec)
    double_bias, double_db = (None if t is None else t.double() for t in (bias, db))
    expected = torch.zeros_like(u)
    if index >= 3:
        (expected,) = bias_act_grad2_ref(
            _Spec(*spec), dy.double(), double_db, ddx.double(), x.double().requires_grad_(), double_bias
        )
    close(got_grad2, expected.detach(), dtype)


@pytest.mark.parametrize("shape, dim", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_layouts_and_dtypes(emulated, shape, dim, dtype):
    layouts = [torch.contiguous_format] + [LAST] * (len(shape) == 4)
    for layout in layouts:
        for offset in (0, 1):
            check(emulated, shape, dim, dtype, "lrelu", layout, offset)
        check(emulated, shape, dim, dtype, "tanh", layout)


@pytest.mark.parametrize("act", NAMES)
@pytest.mark.parametrize("clamp", [-1.0, 0.7])
@pytest.mark.parametrize("gain", [1.0, -1.5])
def test_activations(emulated, act, clamp, gain):
    check(emulated, (2, 5, 6, 6), 1, torch.float32, act, LAST, gain=gain, clamp=clamp)
    check(emulated, (2, 5, 6, 6), 1, torch.float64, act, torch.contiguous_format, gain=gain, clamp=clamp)


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_without_bias_or_sums(emulated, layout):
    check(emulated, (2, 5, 9, 6), 1, torch.float32, "lrelu", layout, with_bias=False)
    check(emulated, (2, 5, 9, 6), 1, torch.float32, "swish", layout, with_bias=False, reduce=False)
    check(emulated, (2, 5, 9, 6), 1, torch.bfloat16, "lrelu", layout, reduce=False)


def test_a_nan_remains_a_nan(emulated):
    for act in NAMES:
        y = emulated("bias_act", torch.full((1, 4), torch.nan), None, 0, NAMES.index(act), 0.2, 1.0, 1.0)
        assert y.isnan().all(), act
