"""Our convolutions equal PyTorch's, with all derivatives, also with packed weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from ops.conv2d import conv2d, packed
from ops.resample import packed_for_upsampling, upsample_conv2d, upsampling_kernel

conv_transpose2d = partial(conv2d, transposed=True)
CASES = [(1, 1, 3, (5, 6)), (2, 1, 4, (6, 4)), (2, 1, 4, (7, 5)), (2, 0, 3, (6, 7)), (1, 0, 1, (4, 4))]
cases = pytest.mark.parametrize("stride, padding, kernel, size", CASES)


class Calls(TorchDispatchMode):
    """Records which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@cases
def test_values_are_those_of_pytorch(stride, padding, kernel, size):
    x, w, wt = randn(2, 3, *size), randn(4, 3, kernel, kernel), randn(3, 4, kernel, kernel)
    assert torch.equal(conv2d(x, w, stride, padding), F.conv2d(x, w, stride=stride, padding=padding))
    ours, theirs = conv_transpose2d(x, wt, stride, padding), F.conv_transpose2d(x, wt, stride=stride, padding=padding)
    assert torch.equal(ours, theirs)


@cases
def test_first_and_second_derivatives(stride, padding, kernel, size):
    for op, shape in ((conv2d, (2, 3, kernel, kernel)), (conv_transpose2d, (3, 2, kernel, kernel))):
        inputs = randn(1, 3, *size), randn(*shape)
        assert gradcheck(lambda x, w, op=op: op(x, w, stride, padding), inputs)
        assert gradgradcheck(lambda x, w, op=op: op(x, w, stride, padding), inputs)


def test_third_derivatives_exist():
    x, w = randn(1, 2, 4, 4), randn(2, 2, 3, 3)
    out = conv2d(x, w, 1, 1).pow(4).sum()
    for _ in range(3):
        (g,) = torch.autograd.grad(out, x, create_graph=True)
        out = g.square().sum()
    (ours,) = torch.autograd.grad(out, w)
    out = F.conv2d(x, w, padding=1).pow(4).sum()
    for _ in range(3):
        (g,) = torch.autograd.grad(out, x, create_graph=True)
        out = g.square().sum()
    torch.testing.assert_close(ours, torch.autograd.grad(out, w)[0])


@pytest.mark.parametrize("op", [conv2d, conv_transpose2d])
def test_the_gradient_of_an_image_does_not_compute_that_of_the_weights(op):
    """As in R1, which needs the gradient of the image, while the weights have one too."""
    x, w = randn(1, 4, 8, 8), randn(4, 4, 3, 3)
    y = op(x, w * 1.0, 1, 1)
    with Calls() as calls:
        torch.autograd.grad(y.sum(), x, create_graph=True)
    assert "stylegan.conv2d.default" in calls.names
    assert "stylegan.conv2d_dw.default" not in calls.names


def test_the_weights_gradient_of_a_leaf():
    x, w = randn(1, 2, 4, 4), randn(2, 2, 3, 3)
    (ours,) = torch.autograd.grad(conv2d(x, w, 1, 1).square().sum(), w)
    (theirs,) = torch.autograd.grad(F.conv2d(x, w, padding=1).square().sum(), w)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_registration(transposed):
    opcheck(torch.ops.stylegan.conv2d, (randn(2, 3, 5, 5), randn(3, 3, 3, 3), 1, 1, transposed, [0, 0]))
    opcheck(torch.ops.stylegan.conv2d_dw, (randn(2, 3, 5, 5), randn(2, 3, 5, 5), [3, 3], 1, 1))


# Packed weights


def channels_last(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs", "size"), [(32, 16, (8, 8)), (5, 3, (4, 7)), (64, 64, (16, 16))])
def test_a_packed_weight_gives_the_same_up_to_rounding(inputs, outputs, size, batch, dtype):
    x, weight = channels_last(batch, inputs, *size, dtype=dtype), channels_last(outputs, inputs, 3, 3, dtype=dtype)
    kernel = upsampling_kernel(weight.float()).to(dtype, memory_format=torch.channels_last)
    with torch.no_grad():
        y = conv2d(x, packed(weight, batch, size, padding=1), padding=1)
        up = upsample_conv2d(x, packed_for_upsampling(kernel, batch, size))
        for ours, plain in ((y, conv2d(x, weight, padding=1)), (up, upsample_conv2d(x, kernel))):
            rounding = 1e-5 if dtype == torch.float32 else 2**-7
            assert (ours - plain).abs().max() <= rounding * plain.abs().max()
    assert y.is_contiguous(memory_format=torch.channels_last) and up.is_contiguous(memory_format=torch.channels_last)


def test_a_weight_packed_for_another_size_also_works():
    weight = channels_last(16, 16, 3, 3)
    kept = packed(weight, 1, (8, 8), padding=1)
    for shape in [(4, 16, 8, 8), (1, 16, 32, 32), (2, 16, 3, 5)]:
        x = channels_last(*shape)
        with torch.no_grad():
            torch.testing.assert_close(conv2d(x, kept, padding=1), conv2d(x, weight, padding=1), rtol=1e-5, atol=1e-4)


def test_weights_that_cannot_be_packed_stay_as_they_are(monkeypatch):
    double = torch.randn(4, 4, 3, 3, dtype=torch.float64)
    assert packed(double, 1, (8, 8), padding=1) is double
    meta = torch.randn(4, 4, 3, 3, device="meta")
    assert packed(meta, 1, (8, 8), padding=1) is meta
    single = torch.randn(4, 4, 3, 3)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert packed(single, 1, (8, 8), padding=1) is single


@pytest.mark.parametrize("convolve", [conv2d, conv_transpose2d])
def test_a_derivative_of_a_packed_weight_is_an_error(convolve):
    x, weight = channels_last(1, 8, 8, 8).requires_grad_(), channels_last(8, 8, 3, 3)
    kept = packed(weight, 1, (8, 8), padding=1, transposed=convolve is conv_transpose2d)
    with pytest.raises(RuntimeError, match="no derivative"):
        convolve(x, kept, padding=1)


def test_results_do_not_depend_on_the_threads_that_packed():
    x, weight, threads = channels_last(1, 64, 16, 16), channels_last(64, 64, 3, 3), torch.get_num_threads()
    kept = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            kept.append(packed(weight, 1, (16, 16), padding=1))
        torch.set_num_threads(1)
        assert torch.equal(conv2d(x, kept[0], padding=1), conv2d(x, kept[1], padding=1))
    finally:
        torch.set_num_threads(threads)
