"""KID is the published one, and unbiased."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_utils.errors import UserError
from training.metrics.quality import kid


def test_the_published_numbers(published):
    reals, fakes = published("feat/real"), published("feat/gen")
    value, error = kid(reals[:200], fakes[:200])  # one subset is all there is
    assert value == pytest.approx(float(published("kid/full_200")), rel=1e-12) and error > 1e-6 * value
    pairs = zip(published("kid/subset_idx_gen"), published("kid/subset_idx_real"))
    values = [kid(reals[r], fakes[g])[0] for g, r in pairs]
    assert np.mean(values) == pytest.approx(float(published("kid/subsets10_size50_seed5")), rel=1e-12)


def test_halves_of_one_set_are_as_far_apart_as_chance_has_it_and_others_are_farther():
    rows = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    value, error = kid(rows[:1000], rows[1000:], largest=200)
    assert abs(value) < 5 * error
    values = [kid(rows[:1000], rows[1000:] + shift, largest=200)[0] for shift in (0.1, 0.3, 0.6)]
    assert value < values[0] < values[1] < values[2]


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("reals", "fakes", "largest"), [(120, 120, 1000), (400, 100, 1000), (200, 200, 50)])
def test_the_error_is_the_spread_among_other_images(shift, reals, fakes, largest):
    generator = torch.Generator().manual_seed(1)
    found = np.array([
        kid(torch.randn(reals, 16, generator=generator), torch.randn(fakes, 16, generator=generator) + shift,
            subsets=20, largest=largest)
        for _ in range(80)
    ])  # fmt: skip
    spread, told = found[:, 0].std(ddof=1), np.sqrt(np.square(found[:, 1]).mean())
    assert 1 / 1.5 < told / spread < 1.5


def test_it_belongs_to_its_seed():
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    assert kid(rows, rows + 1, seed=1, largest=50) == kid(rows, rows + 1, seed=1, largest=50)
    assert kid(rows, rows + 1, seed=1, largest=50) != kid(rows, rows + 1, seed=2, largest=50)


def test_one_picture_is_none():
    with pytest.raises(UserError, match="kid needs two images"):
        kid(torch.randn(1, 4), torch.randn(9, 4))


def test_torchmetrics_agrees():
    functional = pytest.importorskip("torchmetrics.image.kid")
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(200, 6, generator=generator).double(), torch.randn(200, 6, generator=generator).double() * 1.3
    assert kid(y, x)[0] == pytest.approx(float(functional.poly_mmd(x, y)), rel=1e-9)
