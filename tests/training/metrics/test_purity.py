"""A direction is pure that moves its own attribute only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stylegan.editing.directions import Directions
from torch_utils.errors import UserError
from training.attributes import AttributeClassifier, Scope
from training.metrics.latent_structure import Purity, purity, purity_table, summarised

NAMES = ("red", "green", "blue")


class Means(nn.Module):
    """Scores of an image: the mean of each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images.mean(dim=(2, 3))


SCOPE = Scope(NAMES, (True,) * 3, (0.0,) * 3, (1.0,) * 3, 3, (16, 16), "blotches")
CLASSIFIER = AttributeClassifier(Means(), SCOPE)  # type: ignore[arg-type]


def report(changes: np.ndarray, directions: tuple[str, ...]) -> Purity:
    still = np.random.default_rng(0).standard_normal((50, 3)) * [1, 10, 100]
    each = np.repeat((changes * still.std(axis=0, ddof=1))[:, None], 50, axis=1)
    return summarised(still, each, directions, NAMES)


def test_only_its_own_attribute_moves_or_all_do():
    found = report(np.array([[0.0, 2.0, 0.0], [-1.0, 1.0, 1.0]]), ("green", "blue"))
    np.testing.assert_allclose(found.changes, [[0, 2, 0], [-1, 1, 1]], atol=1e-12)  # in units of each attribute
    assert found.own == (1, 2)
    np.testing.assert_allclose(found.scores, [1, 1 / 3])


def test_which_attribute_a_direction_is_for():
    found = report(np.array([[0.1, 0.0, -3.0]] * 3), ("red without green", "pc0", "greens"))
    assert found.own == (0, 2, 2)
    np.testing.assert_allclose(found.scores, [0.1 / 3.1, 3 / 3.1, 3 / 3.1])


def test_a_direction_that_changes_nothing_has_no_purity():
    assert np.isnan(report(np.array([[0.01, 0.0, 0.0]]), ("red",)).scores).all()


def some_directions(count: int = 2) -> Directions:
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(count, 1, 8), dim=2)
    return Directions(
        vectors,
        ("red", "pc1")[:count],
        (tuple(range(6)),) * count,
        torch.ones(count),
        "by chance",
        torch.zeros(count),
        torch.zeros(count),
    )


def test_of_a_network_the_changes_are_those_of_its_images(tiny_network):
    snapshot, directions = tiny_network(), some_directions()
    found = purity(snapshot, directions, CLASSIFIER, 20)
    assert found.changes.shape == (2, 3) and (found.errors < 1).all() and (found.scores <= 1).all()
    back = purity(snapshot, replace(directions, vectors=-directions.vectors), CLASSIFIER, 20)
    np.testing.assert_allclose(back.changes, -found.changes, atol=1e-9)
    alone = purity(snapshot, directions[1:], CLASSIFIER, 20)
    np.testing.assert_array_equal(alone.changes[0], found.changes[1])
    text = "\n".join(purity_table(found))
    assert "pc1" in text and "purity" in text and "*" in text and "20 images" in text


def test_random_noise_is_the_same_forth_and_back(tiny_network):
    """Else its changes would be errors of about a standard deviation."""
    still = some_directions(1)
    tiny = purity(tiny_network(), replace(still, vectors=1e-4 * still.vectors), CLASSIFIER, 12)
    assert np.abs(tiny.errors).max() < 1e-3


def test_what_has_no_purity(tiny_network):
    with pytest.raises(UserError, match="2 images or more"):
        purity(tiny_network(), some_directions(), CLASSIFIER, 1)
    with pytest.raises(UserError, match="'green' is the same in all 5"):
        summarised(
            np.array([[1.0, 2.0, 3.0]] * 5) * np.arange(5)[:, None] * [1, 0, 1], np.zeros((1, 5, 3)), ("a",), NAMES
        )
