"""The model that comes with the engine draws what it says."""

from __future__ import annotations

import numpy as np
import torch

import stylegan
from stylegan.directions.search import unsupervised
from stylegan.directions.settings import Labels, Search
from torch_utils.images import to_uint8
from training.archive import Archive


def test_digits32_draws_the_digits_that_it_is_asked_for():
    """Told apart by the nearest of the ten average digits, which is right about 82 % of real ones."""
    snap = stylegan.load("digits32")
    assert snap.config.num_classes == 10 and snap.D is not None and snap.data == "mnist"
    archive = Archive.open("mnist")
    labels = np.asarray(archive.labels)[:2000]
    real = np.stack([archive.read(i)[..., 0] for i in range(2000)]).astype(np.float32)
    means = np.stack([real[labels == k].mean(0) for k in range(10)])
    asked = torch.arange(100) % 10
    made = to_uint8(snap.G.render(range(100), c=asked))[..., 0].astype(np.float32)
    nearest = ((made[:, None] - means) ** 2).sum((2, 3)).argmin(1)
    assert (nearest == asked.numpy()).mean() > 0.8


def test_a_model_is_explored_as_it_is_loaded() -> None:
    G = stylegan.load("digits32")
    a, b = (G.G.map(torch.randn(1, G.config.z_dim), c=torch.tensor([c])) for c in (3, 8))
    assert torch.equal(G.mix(a, b, []), a)
    found = unsupervised(Search(method="sefa", count=1, labels=Labels(classes=range(10))), G, G.resolution)
    there = G.move(a, found, 2.0)
    assert not torch.equal(there, a)
    assert torch.allclose(G.move(there, found, -2.0), a, atol=1e-5)
    assert G.generate([4], c=3)[0].size == (32, 32)
