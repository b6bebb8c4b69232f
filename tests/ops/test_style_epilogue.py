"""The fused epilogue equals its separate steps, with first and second derivatives."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from ops.autograd import compute_dtype
from ops.style_epilogue import SLOPES, noise_maps, style_epilogue


def naive(x, bias, noise, strength, style, activation="lrelu", instance_norm=True):
    if noise is not None and strength is not None:
        x = x + noise * strength.view(1, -1, 1, 1)
    x = x + bias.view(1, -1, 1, 1)
    x = {"lrelu": lambda v: F.leaky_relu(v, 0.2), "relu": F.relu, "linear": lambda v: v}[activation](x)
    if instance_norm:
        x = x - x.mean((2, 3), keepdim=True)
        x = x / (x.square().mean((2, 3), keepdim=True) + 1e-8).sqrt()
    if style is not None:
        c = x.shape[1]
        x = x * (style[:, :c].view(-1, c, 1, 1) + 1) + style[:, c:].view(-1, c, 1, 1)
    return x


def inputs(noise_maps: int = 2, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 3, 4, 6), (3,), (noise_maps, 1, 4, 6), (3,), (2, 6)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(
    "with_noise, with_style, norm", list(itertools.product([0, 1, 2], [False, True], [False, True]))
)
@pytest.mark.parametrize("activation", ["lrelu", "relu", "linear"])
def test_it_equals_its_steps(impl, with_noise, with_style, norm, activation):
    x, bias, noise, strength, style = inputs(max(with_noise, 1))
    args = (x, bias, noise if with_noise else None, strength if with_noise else None, style if with_style else None)
    leaves = [a for a in args if a is not None]
    ours, theirs = style_epilogue(*args, activation, norm, impl=impl), naive(*args, activation, norm)
    torch.testing.assert_close(ours, theirs)
    seed = torch.randn_like(ours)
    torch.testing.assert_close(*[torch.autograd.grad((y * seed).sum(), leaves) for y in (ours, theirs)])


def test_second_derivatives(impl):
    args = inputs()
    assert gradcheck(partial(style_epilogue, impl=impl), args)
    assert gradgradcheck(partial(style_epilogue, impl=impl), args)


def adain(x, style, impl="auto"):
    return style_epilogue(x, style=style, activation="linear", impl=impl)


def test_adain_without_style_is_instance_norm():
    x = torch.randn(2, 3, 8, 4)
    torch.testing.assert_close(adain(x, None), F.instance_norm(x, eps=1e-8))
    torch.testing.assert_close(adain(x, torch.zeros(2, 6)), F.instance_norm(x, eps=1e-8))


def test_adain_gives_the_style_as_statistics():
    style = torch.randn(2, 6)
    y = adain(torch.randn(2, 3, 16, 16) * 5 + 7, style)
    torch.testing.assert_close(y.mean((2, 3)), style[:, 3:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y.std((2, 3), correction=0), (style[:, :3] + 1).abs(), rtol=1e-4, atol=1e-4)


def test_statistics_are_accurate_with_a_large_mean(impl):
    x = torch.randn(1, 4, 16, 16)
    torch.testing.assert_close(adain(x + 1000, None, impl), adain(x, None, impl), rtol=1e-3, atol=1e-3)


def test_a_constant_map_stays_finite(impl):
    y = adain(torch.full((1, 2, 4, 4), 3.0, requires_grad=True), torch.ones(1, 4), impl)
    y.sum().backward()
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("norm", [False, True])
def test_bfloat16_is_close_and_keeps_its_dtype_and_layout(impl, norm):
    x, bias, noise, strength, style = (t.detach() for t in inputs(dtype=torch.float32))
    x = x.to(memory_format=torch.channels_last)
    half = style_epilogue(x.bfloat16(), bias, noise, strength, style, "lrelu", norm, impl=impl)
    assert half.dtype == torch.bfloat16
    assert half.is_contiguous(memory_format=torch.channels_last)
    expected = style_epilogue(x, bias, noise, strength, style, "lrelu", norm)
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


@given(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 3, 16, 32, 40, 64, 150]), st.integers(1, 20), st.integers(1, 40)),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.sampled_from(["contiguous", "channels_last", "strided", "transposed"]),
    st.sampled_from(sorted(SLOPES)), st.booleans(), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kernel_is_no_worse_than_torch(
    kernels, no_worse_than_torch, arranged, shape, dtype, layout, activation, norm, given, seed
):
    n, c, h, w = shape
    if norm and h * w < 4 and dtype != torch.float64:
        return  # the deviation of so few numbers may be nothing but rounding
    torch.manual_seed(seed)
    small = [torch.randn(size) for size in ([c], [min(n, 1 + seed % 2) or 1, 1, h, w], [c], [n, 2 * c])]
    args = [value if wanted else None for value, wanted in zip(small, given)]
    if args[1] is None or args[2] is None or (n and args[1].shape[0] not in (1, n)):
        args[1] = args[2] = None

    def run(x, *args, impl):
        return style_epilogue(x, *args, activation, norm, impl=impl)

    x = arranged(list(shape), dtype, layout, seed)
    assert run(x, *args, impl="cpu").dtype == dtype
    no_worse_than_torch(partial(run, impl="cpu"), partial(run, impl="ref"), [x, *args])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_registration(kernels, layout):
    x, *small = (t.detach().float().requires_grad_() for t in inputs())
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    torch.library.opcheck(torch.ops.stylegan.style_epilogue.default, (x, *small, 0, 0.2, True, 1e-8))
    y, mean, rstd = torch.ops.stylegan.style_epilogue(x, *small, 0, 0.2, True, 1e-8)
    grad = (torch.randn_like(y).requires_grad_(), x, *small, mean.detach(), rstd.detach(), 0, 0.2, True)
    torch.library.opcheck(
        torch.ops.stylegan.style_epilogue_grad.default, grad, test_utils=("test_schema", "test_faketensor")
    )


def test_it_compiles(impl, compiles):
    compiles(partial(style_epilogue, impl=impl), [t.detach().float() for t in inputs()])


def test_autocast_does_not_change_it(impl):
    args = [t.detach().float() for t in inputs()]
    with torch.autocast("cpu", torch.bfloat16):
        y = style_epilogue(*args, impl=impl)
    torch.testing.assert_close(y, style_epilogue(*args, impl=impl))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 9, 7), (2, 40, 4, 4), (1, 3, 70, 66), (2, 3, 0, 4), (0, 3, 4, 4)], ids=str)
def test_places_stand_for_the_maps_that_are_made_of_them(impl, arranged, layout, dtype, shape):
    x = arranged(list(shape), dtype, layout, 0).requires_grad_()
    n, c = shape[:2]
    wide = compute_dtype(x)
    bias, strength, style = (torch.randn(size, dtype=wide, requires_grad=True) for size in ([c], [c], [n, 2 * c]))
    places = torch.randint(-(2**63), 2**63 - 1, (n, 2))
    maps = noise_maps(places, x, 7, impl=impl)
    assert maps.shape == (n, 1, *shape[2:])
    seed = torch.randn(shape).to(dtype)
    found = []
    for noise in (places, maps):
        y = style_epilogue(x, bias, noise, strength, style, stream=7, impl=impl)
        found.append([y, *torch.autograd.grad(y, [x, bias, strength, style], seed)])
    for ours, theirs in zip(*found):
        assert torch.equal(ours, theirs)


def test_second_derivatives_with_places(impl):
    x, bias, _, strength, style = inputs()
    places = torch.tensor([[5, 0], [5, 1]])

    def run(x, bias, strength, style):
        return style_epilogue(x, bias, places, strength, style, stream=2, impl=impl)

    assert gradgradcheck(run, (x, bias, strength, style))


def test_errors_name_the_argument():
    x, c = torch.zeros(2, 3, 4, 4), torch.zeros(3)
    wrong = [
        ("x must", x[0], {}), ("x must", x.long(), {}), ("activation must", x, {"activation": "swish"}),
        ("bias must", x, {"bias": c[:2]}), ("bias must be on", x, {"bias": c.to("meta")}),
        ("noise must", x, {"noise": torch.zeros(3, 1, 4, 4)}), ("strength must", x, {"strength": c[None]}),
        ("style must", x, {"style": torch.zeros(2, 3)}),
        ("places must", x, {"noise": torch.zeros(3, 2, dtype=torch.long)}),
        ("stream must", x, {"noise": torch.zeros(2, 2, dtype=torch.long), "stream": -1}),
        ("noise must be on", x, {"noise": torch.zeros(2, 2, dtype=torch.long, device="meta")}),
        ("impl must", x, {"impl": "gpu"}),
    ]  # fmt: skip
    for message, value, options in wrong:
        with pytest.raises(ValueError, match=message):
            style_epilogue(value, **options)
