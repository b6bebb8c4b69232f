"""Separability is that of the paper, is 1 where planes part attributes, and grows as latents are entangled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from torch_utils.errors import UserError
from training.attributes import AttributeClassifier, Scope
from training.metrics.separability import (
    answers,
    conditional_entropy,
    held_out_entropy,
    margins_of,
    separability,
    separability_table,
    separated,
    surest_half,
    table_of,
)

DATA = np.load(Path(__file__).parents[2] / "data" / "latent_metrics.npz")
ATTRIBUTES = range(3)


def fixture(name: str) -> np.ndarray:
    return np.asarray(DATA[f"sep/{name}"])


def test_conditional_entropy_is_the_published_one():
    found = [conditional_entropy(table) for table in fixture("tables")]
    np.testing.assert_allclose(found, fixture("conditional_entropy"), atol=1e-6)


@pytest.mark.parametrize("k", ATTRIBUTES)
def test_the_half_that_is_kept_is_the_published_one(k):
    # Published: where the larger of softmax(logit, -logit) is largest, of which the first counts as 0.
    logits = fixture(f"attr{k}_logits")[:, 0].astype(float)
    kept = surest_half(logits)
    assert set(kept) == set(fixture(f"attr{k}_pruned_indices"))
    published = dict(zip(fixture(f"attr{k}_pruned_indices"), fixture(f"attr{k}_svm_targets")))
    assert all((logits[place] > 0) == (published[place] == 0) for place in kept)


@pytest.mark.parametrize("k", ATTRIBUTES)
@pytest.mark.parametrize("space", ["latents", "dlatents"])
def test_the_machine_and_its_table_are_the_published_ones(k, space):
    kept, truth = fixture(f"attr{k}_pruned_indices"), fixture(f"attr{k}_svm_targets") == 1
    x = fixture(space)[kept]
    found = answers(x, truth, x)
    assert np.array_equal(found, fixture(f"attr{k}_{space}_svm_outputs") == 1)
    np.testing.assert_allclose(table_of(found, truth), fixture(f"attr{k}_{space}_table"), atol=1e-12)


def test_the_score_is_the_published_one():
    margins = np.concatenate([fixture(f"attr{k}_logits") for k in ATTRIBUTES], axis=1).astype(float)
    spaces = {"z": fixture("latents"), "w": fixture("dlatents")}
    found = separated(spaces, margins, ("a", "b", "c"))
    assert found.spaces["z"].score == pytest.approx(float(fixture("score_latents")), rel=1e-6)
    assert found.spaces["w"].score == pytest.approx(float(fixture("score_dlatents")), rel=1e-6)
    expected = [float(fixture(f"attr{k}_dlatents_cond_entropy")) for k in ATTRIBUTES]
    np.testing.assert_allclose(found.spaces["w"].entropies, expected, atol=1e-6)


def swirled(x: np.ndarray, turns: float) -> np.ndarray:
    """Points of a plane [N,2] turned by an angle that grows with their distance from its middle."""
    angle = turns * 2 * np.pi * np.hypot(*x.T) / 3
    return np.stack([np.cos(angle) * x[:, 0] - np.sin(angle) * x[:, 1],
                     np.sin(angle) * x[:, 0] + np.cos(angle) * x[:, 1]], axis=1)  # fmt: skip


def test_one_for_a_toy_that_planes_part_and_growth_as_it_is_warped():
    x = np.random.default_rng(0).standard_normal((1200, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    spaces = {"straight": x, "turned": x @ turn} | {f"{t}": swirled(x, t) for t in (0.4, 0.55, 0.7)}
    found = separated(spaces, x, ("right", "up")).spaces
    assert found["straight"].score < 1.01 and found["turned"].score < 1.01 and found["turned"].held_out_score < 1.02
    for scores in ([s.score for s in found.values()][1:], [s.held_out_score for s in found.values()][1:]):
        assert all(b > 1.1 * a for a, b in zip(scores, scores[1:])) and scores[-1] > 2


def test_of_few_samples_only_what_is_held_out_tells_luck_from_separation():
    rng = np.random.default_rng(1)
    x, truth = rng.standard_normal((100, 120)) * np.r_[8, np.ones(119)], rng.random(100) > 0.5
    assert conditional_entropy(table_of(answers(x, truth, x), truth)) < 0.1
    assert held_out_entropy(x, truth) > 0.9
    assert held_out_entropy(x, x[:, 0] > 0) < 0.6


def test_the_unit_of_latents_does_not_matter_to_what_is_held_out():
    rng = np.random.default_rng(1)
    x, truth = rng.standard_normal((90, 5)), rng.random(90) > 0.4
    assert held_out_entropy(x, truth) == pytest.approx(held_out_entropy(1000 * x + 7, truth), abs=0.02)


def test_margins_of_probabilities_and_quantities():
    values = np.array([[0.9, 10.0], [0.2, 30.0], [0.5, -50.0]])
    np.testing.assert_allclose(margins_of(values, (False, True)), [[0.4, 0.0], [-0.3, 20.0], [0.0, -60.0]])
    assert surest_half(np.array([0.1, -3.0, 2.0, 0.0, -0.2])).tolist() == [1, 2]


def test_an_attribute_that_nearly_all_have_is_left_out_and_named():
    x = np.random.default_rng(0).standard_normal((400, 3))
    nearly = np.where(np.arange(400) < 2, -9.0, 1.0)
    margins = np.stack([1 + 0 * x[:, 0], x[:, 1], nearly], axis=1)
    found = separated({"z": x}, margins, ("all", "some", "nearly"), (0.7, 0.8, 0.9))
    alone = separated({"z": x}, margins[:, 1:2], ("some",))
    assert found.names == ("some",) and found.accuracies == (0.8,) and len(found.shares) == 1
    assert found.alike == {"all": 1.0, "nearly": 0.99} and found.spaces["z"].score == alone.spaces["z"].score
    lines = separability_table(found)
    assert "nan" in next(line for line in lines if line.startswith("all")) and "left out" in lines[5]
    assert lines[5].endswith(": all, nearly") and "nan" not in "".join(separability_table(alone))
    with pytest.raises(UserError, match="the same answer for all, nearly"):
        separated({"z": x}, margins[:, ::2], ("all", "nearly"))


class Means(nn.Module):
    """Scores of an image: the mean of red, and that of green less that of blue."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        red, green, blue = images.mean(dim=(2, 3)).T
        return torch.stack([red, green - blue], dim=1)


