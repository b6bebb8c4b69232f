"""An opened network with how to draw with it. What it refuses is in test_generate.py, by the flags of the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stylegan.latents.view import View

import stylegan
from stylegan.checkpoints.snapshot import save_snapshot
from stylegan.latents.render import in_words, open_painter
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


@pytest.fixture(scope="module")
def half_grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 16 that fades in its 8x8."""
    path = tmp_path_factory.mktemp("models") / "half.safetensors"
    torch.manual_seed(0)
    G = build_generator(TINY)
    G.mapping.w_avg.normal_()
    save_snapshot(path, G, config=TINY, resolution=8, alpha=0.4, kimg=5.0, data="pictures")
    return path


def test_without_wishes_a_network_draws_as_it_would_itself(half_grown):
    expected = stylegan.load(half_grown).G.render([3, 4])
    assert torch.equal(open_painter(View(str(half_grown))).paint([3, 4]), expected)


def test_every_wish_reaches_the_network(half_grown):
    view = View(str(half_grown), trunc=0.5, trunc_cutoff=2, noise_mode="none", resolution=4)
    G = stylegan.load(half_grown).G
    G.synthesis.grown = (4, 1.0)
    expected = G.render([3], psi=0.5, cutoff=2, noise="none")
    assert torch.equal(open_painter(view).paint([3]), expected)


@pytest.mark.parametrize("wish, grown", [({}, (8, 0.4)), ({"alpha": 1.0}, (8, 1.0)), ({"resolution": 4}, (4, 1.0)),
                                         ({"resolution": 8}, (8, 0.4))])  # fmt: skip
def test_the_network_stands_where_the_view_says(half_grown, wish, grown):
    assert open_painter(View(str(half_grown), **wish)).snapshot.G.synthesis.grown == grown


def test_the_words_tell_of_the_network(half_grown):
    network, pictures, truncation = in_words(open_painter(View(str(half_grown), trunc_cutoff=2)), 7)
    assert str(half_grown) in network and "5 kimg of pictures" in network
    assert pictures.endswith("7 of 8x8, RGB, of which the last step at 0.40")
    assert truncation.endswith("0.7 in 2 layers")
