"""Images to compare: each is of its number alone."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from stylegan.networks.config import Stage
from stylegan.networks.registry import build_generator
from torch_utils.errors import UserError
from training.data.archive import Archive, ArchiveWriter
from training.metrics.images import Fakes, Sampling, reals_for


@pytest.fixture
def archive(tmp_path) -> Archive:
    rng = np.random.default_rng(0)
    with ArchiveWriter(tmp_path / "blotches.zip") as writer:
        for i in range(6):
            writer.add(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8), i % 2)
    return Archive.open(tmp_path / "blotches.zip")


def test_a_fake_is_the_same_in_any_batch_and_from_any_start(snapshot):
    fakes = Fakes(snapshot, Sampling(seed=3))
    whole = fakes.read(0, 7, batch=4)
    assert whole.shape == (7, 3, 16, 16) and whole.dtype == torch.uint8
    assert torch.equal(whole[2:5], fakes.read(2, 5, batch=1))
    assert not torch.equal(whole, Fakes(snapshot, Sampling(seed=4)).read(0, 7, 4))
    assert len(whole.unique(dim=0)) == 7


def test_keys_tell_fakes_apart(snapshot):
    fakes = Fakes(snapshot)
    others = [Fakes(snapshot, Sampling(seed=1)), Fakes(snapshot, Sampling(psi=0.5))]
    assert len({str(f.key) for f in [fakes, *others]}) == 3
    before = str(fakes.key)
    assert str(replace(fakes, snapshot=replace(snapshot, stage=Stage(8))).key) != before


def test_classes_come_as_often_as_in_the_data(snapshot):
    cfg = replace(snapshot.config, num_classes=4)
    torch.manual_seed(0)
    conditional = replace(snapshot, G=build_generator(cfg).eval().requires_grad_(False), config=cfg)
    mostly = Fakes(conditional, Sampling(labels=np.array([2] * 99 + [3])))
    always = Fakes(conditional, Sampling(labels=np.array([2])))
    alike = (mostly.read(0, 40, 8) == always.read(0, 40, 8)).flatten(1).all(dim=1)
    assert 35 <= int(alike.sum()) <= 40
    assert Fakes(conditional).read(0, 2, 1).shape == (2, 3, 16, 16)
    assert Fakes(conditional).key != always.key


def test_reals_are_reduced_and_then_mirrored(snapshot, archive):
    plain, both = reals_for(snapshot, archive), reals_for(snapshot, archive, mirror=True)
    assert (plain.limit, both.limit) == (6, 12)
    assert torch.equal(both.read(0, 6), plain.read(0, 6))
    assert torch.equal(both.read(4, 9)[2:], plain.read(0, 3).flip(3))
    mean = archive.read(0).astype(float).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(plain.read(0, 1)[0].permute(1, 2, 0).numpy() - mean).max() <= 0.5


@pytest.mark.parametrize("mirror", [False, True])
def test_some_reals_are_chosen_by_a_seed_and_all_are_in_the_order_of_the_archive(snapshot, archive, mirror):
    plain = reals_for(snapshot, archive, mirror)
    mixed, again, other = (replace(plain, shuffled=seed) for seed in (1, 1, 2))
    every = plain.read(0, plain.limit)
    assert torch.equal(mixed.read(0, 5), again.read(0, 5)) and not torch.equal(mixed.read(0, 6), other.read(0, 6))
    assert not torch.equal(mixed.read(0, 5), every[:5])
    assert torch.equal(mixed.read(0, plain.limit).unique(dim=0), every.unique(dim=0))
    assert len({str(reals.key) for reals in (plain, mixed, other)}) == 3
    assert torch.equal(pickle.loads(pickle.dumps(mixed)).read(2, 6), mixed.read(2, 6))


def test_other_channels_are_refused(snapshot, tmp_path):
    with ArchiveWriter(tmp_path / "grey.zip") as writer:
        writer.add(np.zeros((16, 16, 1), np.uint8))
    with pytest.raises(UserError, match="images of 1 channels, this network makes 3"):
        reals_for(snapshot, Archive.open(tmp_path / "grey.zip"))
