"""The channel that an attribute was made from is the one that is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan.editing.stylespace import as_directions, responding, steering, styles_of
from stylegan.networks.config import Stage
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


def test_styles_are_those_that_the_layers_use():
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    w = torch.randn(5, 8)
    found = styles_of(G, w.split(2))
    assert [s.shape[1] for s in found] == TINY.style_dims() and len(found[0]) == 5
    torch.testing.assert_close(found[3], G.synthesis.style_layers()[3].style(w))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_channel_behind_an_attribute_comes_first(sign):
    torch.manual_seed(0)
    styles = [torch.randn(300, 6), torch.randn(300, 4) * 5]
    has = (sign * styles[1][:, 3]).numpy() > 0
    found = responding(styles, np.flatnonzero(has), np.flatnonzero(~has), 3)
    first = found[0]
    assert (first.layer, first.index, first.name) == (1, 3, "layer 1 shift 1") and first.effect * sign > 2
    assert first.spread == pytest.approx(float(styles[1][:, 3].std()), rel=1e-4)
    assert [abs(c.effect) for c in found] == sorted((abs(c.effect) for c in found), reverse=True)
    directions = as_directions(found, [6, 4], 8, "test")
    assert directions.styles[1][0].tolist() == [0, 0, 0, sign] and not directions.styles[0][0].any()
    assert directions.layers[0] == (1,) and not directions.vectors.any() and len(directions) == 3


def test_more_channels_than_there_are():
    with pytest.raises(UserError, match="there are 4 channels, not 5"):
        responding([torch.randn(9, 4)], np.arange(4), np.arange(4, 9), 5)


@pytest.mark.parametrize("stage", [Stage(16), Stage(8, 0.4)])
def test_the_channel_that_changes_a_score_most_comes_first(stage):
    """The effect of a channel is the slope of the score along it, for one standard deviation."""
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    ws = G.broadcast(torch.randn(12, 8))
    styles = styles_of(G, [torch.randn(50, 8)])[: len(TINY.layers_at(stage.resolution))]
    done: list[int] = []

    def score(pictures: torch.Tensor) -> torch.Tensor:
        return pictures[:, 0].mean(dim=(1, 2)) * 3

    found = steering(G, stage, ws.split(5), styles, score, 4, done.append)
    assert sum(done) == 12 and [abs(c.effect) for c in found] == sorted((abs(c.effect) for c in found), reverse=True)
    for channel in (found[0], found[3]):
        assert channel.spread == pytest.approx(float(styles[channel.layer][:, channel.index].std()), rel=1e-4)
        step, scores = 1e-2 * channel.spread, []
        for sign in (-1, 1):
            edits = [torch.zeros(1, size) for size in TINY.style_dims()]
            edits[channel.layer][0, channel.index] = sign * step
            scores.append(score(G.synthesis(ws, stage, edits=edits).clamp(-1, 1)).mean())
        assert float(scores[1] - scores[0]) / 2e-2 == pytest.approx(channel.effect, rel=0.05)
    with pytest.raises(UserError, match="channels, not 9999"):
        steering(G, stage, [ws], styles, score, 9999, done.append)
