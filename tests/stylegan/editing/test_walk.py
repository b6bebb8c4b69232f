"""Ways along directions: which pictures they are made of, and in what order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.directions import in_w, moved
from stylegan.editing.walk import along, drawn, film, there_and_back
from stylegan.latents.render import View
from stylegan.latents.sources import of_seeds
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.images import to_uint8
from torch_utils.progress import Progress

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


@pytest.fixture(scope="module")
def view() -> View:
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    return View.of(Snapshot(G, None, TINY, TINY.full, 1.0, "faces"), psi=1.0)


def test_strengths_change_fastest_then_directions_then_pictures(view):
    start = of_seeds([3, 8], view)
    directions = in_w(torch.randn(2, 8), ["a", "b"], range(6), "chance", torch.eye(8).double())
    ways = along(start, directions, [-1.0, 0.0, 2.0])
    assert len(ways) == 12 and ways.names[:6] == ("seed0003-1a", "seed0003", "seed0003+2a", "seed0003-1b",
                                                  "seed0003-2", "seed0003+2b")  # fmt: skip
    assert torch.equal(ways.ws[8], moved(start[1:], directions[:1], 2.0).ws[0])
    assert torch.equal(ways.ws[7], start.ws[1])
    pixels = drawn(ways, view, 5, Progress("", quiet=True))
    np.testing.assert_array_equal(pixels[[1, 4]], to_uint8(view.render([3, 3])))
    np.testing.assert_array_equal(pixels, drawn(ways, view, 12, Progress("", quiet=True)))


def test_a_film_goes_there_and_back(view):
    strengths = there_and_back([-1.0, 3.0, 0.0], 8)
    assert len(strengths) == 8 and strengths[0] == -1 and strengths[4] == 3
    np.testing.assert_allclose(strengths[1:4], strengths[:4:-1])
    start = of_seeds([3, 8], view)
    direction = in_w(torch.randn(1, 8), ["a"], range(6), "chance", torch.eye(8).double())
    frames = list(film(start, direction, strengths, None, view, 2, Progress("", quiet=True)))
    assert len(frames) == 8 and frames[0].shape == (16, 32, 3)
    np.testing.assert_array_equal(frames[1], frames[7])
