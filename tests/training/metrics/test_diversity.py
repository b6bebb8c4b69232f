"""The mean distance of pairs, however it is added up, and an alarm where images are all alike."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.projection.distance import PIXELS, pick_distance
from torch_utils.errors import UserError
from training.data.archive import Archive
from training.metrics.diversity import Diversity, Spread, diversity, spread

IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def blocks(images: Tensor, size: int, classes: Tensor | None = None):
    for i in range(0, len(images), size):
        yield images[i : i + size], None if classes is None else classes[i : i + size]


def by_hand(pairs) -> float:
    return float(np.mean([PIXELS(IMAGES[a : a + 1].double(), IMAGES[b : b + 1].double()) for a, b in pairs]))


@pytest.mark.parametrize("size", [1, 5, 12])
def test_it_is_the_mean_over_all_pairs(size):
    found = spread(blocks(IMAGES, size), PIXELS)
    assert found.value == pytest.approx(by_hand(combinations(range(12), 2)), rel=1e-6) and found.count == 12


@pytest.mark.parametrize("size", [5, 12])
def test_of_classes_only_pairs_of_one_class_count(size):
    classes = torch.arange(12) % 4
    found = spread(blocks(IMAGES, size, classes), PIXELS)
    pairs = [(a, b) for a, b in combinations(range(12), 2) if a % 4 == b % 4]
    assert found.value == pytest.approx(by_hand(pairs), rel=1e-6)
    with pytest.raises(UserError, match="no two are of one class"):
        spread(blocks(IMAGES, size, torch.arange(12)), PIXELS)


def test_the_error_is_about_how_far_off_it_is():
    found = []
    for seed in range(60):
        torch.manual_seed(seed)
        images = torch.randn(64, 1, 1, 1).expand(-1, 1, 4, 4)
        found.append(spread(blocks(images, 16), PIXELS))
    off = np.std([f.value for f in found])
    assert 0.7 * off < np.sqrt(np.mean([f.error**2 for f in found])) < 2 * off


def test_the_alarm():
    reals = Spread(1.0, 0.1, 50)
    assert Diversity(Spread(0.3, 0.1, 50), reals).collapsed and not Diversity(Spread(0.8, 0.1, 50), reals).collapsed
    assert not Diversity(Spread(0.0, 0.1, 50), None).collapsed


def test_a_network_that_draws_the_same_always_has_collapsed(tiny_network, images):
    snapshot = tiny_network(num_classes=3, noise=False)
    snapshot.G.mapping.embed.zero_()
    archive = Archive.open(images)
    for layer in snapshot.G.mapping.layers:
        layer.weight.zero_()
    found = diversity(snapshot, pick_distance("discriminator", snapshot), archive, 24)
    assert found.collapsed and found.fakes.value < 1e-6 and found.reals is not None and found.reals.value > 1e-3


def test_one_that_draws_different_pictures_has_not(tiny_network):
    snapshot = tiny_network()
    found = diversity(snapshot, PIXELS, None, 20)
    assert found.fakes.value > 1e-3 and found.reals is None and np.isnan(found.ratio)
    assert diversity(snapshot, PIXELS, None, 20).fakes == found.fakes
