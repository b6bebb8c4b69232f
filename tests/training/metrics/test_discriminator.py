"""What the discriminator's logits say about its data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stylegan.networks.config import Stage
from torch_utils.errors import UserError
from training.data.archive import Archive
from training.metrics.discriminator import Overfitting, Ranking, contact_sheet, logits_of, overfitting, rank_files

TRAIN, FAKE, VALIDATION = np.array([3.0, 1.0, 2.0, -2.0]), np.array([-3.0, -1.0]), np.array([0.0, -1.0, 1.0])


def test_the_heuristics_by_hand():
    found = Overfitting(TRAIN, FAKE, VALIDATION)
    assert found.r_t == 0.5 and found.r_v == pytest.approx((1 - 0) / (1 + 2))
    assert found.r_pairs == pytest.approx((7 - 1) / 8)
    assert np.isnan(Overfitting(TRAIN, FAKE, np.zeros(0)).r_v)


def test_what_is_held_out_looks_like_the_data_or_like_fakes():
    assert Overfitting(TRAIN, FAKE, TRAIN).r_v == 0 and Overfitting(TRAIN, FAKE, FAKE).r_v == 1


def test_where_zero_lies_matters_to_r_t_only():
    found, moved = Overfitting(TRAIN, FAKE, VALIDATION), Overfitting(TRAIN + 9, FAKE + 9, VALIDATION + 9)
    assert moved.r_t == 1 and moved.r_v == pytest.approx(found.r_v) and moved.r_pairs == found.r_pairs
    assert Overfitting(TRAIN, TRAIN, TRAIN).r_pairs == 0  # ties count neither way


def test_the_error_is_how_far_other_samples_are_off():
    rng = np.random.default_rng(0)
    found = [Overfitting(rng.normal(2, 1, 100), rng.normal(-2, 2, 100), rng.normal(1, 1, 100)) for _ in range(500)]
    assert np.mean([f.r_v_error for f in found]) == pytest.approx(np.std([f.r_v for f in found]), rel=0.15)


def test_logits_do_not_depend_on_how_many_are_seen_at_once(tiny_network):
    D = tiny_network().D
    images = torch.rand(24, 3, 16, 16) * 2 - 1
    whole = logits_of(D, images, None, Stage(16))
    parts = np.concatenate([logits_of(D, images[i : i + 4], None, Stage(16)) for i in range(0, 24, 4)])
    np.testing.assert_allclose(whole, parts, rtol=1e-4, atol=1e-5)
    assert np.abs(whole - D(images).numpy()).max() > 1e-3  # D's own groups are others


def test_a_network_its_data_and_what_was_held_out(tiny_network, images):
    archive = Archive.open(images)
    found = overfitting(tiny_network(num_classes=3), archive, archive, 22)
    assert found.r_v == 0 and len(found.train) == len(found.fake) == 22  # although groups are of four
    alone = overfitting(tiny_network(num_classes=3), archive, None, 22)
    assert np.array_equal(alone.fake, found.fake) and np.isnan(alone.r_v)
    assert overfitting(tiny_network(alpha=0.5), archive, None, 8).train.std() > 0


def test_what_cannot_be_asked(tiny_network, images):
    archive = Archive.open(images)
    with pytest.raises(UserError, match="no discriminator"):
        overfitting(replace(tiny_network(), D=None), archive)
    with pytest.raises(UserError, match="groups of 4 images, two or more of them; ask for overfit500"):
        overfitting(tiny_network(), archive, None, 7)
    with pytest.raises(UserError, match="has 40 images, 400 are asked for"):
        overfitting(tiny_network(), archive, None, 400)


def test_scores_are_those_of_the_files_and_without_what_their_groups_add(tiny_network, images):
    archive = Archive.open(images)
    pixels = torch.stack([torch.from_numpy(archive.read(i)) for i in range(len(archive))])
    inputs = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    alone = tiny_network(mbstd_group=1)
    plain = logits_of(alone.D, inputs, None, alone.stage)
    np.testing.assert_allclose(rank_files(alone, archive, quiet=True).scores, plain, rtol=1e-3, atol=1e-4)
    grouped = tiny_network()
    found = rank_files(grouped, archive, quiet=True).scores
    mean = logits_of(grouped.D, inputs, None, grouped.stage).mean()
    assert found.mean() == pytest.approx(mean, abs=0.3 * abs(mean)) and abs(mean) > 1e-3


def test_the_best_are_above_and_the_worst_below():
    values = np.random.default_rng(0).permutation(12)
    sheet = contact_sheet(Ranking(range(12), values.astype(float), None,
                                  lambda places: np.ones((len(places), 3, 8, 8), np.uint8)
                                  * (20 * values[places]).astype(np.uint8)[:, None, None, None]))  # fmt: skip
    above, below = sheet[: len(sheet) // 2, ::128][60], sheet[len(sheet) // 2 + 60, ::128]
    assert above[:, 0].tolist() == [220, 200, 180, 160, 140, 120] and below[:, 0].tolist() == [100, 80, 60, 40, 20, 0]
