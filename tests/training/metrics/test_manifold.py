"""Precision and recall are the published ones; density and coverage are what their definitions say, and easy cases."""

from __future__ import annotations

import pytest
import torch

from training.metrics import quality as manifold
from training.metrics.quality import agreement


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_published_numbers(published, k):
    found = agreement(published("pr/real"), published("pr/gen"), k)
    assert found.precision == pytest.approx(float(published(f"pr/precision_k{k}")), abs=1e-7)
    assert found.recall == pytest.approx(float(published(f"pr/recall_k{k}")), abs=1e-7)


def test_density_and_coverage_by_their_definitions(published):
    reals, fakes, k = published("pr/real"), published("pr/gen"), 5
    radii = torch.cdist(reals, reals).sort(dim=1).values[:, k]
    inside = torch.cdist(fakes, reals) < radii
    found = agreement(reals, fakes, k)
    assert found.density == pytest.approx(float(inside.sum() / (k * len(fakes))))
    assert found.coverage == pytest.approx(float(inside.any(dim=0).double().mean()))


def test_blocks_change_nothing(published, monkeypatch):
    whole = agreement(published("pr/real"), published("pr/gen"))
    monkeypatch.setattr(manifold, "ROWS", 7)
    monkeypatch.setattr(manifold, "COLUMNS", 11)
    assert agreement(published("pr/real"), published("pr/gen")) == whole


def test_one_mode_of_two_is_precise_but_recalls_half():
    generator = torch.Generator().manual_seed(0)
    reals = torch.randn(400, 2, generator=generator)
    reals[200:] += 100
    collapsed = agreement(reals, torch.randn(300, 2, generator=generator))
    assert collapsed.precision > 0.9 and 0.4 < collapsed.recall < 0.52 and 0.3 < collapsed.coverage < 0.52
    assert agreement(reals, reals + 1e4).precision == 0
