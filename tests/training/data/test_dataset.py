"""Laws of the endless stream of images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ops.resample import upsample_nearest
from torch_utils.errors import UserError
from training.data.archive import Archive, ArchiveWriter
from training.data.dataset import Dataset, fade, indices_at, mirrored_at, random_bits, splitmix64

lengths = st.integers(1, 60)
seeds = st.integers(0, 2**63)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.zip"
    with ArchiveWriter(path) as writer:
        for label, image in enumerate(np.random.RandomState(0).randint(0, 256, (10, 8, 12, 3), dtype=np.uint8)):
            writer.add(image, label)
    return Archive.open(path)


@given(lengths, seeds, st.integers(0, 10**9))
def test_every_epoch_shows_every_image_once(length, seed, epoch):
    shown = indices_at(np.arange(epoch * length, (epoch + 1) * length), length, seed)
    assert sorted(shown.tolist()) == list(range(length))


@given(lengths, seeds, st.lists(st.integers(0, 10**12), max_size=40))
def test_the_stream_is_a_function_of_the_position(length, seed, positions):
    together = indices_at(np.array(positions, dtype=np.int64), length, seed)
    single = [indices_at(np.array([position]), length, seed).item() for position in positions]
    assert together.tolist() == single


def test_epochs_and_seeds_differ_in_order():
    orders = [indices_at(np.arange(1000) + 1000 * epoch, 1000, seed) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    agreeing = [np.mean(a == b) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(agreeing) < 0.01  # two random orders of 1000 agree at one place on average


def test_random_bits_are_the_published_generator_and_balanced():
    first = splitmix64(np.arange(3, dtype=np.uint64))
    assert [f"{n:016x}" for n in first.tolist()] == ["e220a8397b1dcdaf", "6e789e6aa1b965f4", "06c45d188009454f"]
    bits = random_bits(7, 1, 0, np.arange(1 << 16))
    assert len(np.unique(bits)) == len(bits)
    shares = [np.mean(bits >> np.uint64(b) & np.uint64(1)) for b in range(64)]
    assert np.abs(np.array(shares) - 0.5).max() < 0.01


def test_the_coin_is_fair_and_independent_of_its_neighbours_and_of_the_seed():
    coins = mirrored_at(np.arange(100_000), seed=0)
    for other in (mirrored_at(np.arange(100_000), seed=1), np.roll(coins, 1), np.roll(coins, 10)):
        assert abs(np.mean(coins == other) - 0.5) < 0.01
    assert abs(np.mean(coins) - 0.5) < 0.01


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_batch_sizes_give_the_same_stream(archive, counts):
    data = Dataset(archive, mirror=True, seed=5)
    images, labels = data.batch(3, sum(counts), 4, 6)
    starts = 3 + np.cumsum([0, *counts[:-1]])
    parts = [data.batch(int(start), count, 4, 6) for start, count in zip(starts, counts, strict=True)]
    assert torch.equal(images, torch.cat([part[0] for part in parts]))
    assert torch.equal(labels, torch.cat([part[1] for part in parts]))


def test_images_and_labels_belong_together_and_mirroring_follows_the_coin(archive):
    plain, labels = Dataset(archive, seed=5).batch(0, 50, 8, 12)
    assert (plain.shape, plain.dtype, labels.dtype) == ((50, 3, 8, 12), torch.uint8, torch.int64)
    for image, label in zip(plain, labels, strict=True):
        assert np.array_equal(image.permute(1, 2, 0), archive.read(int(label)))

    coins = torch.from_numpy(mirrored_at(np.arange(50), seed=5))
    assert 0 < coins.sum() < 50
    mirrored, _ = Dataset(archive, mirror=True, seed=5).batch(0, 50, 8, 12)
    assert torch.equal(mirrored, torch.where(coins[:, None, None, None], plain.flip(3), plain))


def test_writing_into_a_batch_does_not_reach_the_cache(archive):
    data = Dataset(archive)
    before = data.batch(0, 4, 4, 6)[0].clone()
    data.batch(0, 4, 4, 6)[0].zero_()
    assert torch.equal(data.batch(0, 4, 4, 6)[0], before)


def test_a_subset_is_a_fixed_choice_of_the_whole(archive):
    data = Dataset(archive, seed=1, subset=4)
    _, labels = data.batch(0, 12, 4, 6)
    assert len(data) == 4
    assert all(len(set(labels[i : i + 4].tolist())) == 4 for i in (0, 4, 8))
    assert len(set(labels.tolist())) == 4
    choices = {tuple(sorted(Dataset(archive, seed=s, subset=4).batch(0, 4, 4, 6)[1].tolist())) for s in range(10)}
    assert len(choices) > 1


@pytest.mark.parametrize("subset", [0, -1, 11])
def test_an_impossible_subset_is_refused(archive, subset):
    with pytest.raises(UserError, match=f"subset of {subset} images was requested, but .* has 10 images"):
        Dataset(archive, subset=subset)


def test_without_labels_there_are_none(tmp_path):
    with ArchiveWriter(tmp_path / "a.zip") as writer:
        writer.add(np.zeros((4, 4, 1), np.uint8))
    images, labels = Dataset(Archive.open(tmp_path / "a.zip")).batch(0, 3, 4, 4)
    assert labels is None
    assert images.shape == (3, 1, 4, 4)


def test_real_images_fade_in_as_generated_ones_do():
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    assert fade(images, 1.0) is images
    half = fade(images, 0.0)
    torch.testing.assert_close(half, upsample_nearest(half[..., ::2, ::2]))
    torch.testing.assert_close(half.mean((2, 3)), images.mean((2, 3)))
    torch.testing.assert_close(fade(images, 0.3), 0.7 * half + 0.3 * images)
