"""Bias, activation, gain and clamp: published results, and kernels equal to the reference, with all derivatives."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from ops.bias_act import ACTIVATIONS, bias_act

# Default gains of the published function; ours is 1.
PUBLISHED_GAINS = dict.fromkeys(("relu", "lrelu", "swish"), 2**0.5)


@pytest.mark.parametrize(
    "activation, function",
    [("linear", lambda x: x), ("relu", lambda x: x.clamp(min=0)), ("lrelu", lambda x: torch.maximum(x, 0.2 * x))],
)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_it_is_the_activation_of_the_sum(impl, activation, function, shape):
    x, bias = torch.randn(shape), torch.randn(3)
    expected = function(x + bias.reshape(1, 3, *[1] * (len(shape) - 2)))
    torch.testing.assert_close(bias_act(x, bias, activation, impl=impl), expected)
    torch.testing.assert_close(bias_act(x, None, activation, impl=impl), function(x))


def test_the_published_results(impl, published):
    for case in published("bias_act"):
        x, gy, b = (t if t is None else t.requires_grad_() for t in map(case.inputs.get, ("x", "gy", "b")))
        act, clamp = case.args["act"], case.args.get("clamp")
        gain = case.args.get("gain", PUBLISHED_GAINS.get(act, 1.0))
        slope = case.args.get("alpha", 0.2)
        y = bias_act(x, b, act, dim=case.args["dim"], slope=slope, gain=gain, clamp=clamp, impl=impl)
        ours = {"y": y}
        first = torch.autograd.grad(y, [x] if b is None else [x, b], gy, create_graph=True)
        ours.update(zip(("dx", "db"), first))
        again = partial(torch.autograd.grad, retain_graph=True, allow_unused=True)
        ours["d_gy"], ours["d_x"] = again((first[0] * case.inputs["v"]).sum(), [gy, x])
        if b is not None:
            second = again((first[1] * case.inputs["vb"]).sum(), [gy, x, b])
            ours.update(zip(("db_d_gy", "db_d_x", "db_d_b"), second))
        case.agrees(ours)


@given(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 3, 16, 40]), st.integers(1, 12), st.integers(1, 24)),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.sampled_from(["contiguous", "channels_last", "strided", "transposed"]),
    st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 3), st.booleans(), st.sampled_from([1.0, -0.7, 3.0]),
    st.sampled_from([None, 0.5]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kernel_is_no_worse_than_torch(
    kernels, no_worse_than_torch, arranged, shape, dtype, layout, activation, dim, with_bias, gain, clamp, seed
):
    if dtype in (torch.bfloat16, torch.float16):
        clamp = None  # a value that is rounded to the limit may count as clamped or not
    x = arranged(list(shape), dtype, layout, seed)
    bias = torch.randn(shape[dim], generator=torch.Generator().manual_seed(seed)) if with_bias else None

    def run(x, bias, impl):
        return bias_act(x, bias, activation, dim=dim, gain=gain, clamp=clamp, impl=impl)

    assert run(x, bias, "cpu").dtype == dtype
    no_worse_than_torch(partial(run, impl="cpu"), partial(run, impl="ref"), [x, bias])


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_second_derivatives(impl, activation):
    run = partial(bias_act, activation=activation, gain=1.3, clamp=0.8, impl=impl)
    args = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((2, 3, 2, 3), (3,))]
    assert gradcheck(run, args)
    assert gradgradcheck(run, args)


def test_the_result_has_the_dtype_and_layout_of_the_features(impl):
    x = torch.randn(2, 3, 4, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = bias_act(x, torch.randn(3), "lrelu", impl=impl)
    assert y.dtype == torch.bfloat16 and y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("activation", [1, 2, 8])
def test_the_registration(kernels, activation):
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    bias, db = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    dy, ddx = torch.randn_like(x).requires_grad_(), torch.randn_like(x).requires_grad_()
    spec = (1, activation, 0.2, 1.3, -1.0)
    torch.library.opcheck(torch.ops.stylegan.bias_act.default, (x, bias, *spec))
    torch.library.opcheck(torch.ops.stylegan.bias_act_grad.default, (dy, db, x, bias, *spec, True))
    if activation > 2:
        torch.library.opcheck(torch.ops.stylegan.bias_act_grad2.default, (dy, db, ddx, x, bias, *spec))


def test_it_compiles(impl, compiles):
    compiles(partial(bias_act, activation="swish", impl=impl), [torch.randn(2, 3, 4, 5), torch.randn(3)])


def test_autocast_does_not_change_it(impl):
    x, bias = torch.randn(2, 3, 4, 5), torch.randn(3)
    with torch.autocast("cpu", torch.bfloat16):
        y = bias_act(x, bias, "lrelu", impl=impl)
    torch.testing.assert_close(y, bias_act(x, bias, "lrelu", impl=impl))


def test_errors_name_the_argument():
    x, bias = torch.zeros(2, 3), torch.zeros(3)
    wrong = [
        ("activation must", {"activation": "mish"}), ("clamp must", {"clamp": -1.0}), ("dim must", {"dim": 2}),
        ("bias must", {"bias": bias[:2]}), ("bias must", {"bias": bias[None]}), ("impl must", {"impl": "gpu"}),
        ("bias must be on", {"bias": bias.to("meta")}), ("x must", {"x": x.long()}),
    ]  # fmt: skip
    for message, options in wrong:
        with pytest.raises(ValueError, match=message):
            bias_act(**{"x": x, "bias": bias, **options})
