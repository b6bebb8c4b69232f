"""Our convolutions are PyTorch's, in value and in every derivative."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from ops.conv2d import conv2d, conv_transpose2d

CASES = [(1, 1, 3, (5, 6)), (2, 1, 4, (6, 4)), (2, 1, 4, (7, 5)), (2, 0, 3, (6, 7)), (1, 0, 1, (4, 4))]
cases = pytest.mark.parametrize("stride, padding, kernel, size", CASES)


class Calls(TorchDispatchMode):
    """Notes which operators run."""

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
def test_a_picture_s_gradient_does_not_pay_for_the_weights(op):
    """As in R1, which differentiates by the picture while the weights learn too."""
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
def test_it_is_registered_as_it_should_be(transposed):
    opcheck(torch.ops.stylegan.conv2d, (randn(2, 3, 5, 5), randn(3, 3, 3, 3), 1, 1, transposed, [0, 0]))
    opcheck(torch.ops.stylegan.conv2d_dw, (randn(2, 3, 5, 5), randn(2, 3, 5, 5), [3, 3], 1, 1))
