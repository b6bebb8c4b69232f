"""Pad, upsample, filter, downsample: the definition, published results, and kernels equal to the reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from ops.upfirdn2d import upfirdn2d, upfirdn2d_ref

FILTERS = {
    "121": [1, 2, 1], "1331": [1, 3, 3, 1], "lopsided": [1, 2, 3], "even": [4, 1, 0, -2], "two": [1, 1], "one": [2],
    "long": list(range(1, 12)), "full": [[1, 2, 0], [3, -1, 2]], "product": [[1, 2, 1], [2, 4, 2]], "none": None,
}  # fmt: skip
FACTORS = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), ([1, 2], [2, 1]), ([2, 1], 1)]


def filter_of(name: str) -> torch.Tensor | None:
    return None if FILTERS[name] is None else torch.tensor(FILTERS[name], dtype=torch.float32) / 8


def by_definition(x, f, up, down, pads, flip, gain):
    """upfirdn2d as a sum over windows."""
    f = torch.ones(1, 1) if f is None else torch.outer(f, f) if f.ndim == 1 else f
    f = f.to(x) if flip else f.to(x).flip((0, 1))
    (n, c, h, w), (kh, kw) = x.shape, f.shape
    left, right, top, bottom = pads
    padded = x.new_zeros(n, c, h * up + 64, w * up + 64)
    padded[:, :, 32 : 32 + h * up : up, 32 : 32 + w * up : up] = x
    padded = padded[:, :, 32 - top : 32 + h * up + bottom, 32 - left : 32 + w * up + right]
    windows = padded.unfold(2, kh, down).unfold(3, kw, down)
    return gain * torch.einsum("nchwij,ij->nchw", windows, f)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (3, 2), (2, 4)])
def test_the_definition(impl, name, up, down):
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    for flip, pads in [(False, [12, 11, 12, 13]), (True, [13, 12, 11, 15])]:
        ours = upfirdn2d(x, filter_of(name), up, down, pads, flip, 1.7, impl=impl)
        torch.testing.assert_close(ours, by_definition(x, filter_of(name), up, down, pads, flip, 1.7))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_published_results(impl, published, memory_format):
    for case in published("upfirdn2d"):
        x, gy = (case.inputs[k].contiguous(memory_format=memory_format).requires_grad_() for k in ("x", "gy"))
        y = upfirdn2d(x, case.inputs.get("f"), **case.args, impl=impl)
        (dx,) = torch.autograd.grad(y, x, gy, create_graph=True)
        (d_gy,) = torch.autograd.grad((dx * case.inputs["v"]).sum(), gy)
        case.agrees({"y": y, "dx": dx, "d_gy": d_gy})


@given(
    st.tuples(st.integers(0, 2), st.sampled_from([1, 3, 16, 37, 70]), st.integers(1, 20), st.integers(1, 40)),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.sampled_from(["contiguous", "channels_last", "strided", "transposed"]),
    st.sampled_from(sorted(FILTERS)), st.sampled_from(FACTORS), st.lists(st.integers(-2, 5), min_size=4, max_size=4),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kernel_is_no_worse_than_torch(
    kernels, no_worse_than_torch, arranged, shape, dtype, layout, name, factors, pads, flip, seed
):
    x, f, (up, down) = arranged(list(shape), dtype, layout, seed), filter_of(name), factors
    run = partial(upfirdn2d, f=f, up=up, down=down, padding=pads, flip_filter=flip, gain=1.3)
    try:
        y = run(x, impl="ref")
    except ValueError:
        return  # the result would be empty
    if y.numel() > 100_000:
        return
    assert run(x, impl="cpu").dtype == dtype
    no_worse_than_torch(partial(run, impl="cpu"), partial(run, impl="ref"), [x])


@pytest.mark.parametrize("name", ["121", "1331"])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 64, 9, 33), (1, 150, 16, 16), (1, 16, 40, 130), (3, 5, 1, 1)])
def test_the_fast_paths(kernels, no_worse_than_torch, arranged, name, up, down, dtype, shape):
    for layout in ("contiguous", "channels_last"):
        for pads in ([1, 2, 2, 1], [2, 1, 0, 3], [-1, 4, 5, -1]):
            run = partial(upfirdn2d, f=filter_of(name), up=up, down=down, padding=pads)
            x = arranged(list(shape), dtype, layout, 0)
            if min(x.shape[2:]) * up + min(pads) > 6:
                no_worse_than_torch(partial(run, impl="cpu"), partial(run, impl="ref"), [x])


def test_derivatives(impl):
    for name, (up, down) in zip(["121", "full", "long", "none"], [(2, 1), (1, 2), (3, 2), ([1, 2], [2, 1])]):
        pads = [6, 4, 3, 6] if name == "long" else [1, 2, 2, -1]
        run = partial(upfirdn2d, f=filter_of(name), up=up, down=down, padding=pads, gain=0.7, impl=impl)
        x = torch.randn(1, 1, 4, 3, dtype=torch.float64, requires_grad=True)
        assert gradcheck(run, x)
        assert gradgradcheck(lambda x, run=run: run(x).square(), x)


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (1, 32, 8, 6)])
def test_the_layout_stays(impl, shape):
    x = torch.randn(shape)
    for up, down in [(1, 1), (2, 1), (1, 2)]:
        run = partial(upfirdn2d, f=filter_of("121"), up=up, down=down, padding=2, impl=impl)
        assert run(x).is_contiguous()
        last = run(x.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last, run(x))


def test_the_result_does_not_depend_on_the_number_of_threads(kernels):
    threads = torch.get_num_threads()
    x = torch.randn(3, 40, 50, 45)
    for layout in (torch.contiguous_format, torch.channels_last):
        for name in ("1331", "full"):
            results = []
            for count in (1, 3):
                torch.set_num_threads(count)
                results.append(upfirdn2d(x.contiguous(memory_format=layout), filter_of(name), 2, padding=2, impl="cpu"))
            torch.set_num_threads(threads)
            assert torch.equal(*results)


@pytest.mark.parametrize("channels", [2, 16])
def test_infinities_stay_where_the_filter_reaches(impl, channels):
    x = torch.zeros(1, channels, 9, 9).contiguous(memory_format=torch.channels_last)
    x[:, :, 4, 4] = torch.inf
    y = upfirdn2d(x, filter_of("121"), 2, padding=1, impl=impl)
    assert not y.isnan().any() and int(y.isinf().sum()) == 9 * channels


@pytest.mark.parametrize("name", ["121", "full", "none"])
def test_the_registration(kernels, name):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 6, 5).contiguous(memory_format=layout).requires_grad_()
        torch.library.opcheck(
            torch.ops.stylegan.upfirdn2d.default, (x, filter_of(name), [2, 1], [1, 2], [3, 3, 2, 3], False, 1.5)
        )


def test_it_compiles(impl, compiles):
    f = filter_of("1331")
    compiles(lambda x: upfirdn2d(x, f, 2, 1, [2, 1, 2, 1], gain=4, impl=impl), [torch.randn(2, 3, 6, 5)])


def test_autocast_does_not_change_it(impl):
    x = torch.randn(1, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = upfirdn2d(x, filter_of("121"), padding=1, impl=impl)
        half = upfirdn2d(x.bfloat16(), filter_of("121"), padding=1, impl=impl)
    if impl == "cpu":
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, upfirdn2d(x, filter_of("121"), padding=1, impl=impl))
    assert half.dtype == torch.bfloat16


def test_an_empty_batch(impl):
    x = torch.randn(0, 3, 4, 4, requires_grad=True)
    y = upfirdn2d(x, filter_of("1331"), 2, padding=2, impl=impl)
    assert y.shape == (0, 3, 9, 9)
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


def test_errors_name_the_argument():
    x, f = torch.zeros(1, 1, 4, 4), filter_of("121")
    wrong = [
        ("x must", x[0], f, {}), ("x must", x.long(), f, {}), ("f must", x, torch.zeros(1, 1, 1), {}),
        ("f must", x, torch.zeros(0), {}), ("f must be on", x, f.to("meta"), {}), ("up", x, f, {"up": 0}),
        ("down", x, f, {"down": [1, 2, 3]}), ("padding must", x, f, {"padding": [1, 2, 3]}),
        ("padding=.* smaller than the filter", x, f, {"padding": -1}), ("impl must", x, f, {"impl": "fast"}),
        ("impl='cuda'", x, f, {"impl": "cuda"}),
    ]  # fmt: skip
    for message, *args, options in wrong:
        with pytest.raises(ValueError, match=message):
            upfirdn2d(*args, **options)


def test_ref_runs_the_reference():
    x, f = torch.randn(1, 2, 5, 5), filter_of("121")
    assert torch.equal(upfirdn2d(x, f, padding=1, impl="ref"), upfirdn2d_ref(x, f, [1, 1], [1, 1], [1] * 4, False, 1.0))