SCOPE = Scope(("red", "green"), (True, True), (0.0, 0.0), (1.0, 1.0), 3, (16, 16), "blotches", (0.9, 0.8))
CLASSIFIER = AttributeClassifier(Means(), SCOPE)  # type: ignore[arg-type]


def test_of_a_network_both_spaces_and_every_attribute(tiny_network):
    found = separability(tiny_network(), CLASSIFIER, 80)
    assert list(found.spaces) == ["z", "w"] and found.kept == 40 and found.names == ("red", "green")
    assert all(1 <= space.score < 4 and np.isfinite(space.held_out).all() for space in found.spaces.values())
    lines = "\n".join(separability_table(found))
    assert "red" in lines and "0.900" in lines and "160 images or more" in lines
    again = separability(tiny_network(), CLASSIFIER, 80)
    assert np.array_equal(again.spaces["w"].entropies, found.spaces["w"].entropies)


def test_what_cannot_be_separated(tiny_network, without_w):
    with pytest.raises(UserError, match="thousands of images, not 2"):
        separated({"z": np.zeros((2, 2))}, np.zeros((2, 1)), ("a",))
    with pytest.raises(UserError, match="thousands of images, not 0"):
        separability(tiny_network(), CLASSIFIER, 0)
    with pytest.raises(UserError, match="answers are no numbers"):
        separated({"z": np.zeros((9, 2))}, np.full((9, 1), np.nan), ("a",))
    with pytest.raises(UserError, match="ProGAN has no w"):
        separability(without_w(), CLASSIFIER, 8)
    with pytest.raises(UserError, match="1 channels, these have 3"):
        separability(tiny_network(), AttributeClassifier(Means(), replace(SCOPE, channels=1)), 8)  # type: ignore[arg-type]
