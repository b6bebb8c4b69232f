"""Filters and resampling: published results, and fast forms equal to plain ones, with first and second derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from ops.resample import (
    blur,
    conv2d_downsample,
    design_lowpass_filter,
    downsample2d,
    downsample_box,
    downsampling_kernel,
    filter2d,
    setup_filter,
    upsample2d,
    upsample_conv2d,
    upsample_nearest,
    upsampling_kernel,
)

SIZES = [(4, 4), (6, 4), (8, 12)]
TAPS = [(1, 2, 1), (1, 1), (1, 3, 3, 1), (1, 2), (1, 4, 6, 4, 1), (1,)]


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def plain_up(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), w, b, padding=1)


def plain_down(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(F.conv2d(x, w, b, padding=1), 2)


def upsample(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return upsample_conv2d(x, upsampling_kernel(w)) + b[:, None, None]


def downsample(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return conv2d_downsample(x, downsampling_kernel(w)) + b[:, None, None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fast, plain", [(upsample, plain_up), (downsample, plain_down)])
def test_merged_convolutions_equal_the_two_steps_and_their_gradients(fast, plain, size):
    args = randn(2, 3, *size), randn(5, 3, 3, 3), randn(5)
    ours, theirs = fast(*args), plain(*args)
    torch.testing.assert_close(ours, theirs)
    seed = torch.randn_like(ours)
    first = [torch.autograd.grad((y * seed).sum().square(), args, create_graph=True) for y in (ours, theirs)]
    torch.testing.assert_close(*first)
    second = [torch.autograd.grad(sum(g.square().sum() for g in grads), args) for grads in first]
    torch.testing.assert_close(*second)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_box_undoes_nearest(factor):
    x = torch.randn(2, 3, 4, 6)
    up = upsample_nearest(x, factor)
    assert up.shape == (2, 3, 4 * factor, 6 * factor)
    torch.testing.assert_close(downsample_box(up, factor), x)


@pytest.mark.parametrize("taps", TAPS)
def test_blur_is_a_correlation(taps):
    x, n = torch.randn(2, 3, 6, 8, dtype=torch.float64), len(taps)
    row = torch.tensor(taps, dtype=torch.float64)
    padded = F.pad(x, ((n - 1) // 2, n // 2, (n - 1) // 2, n // 2))
    kernel = torch.outer(row, row) / row.sum() ** 2
    windows = padded.unfold(2, n, 1).unfold(3, n, 1)
    torch.testing.assert_close(blur(x, taps), torch.einsum("nchwij,ij->nchw", windows, kernel))


@pytest.mark.parametrize("taps", TAPS)
def test_blur_has_the_right_derivatives(taps):
    def run(x):
        return blur(x, taps)

    assert gradcheck(run, randn(1, 2, 5, 4))
    assert gradgradcheck(lambda x: run(x).square(), randn(1, 2, 5, 4))


@pytest.mark.parametrize("taps", TAPS)
def test_the_backward_of_blur_is_its_adjoint(taps):
    x, y = randn(2, 3, 5, 6), randn(2, 3, 5, 6)
    (back,) = torch.autograd.grad(blur(x, taps), x, y, create_graph=True)
    torch.testing.assert_close((blur(x, taps) * y).sum(), (x * back).sum())
    (again,) = torch.autograd.grad(back, y, x)  # the adjoint of the adjoint
    torch.testing.assert_close(again, blur(x, taps))


def test_blur_keeps_constants_except_at_the_border_and_without_taps_keeps_x():
    x = torch.full((1, 1, 6, 6), 3.0)
    torch.testing.assert_close(blur(x, (1, 2, 1))[..., 1:-1, 1:-1], x[..., 1:-1, 1:-1])
    assert blur(x, ()) is x


@pytest.mark.parametrize("taps", [(1, 2, 1), (1, 2)])
def test_blur_in_bfloat16_and_channels_last(taps):
    x = torch.randn(2, 8, 8, 8).to(memory_format=torch.channels_last)
    y = blur(x.bfloat16(), taps)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), blur(x.contiguous(), taps), rtol=0.02, atol=0.02)


def test_the_published_filters_and_resampling(impl, published):
    for case in published("upfirdn2d_helpers"):
        args = {k: v for k, v in case.args.items() if k not in ("fn", "filter", "f")}
        if case.args["fn"] == "setup_filter":
            case.agrees({"f": setup_filter(case.args["f"], **args)})
        else:
            run = {"filter2d": filter2d, "upsample2d": upsample2d, "downsample2d": downsample2d}[case.args["fn"]]
            case.agrees({"y": run(case.inputs["x"], case.inputs["f"], **args, impl=impl)})


def test_resampling_keeps_the_mean_and_the_position():
    x, f = torch.ones(1, 2, 12, 12), setup_filter([1, 3, 3, 1])
    for run, size in [(filter2d, 12), (upsample2d, 24), (downsample2d, 6)]:
        y = run(x, f)
        assert y.shape == (1, 2, size, size)
        torch.testing.assert_close(y[..., 3:-3, 3:-3], torch.ones_like(y[..., 3:-3, 3:-3]))


@pytest.mark.parametrize("taps, options", [([], {}), (torch.zeros(1, 1, 1), {}), ([[1.0, 2.0]], {"separable": True})])
def test_invalid_taps(taps, options):
    with pytest.raises(ValueError, match="taps"):
        setup_filter(taps, **options)


@pytest.mark.parametrize("taps", [(1, 2, 1), (1, 3, 3, 1)])
def test_blur_by_the_reference_and_by_the_kernel(impl_within, taps):
    x = torch.randn(2, 20, 9, 11).contiguous(memory_format=torch.channels_last)
    y = blur(x, taps)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, blur(x.double(), taps).float())


def test_blur_after_inference_mode_can_be_differentiated():
    x, taps = torch.randn(1, 1, 4, 4), (1, 5, 1)  # taps that no other test uses
    with torch.inference_mode():
        blur(x, taps)
    blur(x.requires_grad_(), taps).sum().backward()
    assert x.grad is not None


def test_blur_compiles(compiles):
    compiles(lambda x: blur(x, (1, 3, 3, 1)), [torch.randn(1, 2, 6, 6)])


# design_lowpass_filter


def test_the_published_lowpass_filters(published):
    for case in published("design_lowpass_filter"):
        args = {k: case.args[k] for k in ("numtaps", "cutoff", "width", "fs", "radial")}
        f = design_lowpass_filter(**args)
        assert (f is None) == case.args["none"]
        if f is not None:
            case.agrees({"f": f})


@pytest.mark.parametrize("numtaps", [11, 12])
@pytest.mark.parametrize("radial", [False, True])
def test_constants_pass_and_high_frequencies_do_not(numtaps, radial):
    f = design_lowpass_filter(numtaps, cutoff=2, width=4, fs=16, radial=radial)
    assert f is not None and f.dtype == torch.float32 and f.shape == (numtaps,) * (2 if radial else 1)
    torch.testing.assert_close(f, f.flip(list(range(f.ndim))))
    torch.testing.assert_close(f.sum(), torch.tensor(1.0))
    alternating = torch.tensor([1.0, -1]).repeat(numtaps)[:numtaps]
    assert abs(float((f * alternating).sum())) < 0.01


@pytest.mark.parametrize(
    "message, args", [("numtaps", (0, 1, 1, 4)), ("cutoff", (3, 2, 1, 4)), ("cutoff", (3, 0, 1, 4))]
)
def test_lowpass_filters_that_do_not_exist(message, args):
    with pytest.raises(ValueError, match=f"{message} must"):
        design_lowpass_filter(*args)


def test_a_radial_filter_is_a_disc_with_a_window():
    """Equal to the formula with a Bessel function."""
    position = np.hypot(*np.meshgrid(*[(np.arange(12) - 5.5) / 16] * 2))
    attenuation = scipy.signal.kaiser_atten(12, 4 / 8)
    window = np.kaiser(12, scipy.signal.kaiser_beta(attenuation))
    taps = scipy.special.j1(2 * np.pi * 2 * position) / position * np.outer(window, window)
    expected = torch.as_tensor(taps / taps.sum(), dtype=torch.float32)
    f = design_lowpass_filter(12, cutoff=2, width=4, fs=16, radial=True)
    torch.testing.assert_close(f, expected, rtol=1e-6, atol=1e-9)
