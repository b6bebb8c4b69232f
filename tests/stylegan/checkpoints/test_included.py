"""The models that come with the engine draw what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stylegan
from stylegan.checkpoints.locate import INCLUDED
from stylegan.editing.search import unsupervised
from stylegan.editing.settings import Labels, Search
from torch_utils.images import to_uint8
from training.data.archive import Archive

NAMES = sorted(path.stem for path in INCLUDED.glob("*.safetensors"))


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_card_and_images_that_differ(name: str) -> None:
    snap = stylegan.load(name)
    card = (INCLUDED / f"{name}.md").read_text()
    assert all(word in card for word in (name, "Data:", "Recipe:", "Limits", "16 bits"))
    assert (snap.D is None) == ("without its discriminator" in card)
    assert snap.stage == snap.config.full
    classes = None if not snap.config.num_classes else torch.arange(20) % snap.config.num_classes
    images = to_uint8(snap.snapshot.renderer.render(range(20), classes)).astype(np.float32)
    assert images.std(0).mean() > 20 and len({image.tobytes() for image in images}) == 20


def test_they_are_small() -> None:
    assert {"digits32", "faces64"} <= set(NAMES)
    assert stylegan.load("faces64").D is not None, "it is what others begin with"
    assert sum(path.stat().st_size for path in INCLUDED.iterdir()) < 25e6


def test_digits32_draws_the_digits_that_it_is_asked_for():
    """Told apart by the nearest of the ten average digits, right about 82 % of real ones."""
    snap = stylegan.load("digits32")
    assert snap.config.num_classes == 10 and snap.data == "mnist"
    archive = Archive.open("mnist")
    labels = np.asarray(archive.labels)[:2000]
    real = np.stack([archive.read(i)[..., 0] for i in range(2000)]).astype(np.float32)
    means = np.stack([real[labels == k].mean(0) for k in range(10)])
    asked = torch.arange(500) % 10
    made = to_uint8(snap.snapshot.renderer.render(range(500), asked))[..., 0].astype(np.float32)
    nearest = ((made[:, None] - means) ** 2).sum((2, 3)).argmin(1)
    assert (nearest == asked.numpy()).mean() > 0.7


def test_a_model_is_explored_as_it_is_loaded() -> None:
    model = stylegan.load("digits32")
    a, b = (model.ws([5], c=c) for c in (3, 8))
    assert torch.equal(model.mix(a, b, []), a)
    search = Search(method="sefa", count=1, labels=Labels(classes=range(10)))
    found = unsupervised(search, model.snapshot)
    there = model.move(a, found, 2.0)
    assert not torch.equal(there, a)
    assert torch.allclose(model.move(there, found, -2.0), a, atol=1e-5)
    assert model.generate([4], c=3)[0].size == (32, 32)
