"""Boundaries that labels were made with are found again, and directions that cross them change their side."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.editing.boundaries import (
    accuracy_by_chance,
    accuracy_of_few,
    across,
    conditional,
    fit_boundary,
    split_by_label,
)
from stylegan.editing.directions import Directions, accuracy_text, in_w, joined, scales_of
from stylegan.editing.stylespace import Channel, channel_directions
from tests.stylegan.tiny import TINY
from torch_utils.errors import UserError


@pytest.fixture
def sklearn() -> None:
    pytest.importorskip("sklearn")


needs_sklearn = pytest.mark.usefixtures("sklearn")


def labelled(count: int = 1500, noise: float = 0.0, dim: int = 32) -> tuple[Tensor, Tensor, np.ndarray]:
    """w [N,D], the true normal, and how far each w lies beyond the plane: positive for those with the attribute."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(count, dim, generator=rng)
    normal = torch.nn.functional.normalize(torch.randn(dim, generator=rng), dim=0)
    side = w @ normal - 0.5 + noise * torch.randn(count, generator=rng)  # a third has it
    return w + 3, normal, side.double().numpy()


@needs_sklearn
@pytest.mark.parametrize("method", ["logistic", "svm"])
@pytest.mark.parametrize("kind", ["truth", "probability", "quantity"])
def test_a_boundary_is_recovered(method, kind):
    w, normal, side = labelled()
    values = {"truth": (side > 0) * 1.0, "probability": 1 / (1 + np.exp(-8 * side)), "quantity": side}[kind]
    found = fit_boundary(w, values, kind, "smile", method)
    assert found.normal @ normal > 0.95 and found.normal.norm() == pytest.approx(1, abs=1e-5)
    assert found.accuracy > 0.9


@needs_sklearn
def test_labels_that_mean_nothing_have_the_accuracy_of_guessing():
    w, _, _ = labelled(800)
    values = np.random.default_rng(0).integers(0, 2, 800).astype(float)
    assert abs(fit_boundary(w, values, "truth", "luck").accuracy - 0.5) < 0.12


@needs_sklearn
def test_noisy_labels_have_an_accuracy_in_between_and_rare_ones_count_as_much():
    w, normal, side = labelled(2000, noise=1.0)
    found = fit_boundary(w, (side > 0.7) * 1.0, "truth", "smile")
    assert 0.6 < found.accuracy < 0.9 and found.normal @ normal > 0.8 and found.yes < 0.3 * found.no


@needs_sklearn
def test_what_is_not_known_does_not_count():
    w, normal, side = labelled()
    values = (side > 0) * 1.0
    values[::3] = np.nan
    found = fit_boundary(w, values, "truth", "smile")
    assert found.yes + found.no == 1000 and found.normal @ normal > 0.95


@needs_sklearn
def test_a_few_dozen_labels_are_enough_to_begin_with():
    w, normal, side = labelled(40, dim=8)
    found = fit_boundary(w, (side > 0) * 1.0, "truth", "smile")
    assert found.normal @ normal > 0.7 and found.accuracy == found.accuracy
    few = fit_boundary(w[:8], np.array([0.0, 1.0] * 4), "truth", "smile")
    assert np.isnan(few.accuracy)


