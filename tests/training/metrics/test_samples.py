"""Image n of a network depends on the seed and on n."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch

from stylegan.networks.config import Stage
from stylegan.networks.inference import Execution, Renderer
from stylegan.networks.sampling import noise_at
from torch_utils.errors import UserError
from training.data.archive import Archive
from training.metrics.images import (
    Fakes,
    Sampling,
    chosen,
    classes_of,
    inputs_at,
    pages,
    real_images,
    samples_at,
    samples_of,
)


def test_a_picture_is_the_same_whatever_stands_beside_it(tiny_network):
    snapshot = tiny_network(num_classes=3)
    one, other = samples_at(snapshot, Sampling(batch=4), range(6)), samples_at(snapshot, Sampling(batch=1), range(2, 5))
    for name in ("z", "w", "c", "images"):
        assert torch.equal(getattr(one, name)[2:5], getattr(other, name))
    assert one.images.abs().max() <= 1 and one.images.std() > 0.05
    again = samples_at(snapshot, Sampling(seed=1), range(6))
    assert not torch.isclose(again.z, one.z).any()


def test_pictures_come_some_at_a_time_and_are_the_same(tiny_network):
    snapshot = tiny_network()
    parts = list(samples_of(snapshot, Sampling(quiet=True), 20, "Drawing"))
    assert [len(part.z) for part in parts] == [16, 4]
    assert torch.equal(parts[1].images, samples_at(snapshot, Sampling(), range(16, 20)).images)


def test_in_batches_they_are_the_same_but_for_rounding_and_no_batch_is_filled_up_in_vain(tiny_network, monkeypatch):
    one = tiny_network(num_classes=3)
    many = replace(one, execution=Execution(batched=True))
    expected, found = (samples_at(snapshot, Sampling(batch=4), range(6)) for snapshot in (one, many))
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=2e-5)
    levels = Fakes(many).read(0, 6, 4).int() - Fakes(one).read(0, 6, 4).int()
    assert levels.abs().max() <= 1 and (levels != 0).float().mean() < 1e-3

    asked = []
    monkeypatch.setattr(Renderer, "draw_there", lambda self, ws, noise, batch: asked.append((len(ws), batch)) or ws)
    for batch, size in ((64, None), (64, 32), (8, None), (12, None)):
        deque(samples_of(many, Sampling(batch=batch, quiet=True), 96, size=size), maxlen=0)
    assert set(asked) == {(64, 64), (32, 64), (32, 32), (16, 8), (24, 12)}


def test_a_precision_has_features_of_its_own(tiny_network):
    keys = [Fakes(replace(tiny_network(), execution=Execution(p))).key for p in ("fp32", "bf16", "tf32")]
    assert "precision" not in keys[0] and keys[1] == keys[0] | {"precision": "bf16"} and keys[1] != keys[2]


def test_w_is_before_truncation_and_pictures_are_after(tiny_network):
    snapshot = tiny_network(noise=False)
    full, none = (samples_at(snapshot, Sampling(psi=psi), range(3)) for psi in (1.0, 0.0))
    assert torch.equal(full.w, none.w) and torch.equal(none.images[0], none.images[2])
    assert not torch.equal(full.images[0], full.images[2])


def test_latents_and_noise_are_standard_normal(tiny_network):
    snapshot = tiny_network()
    z = inputs_at(snapshot, Sampling(), range(2000)).z
    assert abs(float(z.mean())) < 0.05 and abs(float(z.std()) - 1) < 0.05 and z.dtype == torch.float32
    inputs = inputs_at(snapshot, Sampling(), range(20))
    noise = noise_at(inputs.places, snapshot.config.noise_shapes(16))
    assert [m.shape[2] for m in noise] == [4, 4, 8, 8, 16, 16]
    assert abs(float(noise[5].std()) - 1) < 0.05 and not torch.equal(noise[4], noise[5])


def test_classes_are_drawn_as_often_as_the_data_has_them(tiny_network):
    snapshot = tiny_network(num_classes=3)
    even = inputs_at(snapshot, Sampling(), range(300)).c
    assert even is not None and even.bincount().min() > 70
    rare = inputs_at(snapshot, Sampling(labels=np.array([0] * 9 + [2])), range(300)).c
    assert rare is not None and 10 < rare.bincount()[2] < 60 and rare.bincount()[1] == 0
    assert inputs_at(tiny_network(), Sampling(), range(3)).c is None


def test_progan_is_drawn_too(without_w):
    assert samples_at(without_w(), Sampling(), range(2)).images.shape == (2, 3, 16, 16)


def test_real_pictures_are_at_the_size_and_the_fade_of_the_network(tiny_network, images):
    archive = Archive.open(images)
    snapshot = replace(tiny_network(), stage=Stage(8))
    assert pages(archive, snapshot).shape == (40, 3, 8, 8)
    snapshot = replace(snapshot, stage=Stage(8, 0.0))
    faded = real_images(pages(archive, snapshot), [3, 1], snapshot)
    assert torch.equal(faded[..., ::2, ::2], faded[..., 1::2, 1::2])


def test_which_real_images(tiny_network, images):
    archive = Archive.open(images)
    places = chosen(archive, 10, 0)
    assert (
        len(set(places)) == 10 and sorted(places) == list(places) and not np.array_equal(places, chosen(archive, 10, 1))
    )
    found = classes_of(archive, places, tiny_network(num_classes=3))
    assert found is not None and found.tolist() == [int(p) % 3 for p in places]


def test_data_that_does_not_fit(tiny_network, images, new_images):
    with pytest.raises(UserError, match="has 40 images, 41 are asked for"):
        chosen(Archive.open(images), 41, 0)
    grey = Archive.open(new_images(channels=1))
    with pytest.raises(UserError, match="1 channels, this network draws 3"):
        pages(grey, tiny_network())
