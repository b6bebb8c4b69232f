"""Boundaries that labels were made with are found again."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.editing.boundaries import boundary, told_apart
from torch_utils.errors import UserError

pytest.importorskip("sklearn")


def labelled(count: int = 1500, noise: float = 0.0, dim: int = 32) -> tuple[Tensor, Tensor, np.ndarray]:
    """w [N,D], the true normal, and how far each w lies beyond the plane: positive for those with the attribute."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(count, dim, generator=rng)
    normal = torch.nn.functional.normalize(torch.randn(dim, generator=rng), dim=0)
    side = w @ normal - 0.5 + noise * torch.randn(count, generator=rng)  # a third has it
    return w + 3, normal, side.double().numpy()


@pytest.mark.parametrize("method", ["logistic", "svm"])
@pytest.mark.parametrize("scale", ["truth", "probability", "quantity"])
def test_a_boundary_is_recovered(method, scale):
    w, normal, side = labelled()
    values = {"truth": (side > 0) * 1.0, "probability": 1 / (1 + np.exp(-8 * side)), "quantity": side}[scale]
    found = boundary(w, values, scale, "smile", method)
    assert found.normal @ normal > 0.95 and found.normal.norm() == pytest.approx(1, abs=1e-5)
    assert found.accuracy > 0.9


def test_labels_that_mean_nothing_have_the_accuracy_of_guessing():
    w, _, _ = labelled(800)
    values = np.random.default_rng(0).integers(0, 2, 800).astype(float)
    assert abs(boundary(w, values, "truth", "luck").accuracy - 0.5) < 0.12


def test_noisy_labels_have_an_accuracy_in_between_and_rare_ones_count_as_much():
    w, normal, side = labelled(2000, noise=1.0)
    found = boundary(w, (side > 0.7) * 1.0, "truth", "smile")
    assert 0.6 < found.accuracy < 0.9 and found.normal @ normal > 0.8 and found.yes < 0.3 * found.no


def test_what_is_not_known_does_not_count():
    w, normal, side = labelled()
    values = (side > 0) * 1.0
    values[::3] = np.nan
    found = boundary(w, values, "truth", "smile")
    assert found.yes + found.no == 1000 and found.normal @ normal > 0.95


def test_a_few_dozen_labels_are_enough_to_begin_with():
    w, normal, side = labelled(40, dim=8)
    found = boundary(w, (side > 0) * 1.0, "truth", "smile")
    assert found.normal @ normal > 0.7 and found.accuracy == found.accuracy
    few = boundary(w[:8], np.array([0.0, 1.0] * 4), "truth", "smile")
    assert np.isnan(few.accuracy)


@pytest.mark.parametrize(("values", "scale", "says"), [
    ([1.0] * 20, "truth", "'smile' is a single class: 20 pictures with it, 0 without"),
    ([0.0] * 19 + [1.0], "truth", "1 picture with it, 19"), ([np.nan] * 20, "truth", "0 pictures with it, 0"),
    ([0.5] * 20, "probability", "0 pictures with it, 0"),
    ([0.95] * 20, "probability", "20 pictures with it, 0"), ([3.0] * 20, "quantity", "20 pictures with it, 0"),
])  # fmt: skip
def test_a_single_class_is_one_clear_line(values, scale, says):
    with pytest.raises(UserError, match=says):
        boundary(torch.randn(20, 4), np.array(values), scale, "smile")


def test_the_surest_come_first_and_as_many_of_each():
    values = np.array([0.99, 0.92, 0.5, 0.05, 0.01, 0.95, np.nan, 0.02] + [0.4] * 23)
    yes, no = told_apart(values, "probability")
    assert yes.tolist() == [0, 5, 1] and no.tolist() == [4, 7, 3]
    assert [len(kind) for kind in told_apart(np.array([0.9] * 5 + [0.2] * 95), "probability")] == [5, 5]


@pytest.mark.parametrize(("values", "yes", "no"), [
    ([5.0, 1, 3, np.nan, 9], [0, 4], [1, 2]), ([0.0, 0, 0, 7], [3], [0, 1, 2]), ([0.0, 7, 7, 7], [1, 2, 3], [0]),
])  # fmt: skip
def test_quantities_are_parted_in_the_middle(values, yes, no):
    found = told_apart(np.array(values), "quantity")
    assert [kind.tolist() for kind in found] == [yes, no]


def test_without_scikit_learn_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(UserError, match=r"scikit-learn .*stylegan-engine\[directions\]"):
        boundary(torch.randn(4, 4), np.array([0.0, 1, 0, 1]), "truth", "smile")
