"""The layers, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from stylegan.networks.config import Stage
from stylegan.networks.layers import EqualConv2d, EqualLinear, faded, minibatch_stddev, pixel_norm


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 4, 6)])
def test_pixel_norm_gives_unit_mean_square(shape):
    y = pixel_norm(torch.randn(shape) * 100)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(3, *shape[2:]))
    assert pixel_norm(torch.zeros(shape)).abs().max() == 0


def by_hand(x: torch.Tensor, group: int, features: int) -> torch.Tensor:
    """Each sample's extra maps, from the definition: members of a group lie N / group apart."""
    n, c = x.shape[:2]
    stride = n // group
    maps = []
    for i in range(n):
        members = x[i % stride :: stride]
        spread = (members.var(dim=0, unbiased=False) + 1e-8).sqrt()
        maps.append(torch.stack([part.mean() for part in spread.split(c // features)]))
    return torch.stack(maps)[:, :, None, None].expand(-1, -1, *x.shape[2:])


@pytest.mark.parametrize("n, group, features", [(8, 4, 1), (4, 4, 1), (8, 2, 2), (3, 4, 1), (1, 4, 1), (6, 3, 4)])
def test_minibatch_stddev_follows_its_definition(n, group, features):
    x = torch.randn(n, 4, 4, 6)
    y = minibatch_stddev(x, group, features)
    assert torch.equal(y[:, :4], x)
    torch.testing.assert_close(y[:, 4:], by_hand(x, min(group, n), features))


def test_minibatch_stddev_sees_a_generator_that_repeats_itself():
    x = torch.randn(1, 4, 4, 4).expand(4, -1, -1, -1)
    assert minibatch_stddev(x)[:, 4:].max() < 1e-3


def test_minibatch_stddev_computes_in_float32():
    x = (torch.randn(4, 4, 4, 4) * 0.01 + 10).bfloat16()
    y = minibatch_stddev(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y[:, 4:].float(), by_hand(x.float(), 4, 1), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("lr_mul", [1.0, 0.01])
def test_a_dense_layer_keeps_the_scale_whatever_its_learning_rate(lr_mul):
    torch.manual_seed(0)
    layer = EqualLinear(400, 300, gain=1.0, lr_mul=lr_mul)
    x = torch.randn(64, 400)
    assert 0.9 < layer(x).std().item() < 1.1
    torch.testing.assert_close(layer.weight.std().item(), 1 / lr_mul, rtol=0.05, atol=0)
    expected = x @ layer.weight.T * lr_mul / 20
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_is_scaled_by_its_fan_in():
    layer = EqualConv2d(6, 5, 3)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, 4, 6)
    expected = F.conv2d(x, layer.weight * math.sqrt(2 / 54), layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("n, size", [(6, 3), (9, 3), (7, 1), (10, 2)])
def test_a_batch_that_the_group_does_not_divide_takes_the_next_smaller_one(n, size):
    x = torch.randn(n, 4, 4, 6)
    torch.testing.assert_close(minibatch_stddev(x, 4)[:, 4:], by_hand(x, size, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.77])
def test_a_weight_in_a_tensor_fades_as_the_number_does(dtype, alpha):
    old, new = torch.randn(2, 3, 5, 8, 8, dtype=torch.float32).to(dtype)
    found = []
    for stage in (Stage(8, alpha), Stage(8, 0.9, weight=torch.tensor(alpha))):
        leaves = [t.clone().requires_grad_() for t in (old, new)]
        y = faded(*leaves, stage)
        found.append([y, *torch.autograd.grad(y, leaves, torch.ones_like(y))])
    for ours, theirs in zip(*found):
        assert ours.dtype == dtype  # and 1 - alpha may be rounded differently
        torch.testing.assert_close(ours, theirs, rtol=2**-8 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