def test_random_labels_seldom_exceed_the_level_of_chance():
    """In one of twenty cases, whether each of few labels is held out once or nothing is fitted to those held out."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        found.append(accuracy_of_few(rng.standard_normal((24, 64)), rng.permutation(np.arange(24) % 2)))
        truth, answers = rng.integers(0, 2, (2, 60))
        found.append(((truth == answers)[truth == 1].mean() / 2 + (truth == answers)[truth == 0].mean() / 2,
                      accuracy_by_chance(answers, truth)))  # fmt: skip
    accuracies, chances = np.array(found).T
    assert 0 < (accuracies > chances).mean() < 0.12 and 0.6 < chances.mean() < 0.8
    assert abs(accuracies.mean() - 0.5) < 0.05


@needs_sklearn
def test_few_labels_that_mean_something_exceed_it():
    w, _, side = labelled(40, dim=8)
    found = fit_boundary(w, (side > 0) * 1.0, "truth", "smile")
    assert found.accuracy > found.chance > 0.5
    assert "WEAK" not in accuracy_text(found.accuracy, found.chance)
    few = fit_boundary(w[:8], np.array([0.0, 1.0] * 4), "truth", "smile")
    assert np.isnan(few.chance)


def test_an_accuracy_comes_with_its_level_of_chance():
    assert accuracy_text(0.75, 0.708) == "held-out accuracy 0.750, by chance up to 0.708"
    assert accuracy_text(0.75, 0.75) == "held-out accuracy 0.750, by chance up to 0.750  WEAK"
    assert accuracy_text(0.6, 0.55).endswith("WEAK") and accuracy_text(0.9) == "held-out accuracy 0.900"
    assert accuracy_text(float("nan"), 0.5) == "held-out accuracy unknown  WEAK"


@needs_sklearn
@pytest.mark.parametrize(("values", "kind", "says"), [
    ([1.0] * 20, "truth", "'smile' is a single class: 20 images with it, 0 without"),
    ([0.0] * 19 + [1.0], "truth", "1 image with it, 19"), ([np.nan] * 20, "truth", "0 images with it, 0"),
    ([0.5] * 20, "probability", "0 images with it, 0"),
    ([0.95] * 20, "probability", "20 images with it, 0"), ([3.0] * 20, "quantity", "20 images with it, 0"),
])  # fmt: skip
def test_a_single_class_is_one_clear_line(values, kind, says):
    with pytest.raises(UserError, match=says):
        fit_boundary(torch.randn(20, 4), np.array(values), kind, "smile")


def test_the_most_certain_come_first_and_as_many_of_each():
    values = np.array([0.99, 0.92, 0.5, 0.05, 0.01, 0.95, np.nan, 0.02] + [0.4] * 23)
    yes, no = split_by_label(values, "probability")
    assert yes.tolist() == [0, 5, 1] and no.tolist() == [4, 7, 3]
    assert [len(kind) for kind in split_by_label(np.array([0.9] * 5 + [0.2] * 95), "probability")] == [5, 5]


@pytest.mark.parametrize(("values", "yes", "no"), [
    ([5.0, 1, 3, np.nan, 9], [0, 4], [1, 2]), ([0.0, 0, 0, 7], [3], [0, 1, 2]), ([0.0, 7, 7, 7], [1, 2, 3], [0]),
])  # fmt: skip
def test_quantities_are_split_in_the_middle(values, yes, no):
    found = split_by_label(np.array(values), "quantity")
    assert [kind.tolist() for kind in found] == [yes, no]


def test_without_scikit_learn_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(UserError, match=r"scikit-learn .*stylegan-engine\[directions\]"):
        fit_boundary(torch.randn(4, 4), np.array([0.0, 1, 0, 1]), "truth", "smile")


# From boundaries to directions


def some(count: int = 1, seed: int = 3) -> Directions:
    torch.manual_seed(seed)
    names = [f"d{seed}{i}" for i in range(count)]
    return in_w(torch.randn(count, 8), names, (1, 2, 4), "by chance", torch.cov(torch.randn(8, 200)).double())


def flat(direction: Directions) -> Tensor:
    return direction.vectors[0].flatten().double()


@pytest.mark.parametrize("others", [1, 3])
def test_a_conditional_direction_leaves_what_is_taken_out(others):
    """Planes whose directions are taken out answer the same after a move."""
    direction, cov = some(), torch.diag(torch.arange(1.0, 9.0)).double()
    normals = torch.linalg.qr(torch.randn(8, others, generator=torch.Generator().manual_seed(9)))[0].T
    taken = in_w(across(normals, cov), [f"n{i}" for i in range(others)], range(6), "planes", cov)
    found = conditional(direction, taken, cov)
    torch.testing.assert_close(normals.double() @ flat(found), torch.zeros(others).double(), atol=1e-6, rtol=0)
    assert flat(found).norm() == pytest.approx(1, abs=1e-6)
    assert flat(found) @ (flat(direction) / cov.diag()) > 0  # still the same way
    torch.testing.assert_close(found.scales, scales_of(found.vectors, cov))
    assert found.names == (f"{direction.names[0]} without " + ", ".join(taken.names),)


def test_moving_along_a_plane_s_direction_changes_its_answer_most():
    random = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=random).double()
    cov, normal = root @ root.T, torch.randn(1, 8, generator=random)
    best = in_w(across(normal, cov), ["best"], range(6), "plane", cov)
    rivals = in_w(torch.cat([normal, torch.randn(200, 8, generator=random)]), ["?"] * 201, range(6), "any", cov)
    answers = [
        float(abs(normal @ d.vectors[0, 0]) * d.scales[0]) for d in (best, *(rivals[i : i + 1] for i in range(201)))
    ]
    assert max(answers) == answers[0]  # for one deviation of w each


def test_a_direction_without_itself_is_nothing():
    with pytest.raises(UserError, match="nothing is left"):
        conditional(some(), joined([some(1, 9), some()]), torch.eye(8).double())
    with pytest.raises(UserError, match="edit styles"):
        conditional(channel_directions([Channel(2, 5, 1.0, 1.0)], TINY, "test"), some(), torch.eye(8).double())
