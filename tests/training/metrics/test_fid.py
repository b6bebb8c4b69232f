"""FID is what the published code and the closed form say it is, also where a covariance has no full rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from torch_utils.errors import UserError
from training.metrics.quality import Moments, frechet_distance, moments, require_enough


@pytest.mark.parametrize("case", ["fid", "fid_d4", "fid_diag", "fid_rankdef8"])
def test_the_published_numbers(published, case):
    reals, fakes = (
        Moments(published(f"{case}/mu_{side}"), published(f"{case}/sigma_{side}")) for side in ("real", "gen")
    )
    # Of the rank-deficient pair, the published matrix root is good to eight digits itself.
    tolerance = 1e-8 if case == "fid_rankdef8" else 1e-12
    assert frechet_distance(reals, fakes) == pytest.approx(float(published(f"{case}/value")), rel=tolerance)


def test_moments_are_those_of_the_published_code(published):
    for side in ("real", "gen"):
        found = moments(published(f"feat/{side}"))
        torch.testing.assert_close(found.mean, published(f"fid/mu_{side}"))
        torch.testing.assert_close(found.covariance, published(f"fid/sigma_{side}"))


def test_two_gaussians_with_known_distance():
    """Where covariances commute: |m|^2 and the squared differences of the deviations along their axes."""
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    a, b = torch.tensor([1.0, 2, 3, 0, 5]).double(), torch.tensor([2.0, 2, 0, 0, 1]).double()
    mean = torch.arange(5).double()
    left = Moments(mean, turn @ a.square().diag() @ turn.T)
    right = Moments(mean + 2, turn @ b.square().diag() @ turn.T)
    assert frechet_distance(left, right) == pytest.approx(4 * 5 + float((a - b).square().sum()), rel=1e-12)
    assert abs(frechet_distance(left, left)) < 1e-12


def test_few_rows_in_many_dimensions_are_exact():
    """Two sets of 3 points in 40 dimensions, moved apart: the covariances are the same, so only the means count."""
    x = torch.randn(3, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(moments(x), moments(x + 0.5)) == pytest.approx(40 * 0.25, rel=1e-10)


def test_moments_do_not_need_all_rows_at_once():
    rows = torch.randn(10_000, 3, generator=torch.Generator().manual_seed(2))
    found = moments(rows)
    np.testing.assert_allclose(found.covariance, np.cov(rows.double().numpy().T, bias=True), rtol=1e-10)


def test_a_covariance_of_too_few_is_refused_and_kid_is_offered():
    require_enough(1281, 1280, "fakes", "fid1281_full")
    with pytest.raises(UserError, match=r"500 fakes are too few .* 1280 features.*measure kid500_full"):
        require_enough(500, 1280, "fakes", "fid500_full")


def test_torchmetrics_agrees():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Twice(torch.nn.Module):
        num_features = 6

        def forward(self, x):
            return x

    generator = torch.Generator().manual_seed(3)
    reals = torch.randn(400, 6, dtype=torch.float64, generator=generator)
    fakes = torch.randn(300, 6, dtype=torch.float64, generator=generator) * 1.3 + 0.2
    metric = fid.FrechetInceptionDistance(feature=Twice()).set_dtype(torch.float64)
    metric.update(reals, real=True)
    metric.update(fakes, real=False)
    ours = [moments(rows) for rows in (reals, fakes)]
    unbiased = [Moments(m.mean, m.covariance * n / (n - 1)) for m, n in zip(ours, (400, 300))]
    assert frechet_distance(*unbiased) == pytest.approx(float(metric.compute()), rel=1e-6)
    assert math.isfinite(frechet_distance(*ours))
