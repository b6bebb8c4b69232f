"""LPIPS is what its paper's equation says, on pictures of any size and number of channels."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from stylegan.features import lpips
from stylegan.projection.distance import Distance

NET = "lpips-alex"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {name: torch.randn(shape) * 0.05 for name, shape in lpips.shapes(NET).items()}
    return {name: value.abs() if name.startswith("lin") else value for name, value in found.items()}


@pytest.fixture
def distance(weights) -> Distance:
    return Distance(NET, partial(lpips.embed, NET, weights))


def pictures(count: int = 2, size: int = 64, channels: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def written_out(weights: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equation 1 of the paper, layer by layer, in the order in which it is written there."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((image - shift[:, None, None]) / scale[:, None, None] for image in (a, b))
    total = torch.zeros(len(a))
    for i, (stride, padding, pool) in enumerate([(4, 2, 0), (1, 2, 3), (1, 1, 3), (1, 1, 0), (1, 1, 0)]):
        if pool:
            x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
        w, bias = weights[f"conv{i}.weight"], weights[f"conv{i}.bias"]
        x, y = (F.relu(F.conv2d(v, w, bias, stride=stride, padding=padding)) for v in (x, y))
        difference = F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)
        total = total + F.conv2d(difference.square(), weights[f"lin{i}"][None, :, None, None]).mean(dim=(1, 2, 3))
    return total


def test_it_is_the_papers_equation(weights, distance):
    a, b = pictures(), pictures(seed=2)
    torch.testing.assert_close(distance(a, b), written_out(weights, a, b), rtol=1e-4, atol=1e-6)
    assert (distance(a, b) > 0).all() and torch.equal(distance(a, b), distance(b, a)) and (distance(a, a) == 0).all()


def test_vgg16_has_the_published_layers():
    shapes = lpips.shapes("lpips-vgg16")
    assert sum(torch.Size(s).numel() for s in shapes.values()) == 14_714_688 + 1472  # torchvision's count; the heads
    assert [shapes[f"lin{i}"] for i in range(5)] == [(64,), (128,), (256,), (512,), (512,)]
    assert sum(torch.Size(s).numel() for s in lpips.shapes(NET).values()) == 2_469_696 + 1152


def test_grey_is_rgb_of_equal_channels_and_alpha_is_left_out(distance):
    a, b = pictures(channels=1), pictures(channels=1, seed=2)
    torch.testing.assert_close(distance(a, b), distance(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)))
    c, d = pictures(channels=4), pictures(channels=4, seed=2)
    torch.testing.assert_close(distance(c, d), distance(c[:, :3], d[:, :3]))


def test_small_pictures_are_enlarged_and_huge_ones_reduced(distance):
    a, b = pictures(size=24), pictures(size=24, seed=2)  # 3 x 24 is the first multiple that reaches 64
    larger = partial(F.interpolate, size=(72, 72), mode="bilinear", align_corners=False)
    torch.testing.assert_close(distance(a, b), distance(larger(a), larger(b)))
    c, d = pictures(1, 512), pictures(1, 512, seed=2)
    torch.testing.assert_close(distance(c, d), distance(F.avg_pool2d(c, 2), F.avg_pool2d(d, 2)))


def test_gradients_are_finite_even_where_features_vanish(weights):
    dark = {name: -value.abs() if "bias" in name else value * 0 for name, value in weights.items()}
    x = pictures().requires_grad_()
    Distance(NET, partial(lpips.embed, NET, dark))(x, pictures(seed=2)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("length", [1.0, 0.4])
def test_the_derivative_of_unit_is_that_of_its_parts(length):
    x = pictures(2, 8, 5).requires_grad_()
    weight = pictures(2, 8, 5, seed=3)
    ours, theirs = lpips.unit(x, length), x / x.norm(dim=1, keepdim=True) * length
    torch.testing.assert_close(ours, theirs)
    (a,), (b,) = (torch.autograd.grad((u * weight).sum(), x) for u in (ours, theirs))
    torch.testing.assert_close(a, b)
    half = x.detach().bfloat16().requires_grad_()
    (lpips.unit(half, length) * weight).sum().backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), b, rtol=0.05, atol=0.02)
