"""Copies are found, mirrored ones too, and other images of the same kind are not taken for copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_utils.errors import UserError
from training.data.archive import Archive
from training.metrics import memorisation as nearest_file
from training.metrics.memorisation import Neighbours, features_of, nearest, nearest_training, sheet

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
REALS, MIRRORED = RNG.standard_normal((2, 50, 6)).astype(np.float32)


def embed(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images.float(), 4).flatten(1) / 255


@pytest.mark.parametrize("block", [7, 50, 1000])
def test_against_all_distances_by_hand(block, monkeypatch):
    monkeypatch.setattr(nearest_file, "BLOCK", block)
    fakes = np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)
    found = nearest(fakes, REALS, MIRRORED, 4)
    both = np.stack([np.linalg.norm(fakes[:, None].astype(float) - x, axis=2) for x in (REALS, MIRRORED)])
    order = both.min(axis=0).argsort(axis=1)[:, :4]
    assert np.array_equal(found.places, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(both.min(axis=0), order, 1), rtol=1e-9)
    assert np.array_equal(found.mirrored, np.take_along_axis(both.argmin(axis=0) == 1, order, 1))
    for i, place in enumerate(found.places[:, 0]):
        rest = [np.linalg.norm(REALS[place].astype(float) - x, axis=1) for x in (REALS, MIRRORED)]
        others = [np.delete(x, place) for x in rest]
        assert found.own[i] == pytest.approx(min(map(np.min, others)), rel=1e-9)


def test_copies_are_all_suspects_and_other_samples_are_half_of_them():
    copies = nearest(np.concatenate([REALS[:20] + 1e-3, MIRRORED[20:40]]), REALS, MIRRORED, 2)
    assert copies.share == 1 and copies.places[:, 0].tolist() == list(range(40)) and copies.closeness.max() < 0.01
    assert copies.mirrored[20:, 0].all() and not copies.mirrored[:20, 0].any()
    wide = np.random.default_rng(2).standard_normal((3, 2000, 3)).astype(np.float32)
    far = wide[1] + 1000  # mirror images that are like nothing
    assert 0.4 < nearest(wide[2], wide[0], far, 1).share < 0.6
    assert nearest(3 * wide[2], wide[0], far, 1).share < 0.3


def test_a_real_picture_twice_in_the_data_is_not_called_copied():
    doubled = np.concatenate([REALS, REALS])
    assert nearest(REALS, doubled, doubled + 100, 2).share == 0


def test_features_of_mirror_images(monkeypatch):
    monkeypatch.setattr(nearest_file, "BATCH", 2)
    images = np.random.default_rng(0).integers(0, 255, (5, 3, 8, 8), dtype=np.uint8)
    turned = features_of(images, embed, CPU, flip=True)
    np.testing.assert_array_equal(turned, embed(torch.from_numpy(images[..., ::-1].copy())).numpy())


def test_a_network_beside_its_data(tiny_network, images):
    archive = Archive.open(images)
    found = nearest_training(tiny_network(), archive, embed, 6, 3)
    assert found.found.places.shape == (6, 3) and found.fakes.shape == (6, 3, 16, 16)
    assert (np.diff(found.found.distances, axis=1) >= 0).all() and 0 <= found.found.share <= 1
    with pytest.raises(UserError, match="has 40 images"):
        nearest_training(tiny_network(), archive, embed, 6, 40)
    with pytest.raises(UserError, match="training images are no numbers"):
        nearest(np.zeros((1, 6)), REALS * np.nan, MIRRORED, 1)


def test_the_sheet_begins_with_the_most_suspect_and_shows_mirror_images_mirrored(images):
    stored = np.zeros((3, 1, 128, 128), np.uint8)
    stored[2, :, :, :64] = 200
    found = nearest_file.Nearest(
        np.array([[5.0], [1.0]]), np.array([[0], [2]]), np.array([[False], [True]]), np.array([2.0, 2.0])
    )
    pixels = sheet(Neighbours(found, np.full((2, 1, 128, 128), 90, np.uint8), stored), rows=2)
    height = pixels.shape[0] // 2
    assert pixels.shape[1] == 2 * 128 and (pixels[5, 5] == 90).all()
    first, second = pixels[:height, 128:], pixels[height:, 128:]
    assert (first[5, 5] == 0).all() and (first[5, 120] == 200).all()  # image 2, mirrored, of fake 1
    assert (second[5, 5] == 0).all() and (second[5, 120] == 0).all()
    assert (first[128:] != 255).any()  # words
