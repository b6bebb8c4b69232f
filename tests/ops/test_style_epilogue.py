"""The fused epilogue equals its steps written out one by one, with first and second derivatives."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from ops.style_epilogue import adain, style_epilogue


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
def test_it_equals_its_steps(with_noise, with_style, norm, activation):
    x, bias, noise, strength, style = inputs(max(with_noise, 1))
    args = (x, bias, noise if with_noise else None, strength if with_noise else None, style if with_style else None)
    leaves = [a for a in args if a is not None]
    ours, theirs = (f(*args, activation, norm) for f in (style_epilogue, naive))
    torch.testing.assert_close(ours, theirs)
    seed = torch.randn_like(ours)
    torch.testing.assert_close(*[torch.autograd.grad((y * seed).sum(), leaves) for y in (ours, theirs)])


def test_second_derivatives():
    args = inputs()
    assert gradcheck(style_epilogue, args)
    assert gradgradcheck(style_epilogue, args)


def test_adain_without_style_is_instance_norm():
    x = torch.randn(2, 3, 8, 4)
    torch.testing.assert_close(adain(x, None), F.instance_norm(x, eps=1e-8))
    torch.testing.assert_close(adain(x, torch.zeros(2, 6)), F.instance_norm(x, eps=1e-8))


def test_adain_gives_the_style_as_statistics():
    style = torch.randn(2, 6)
    y = adain(torch.randn(2, 3, 16, 16) * 5 + 7, style)
    torch.testing.assert_close(y.mean((2, 3)), style[:, 3:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y.std((2, 3), correction=0), (style[:, :3] + 1).abs(), rtol=1e-4, atol=1e-4)


def test_statistics_do_not_suffer_from_a_large_mean():
    x = torch.randn(1, 4, 16, 16)
    torch.testing.assert_close(adain(x + 1000, None), adain(x, None), rtol=1e-3, atol=1e-3)


def test_a_constant_map_stays_finite():
    y = adain(torch.full((1, 2, 4, 4), 3.0, requires_grad=True), torch.ones(1, 4))
    y.sum().backward()
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("norm", [False, True])
def test_bfloat16_is_close_and_keeps_its_dtype_and_layout(norm):
    x, bias, noise, strength, style = (t.detach() for t in inputs(dtype=torch.float32))
    x = x.to(memory_format=torch.channels_last)
    half = style_epilogue(x.bfloat16(), bias, noise, strength, style, "lrelu", norm)
    assert half.dtype == torch.bfloat16
    assert half.is_contiguous(memory_format=torch.channels_last)
    expected = style_epilogue(x, bias, noise, strength, style, "lrelu", norm)
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)
