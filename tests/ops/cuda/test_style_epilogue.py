"""style_epilogue's CUDA kernels, emulated, against the reference and its derivatives."""

from __future__ import annotations

import itertools

import pytest
import torch

from ops.style_epilogue import EPS, noise_maps, style_epilogue_grad_ref, style_epilogue_ref

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# Single pixels, parts of a vector, of a warp and of a block; maps in one block, and maps in several.
SHAPES = [
    (0, 2, 4, 4), (1, 1, 1, 1), (2, 3, 1, 1), (3, 5, 1, 3), (2, 17, 2, 2), (2, 8, 4, 4), (3, 33, 4, 4), (2, 7, 5, 5),
    (1, 40, 8, 8), (2, 3, 9, 15), (1, 5, 16, 16), (2, 2, 17, 31), (1, 9, 32, 32), (1, 4, 33, 40), (2, 2, 64, 64),
    (1, 1, 91, 91), (1, 3, 129, 131),
]  # fmt: skip


def inputs(shape, dtype, layout, maps, offset=0):
    n, c, h, w = shape
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    drawn = torch.randn(2, n * c * h * w + offset, dtype=torch.float64)[:, offset:].to(dtype).clone()
    if offset:  # not a multiple of 16 bytes
        drawn = torch.cat([drawn.new_zeros(2, offset), drawn], dim=1)[:, offset:]
    if layout == torch.channels_last:
        x, dy = (t.view(n, h, w, c).permute(0, 3, 1, 2) for t in drawn)
    else:
        x, dy = (t.view(shape) for t in drawn)
    small = [torch.randn(size, dtype=wide) for size in ((c,), (maps, 1, h, w), (c,), (n, 2 * c))]
    return x, dy, small


def close(got, wanted, tolerance, scale=1.0):
    if wanted.numel():
        scale = max(scale, float(wanted.abs().max()))
    torch.testing.assert_close(got.double(), wanted.double(), rtol=tolerance, atol=tolerance * scale)


def check(emulated, shape, dtype, layout, maps=None, slope=0.2, norm=True, leave_out=(), offset=0, mean=0.0):
    torch.manual_seed(sum(shape))
    x, dy, small = inputs(shape, dtype, layout, shape[0] if maps is None else maps, offset)
    x += mean
    small = [None if i in leave_out else t for i, t in enumerate(small)]
    exact = [None if t is None else t.double() for t in small]
    if 1 in leave_out or 2 in leave_out:
        exact[1] = exact[2] = None
    tolerance = TOLERANCE[dtype]

    y, means, rstd = emulated("style_epilogue", x, *small, 0, slope, norm, EPS)
    assert y.dtype == dtype and (y.numel() == 0 or y.is_contiguous(memory_format=layout))
    close(y, style_epilogue_ref(x.double(), *exact, slope, norm), tolerance)

    got = emulated("style_epilogue_grad", dy, x, *small, means, rstd, 0, slope, norm)
    wanted = style_epilogue_grad_ref(slope, norm, dy.double(), x.double(), *exact)
    assert got[0].dtype == dtype and (y.numel() == 0 or got[0].is_contiguous(memory_format=layout))
    # Normalising a map of equal pixels to deviation 1 is ill-conditioned, and so is its gradient.
    steep = float(rstd.max()) if rstd.numel() else 1.0
    close(got[0], wanted[0], tolerance, scale=max(1.0, steep))
    sums = 1e-10 if dtype == torch.float64 else 3e-5
    for g, w in zip(got[1:], wanted[1:]):
        assert g.shape == w.shape and g.dtype == means.dtype
        close(g, w, sums, scale=max(1.0, steep) * max(1.0, float(dy.abs().sum()) / shape[1]) if w.numel() else 1.0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_shapes_layouts_and_dtypes(emulated, shape, dtype, layout):
    if shape[2] * shape[3] == 1 and dtype != torch.float64:
        check(emulated, shape, dtype, layout, norm=False)
    else:
        check(emulated, shape, dtype, layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 6, 6), (2, 9, 32, 32), (1, 2, 129, 130)], ids=str)
def test_unaligned(emulated, shape, layout):
    check(emulated, shape, torch.float32, layout, offset=1)
    check(emulated, shape, torch.bfloat16, layout, offset=3)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    "layout, shape",
    [*((layout, (2, 5, 6, 6)) for layout in LAYOUTS), (LAYOUTS[0], (1, 1, 129, 130)), (LAYOUTS[1], (2, 3, 20, 17))],
    ids=str,
)
def test_missing_arguments(emulated, layout, shape, norm):
    some = [(), (0,), (1, 3), (0, 1, 2, 3)]
    every = [parts for r in range(5) for parts in itertools.combinations(range(4), r)]
    for parts in some if shape[2] > 100 else every:
        slope = (1.0, 0.0, 0.2)[len(parts) % 3]
        check(emulated, shape, torch.float32, layout, norm=norm, leave_out=parts, slope=slope)
    check(emulated, shape, torch.float32, layout, norm=norm, maps=1)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_statistics_are_accurate_with_a_large_mean(emulated, layout):
    for shape in [(2, 5, 16, 16), (1, 2, 129, 130)]:
        x = torch.randn(shape).contiguous(memory_format=layout)
        x += 1000
        y, _, _ = emulated("style_epilogue", x, None, None, None, None, 0, 0.2, True, EPS)
        wanted = style_epilogue_ref(x.double(), None, None, None, None, 0.2, True)
        torch.testing.assert_close(y, wanted.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    "shape", [(2, 3, 1, 3), (3, 33, 4, 4), (2, 7, 5, 5), (1, 5, 16, 16), (1, 9, 32, 40), (1, 2, 129, 131)], ids=str
)
def test_noise_of_places_is_that_of_the_maps_made_of_them(emulated, shape, layout, dtype, norm):
    torch.manual_seed(sum(shape))
    x, dy, (bias, _, strength, style) = inputs(shape, dtype, layout, 1)
    places = torch.randint(-(2**63), 2**63 - 1, (shape[0], 2))
    # The maps come from the CPU's kernel, so this also shows that both make the same numbers to the last bit.
    maps = noise_maps(places, x, 5).to(bias.dtype)
    results = []
    for noise in (places, maps):
        y, mean, rstd = emulated("style_epilogue", x, bias, noise, strength, style, 5, 0.2, norm, EPS)
        back = emulated("style_epilogue_grad", dy, x, bias, noise, strength, style, mean, rstd, 5, 0.2, norm)
        results.append([y, mean, rstd, *back])
    for ours, theirs in zip(*results):
        assert torch.equal(ours, theirs)
