"""Bias and activation."""

from __future__ import annotations

import pytest
import torch

from ops.bias_act import bias_act


@pytest.mark.parametrize(
    "activation, function",
    [("linear", lambda x: x), ("relu", lambda x: x.clamp(min=0)), ("lrelu", lambda x: torch.maximum(x, 0.2 * x))],
)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_it_is_the_activation_of_the_sum(activation, function, shape):
    x, bias = torch.randn(shape), torch.randn(3)
    expected = function(x + bias.reshape(1, 3, *[1] * (len(shape) - 2)))
    torch.testing.assert_close(bias_act(x, bias, activation), expected)
    torch.testing.assert_close(bias_act(x, None, activation), function(x))


def test_the_result_has_the_dtype_of_the_features():
    assert bias_act(torch.randn(2, 3, dtype=torch.bfloat16), torch.randn(3), "lrelu").dtype == torch.bfloat16


def test_unknown_activation():
    with pytest.raises(ValueError, match="swish"):
        bias_act(torch.zeros(1, 1), activation="swish")
