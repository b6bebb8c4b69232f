"""Modulated convolution: published results of StyleGAN2 and 3, and equal to a convolution with a kernel per sample."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ops.conv2d_resample import conv2d_resample
from ops.modulated_conv2d import modulated_conv2d, modulated_conv2d_grouped, normalised


def stylegan2(case):
    a = case.args
    conv = partial(
        conv2d_resample, f=case.inputs.get("f"), **{k: a[k] for k in ("up", "down", "padding", "flip_weight")}
    )
    x, w, s = (case.inputs[name] for name in "xws")
    return modulated_conv2d(x, w, s, conv, a["demodulate"], case.inputs.get("noise"))


def stylegan3(case):
    x, w, s = (case.inputs[name] for name in "xws")
    w, s = normalised(w, s) if case.args["demodulate"] else (w, s)
    conv = partial(F.conv2d, padding=case.args["padding"])
    return modulated_conv2d(x, w, s, conv, case.args["demodulate"], input_gain=case.inputs.get("input_gain"))


@pytest.mark.parametrize("name, run", [("modulated_conv2d_sg2", stylegan2), ("modulated_conv2d_sg3", stylegan3)])
def test_the_published_results(impl_within, published, name, run):
    for case in published(name):
        inputs = [case.inputs[k].requires_grad_() for k in "xws"]
        case.inputs["gy"].requires_grad_()
        y = run(case)
        first = dict(zip(("dx", "dw", "ds"), torch.autograd.grad(y, inputs, case.inputs["gy"], create_graph=True)))
        ours = {"y": y, **first}
        for key in case.outputs:
            if key.startswith("dd"):  # ddx2_s: the derivative of the sum of squares of dx with respect to s
                source, wanted = key[1:].split("2_")
                squares = first[source].square().sum()
                ours[key] = torch.autograd.grad(squares, case.inputs[wanted], retain_graph=True, allow_unused=True)[0]
        case.agrees(ours)


@pytest.mark.parametrize("demodulate", [False, True])
def test_it_equals_a_kernel_per_sample(demodulate):
    x, w, s = torch.randn(3, 4, 6, 5).double(), torch.randn(7, 4, 3, 3).double(), torch.randn(3, 4).double()
    kernels = w * s[:, None, :, None, None]
    if demodulate:
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    expected = torch.cat([F.conv2d(x[i : i + 1], kernels[i], padding=1) for i in range(3)])
    torch.testing.assert_close(modulated_conv2d(x, w, s, partial(F.conv2d, padding=1), demodulate), expected)


@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize("up", [1, 2])
def test_constant_weights_equal_a_group_for_each_sample(demodulate, up):
    """With their first and second derivatives."""
    x, w, s = torch.randn(3, 4, 6, 5).double(), torch.randn(7, 4, 3, 3).double(), torch.randn(3, 4).double()
    f, noise = torch.tensor([1.0, 3, 3, 1]) / 8, torch.randn(3, 1, 6 * up, 5 * up).double()
    conv = partial(conv2d_resample, f=f, up=up, padding=1, flip_weight=up == 1)
    found = []
    for form in (modulated_conv2d, modulated_conv2d_grouped):
        inputs = [t.clone().requires_grad_() for t in (x, w, s)]
        y = form(*inputs, conv, demodulate, noise)
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append([y, *first, *second])
    torch.testing.assert_close(found[0], found[1])


def test_noise_and_input_gain_come_after_demodulation():
    x, w, s = torch.randn(2, 4, 6, 5), torch.randn(7, 4, 1, 1), torch.randn(2, 4)
    y, noise = modulated_conv2d(x, w, s), torch.randn(6, 5)
    torch.testing.assert_close(modulated_conv2d(x, w, s, noise=noise), y + noise)
    torch.testing.assert_close(modulated_conv2d(x, w, s, input_gain=torch.tensor(3.0)), y * 3)
    plain = modulated_conv2d(x, w, s, demodulate=False)
    torch.testing.assert_close(modulated_conv2d(x, w, s, demodulate=False, noise=noise), plain + noise)


def test_float16_does_not_overflow():
    x, w, s = torch.randn(2, 8, 6, 6), torch.randn(4, 8, 3, 3) * 1000, torch.randn(2, 8) * 1000
    half = modulated_conv2d(x.half(), w, s)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), modulated_conv2d(x, w, s), rtol=0.01, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_result_has_the_dtype_and_layout_of_the_features(dtype):
    x = torch.randn(2, 8, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    y = modulated_conv2d(x, torch.randn(4, 8, 3, 3), torch.randn(2, 8), noise=torch.randn(2, 1, 4, 4))
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)


def test_it_compiles(compiles):
    f = torch.tensor([1.0, 3, 3, 1]) / 8
    conv = partial(conv2d_resample, f=f, up=2, padding=1, flip_weight=False)
    compiles(
        partial(modulated_conv2d, conv=conv), [torch.randn(2, 4, 4, 4), torch.randn(3, 4, 3, 3), torch.randn(2, 4)]
    )


def test_autocast():
    x, w, s = torch.randn(2, 4, 4, 4), torch.randn(3, 4, 3, 3), torch.randn(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = modulated_conv2d(x, w, s)
    torch.testing.assert_close(y.float(), modulated_conv2d(x, w, s), rtol=0.05, atol=0.05)


def test_errors_name_the_argument():
    x, w, s = torch.zeros(2, 4, 8, 8), torch.zeros(3, 4, 3, 3), torch.zeros(2, 4)
    wrong = [("x must", (x[0], w, s)), ("weight must", (x, w[:, :2], s)), ("styles must", (x, w, s[:1]))]
    for message, args in wrong:
        with pytest.raises(ValueError, match=message):
            modulated_conv2d(*args)
