"""Ops with a derivative registered by `define` behave as those that PyTorch itself registers."""

from __future__ import annotations

import pytest
import torch

from ops.autograd import define, library


def _setup(ctx, inputs, output):
    x, y, ctx.power = inputs
    ctx.save_for_backward(x, y)


def _define(name, calls):
    """x ** power * y, whose derivative consists of the same op."""

    def backward(ctx, g):
        x, y = ctx.saved_tensors
        calls.append(list(ctx.needs_input_grad))
        op = getattr(torch.ops.stylegan, name)
        dy = None if y is None else g * op(x, None, ctx.power)
        dx = g * ctx.power * (op(x, y, ctx.power - 1) if ctx.power else torch.zeros_like(x))
        return dx, dy, None

    library.define(f"{name}(Tensor x, Tensor? y, int power) -> Tensor")
    library.impl(name, lambda x, y, power: x**power * (1 if y is None else y), "CompositeExplicitAutograd")
    define(name, lambda x, y, power: torch.empty_like(x), _setup, backward)
    return getattr(torch.ops.stylegan, name)


CALLS: list[list[bool]] = []


@pytest.fixture(scope="module")
def power():
    return _define("power_for_tests", CALLS)


@pytest.fixture(scope="module")
def power_by_pytorch():
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(torch._C, "_AutoDispatchBelowAutograd")
        return _define("power_for_tests_by_pytorch", [])


@pytest.mark.parametrize("registered", ["power", "power_by_pytorch"])
def test_derivatives_of_any_order(registered, request):
    op = request.getfixturevalue(registered)
    x, y = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: op(x, y, 3), (x, y))
    assert torch.autograd.gradgradcheck(lambda x, y: op(x, y, 3), (x, y))
    (first,) = torch.autograd.grad(op(x, y, 4).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    torch.testing.assert_close(third, 24 * x * y)


def test_nothing_is_saved_if_no_derivative_is_needed(power):
    x = torch.rand(3, requires_grad=True)
    with torch.no_grad():
        assert not power(x, None, 2).requires_grad
    assert not power(x.detach(), None, 2).requires_grad
    assert power(x, None, 2).grad_fn is not None


def test_backward_knows_which_inputs_need_a_gradient(power):
    x, y = torch.rand(3, requires_grad=True), torch.rand(3)
    CALLS.clear()
    power(x, y, 2).sum().backward()
    assert CALLS == [[True, False, False]]


def test_the_registration(power):
    torch.library.opcheck(
        power.default, (torch.rand(3, requires_grad=True), None, 2), test_utils="test_autograd_registration"
    )
