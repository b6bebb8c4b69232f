"""MS-SSIM of pairs: 1 for twins, less the less alike they are, and the value of torchmetrics where that can tell."""

from __future__ import annotations

import pytest
import torch

from torch_utils.errors import UserError
from training.metrics.image_stats import mean_and_error, ms_ssim, pair_similarity


def noisy(image: torch.Tensor, strength: float) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + strength * noise).clamp(0, 255).to(torch.uint8)


@pytest.fixture(params=[(16, 16), (64, 96)])
def image(request: pytest.FixtureRequest) -> torch.Tensor:
    height, width = request.param
    wave = torch.sin(torch.arange(height)[:, None] / 3) + torch.cos(torch.arange(width) / 5)
    return (wave * 50 + 120).to(torch.uint8).expand(2, 3, height, width)


def test_twins_are_at_one_and_noise_takes_them_apart(image):
    torch.testing.assert_close(ms_ssim(image, image), torch.ones(2, dtype=torch.float64))
    values = [ms_ssim(image, noisy(image, strength)).mean() for strength in (5, 30, 90)]
    assert 1 > values[0] > values[1] > values[2] > 0


def test_pairs_lie_side_by_side(image):
    four = torch.cat([image[:1], image[:1], image[:1], noisy(image[:1], 50)])
    found = pair_similarity(four)[:, 0]
    assert found[0] == found[1] == 1 and found[2] == found[3] < 0.95
    mean, error = mean_and_error(found[::2])
    assert mean == pytest.approx(float(found[0] + found[2]) / 2) and error > 0


def test_small_pictures_are_refused():
    with pytest.raises(UserError, match="at least 16 pixels, not 8x8"):
        ms_ssim(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_torchmetrics_agrees():
    image = pytest.importorskip("torchmetrics.functional.image")
    a = torch.randint(0, 256, (1, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    a = a.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)
    b = noisy(a, 40)
    theirs = image.multiscale_structural_similarity_index_measure(
        a.double(), b.double(), data_range=255.0, kernel_size=11, sigma=1.5
    )
    assert float(ms_ssim(a, b)[0]) == pytest.approx(float(theirs), rel=1e-3)
