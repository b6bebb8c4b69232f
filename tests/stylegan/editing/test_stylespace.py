"""The channel that an attribute was made from is the one that is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan.editing.stylespace import (
    Channel,
    channel_directions,
    channels_by_difference,
    channels_by_gradient,
    styles_of,
)
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.registry import build_generator
from tests.stylegan.tiny import TINY
from torch_utils.errors import UserError


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
    styles = [torch.randn(300, size) * 5 for size in TINY.style_dims()]
    has = (sign * styles[1][:, 19]).numpy() > 0
    found = channels_by_difference(styles, np.flatnonzero(has), np.flatnonzero(~has), 3)
    first = found[0]
    assert (first.layer, first.index) == (1, 19) and first.effect * sign > 2
    assert first.spread == pytest.approx(float(styles[1][:, 19].std()), rel=1e-4)
    assert [abs(c.effect) for c in found] == sorted((abs(c.effect) for c in found), reverse=True)
    directions = channel_directions(found, TINY, "test")
    assert directions.styles[1][0].nonzero().tolist() == [[19]] and directions.styles[1][0, 19] == sign
    assert directions.names[0] == "layer 1 shift 3" and not any(s[0].any() for s in directions.styles[2:])
    assert directions.layers[0] == (1,) and not directions.vectors.any() and len(directions) == 3
    assert directions.vectors.shape == (3, 1, 8)


def test_more_channels_than_there_are():
    with pytest.raises(UserError, match="there are 4 channels, not 5"):
        channels_by_difference([torch.randn(9, 4)], np.arange(4), np.arange(4, 9), 5)


@pytest.mark.parametrize("stage", [Stage(16), Stage(8, 0.4)])
def test_the_channel_that_changes_a_score_most_comes_first(stage):
    """The effect of a channel is the slope of the score along it, for one standard deviation."""
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    ws = G.broadcast(torch.randn(12, 8))
    styles = styles_of(G, [torch.randn(50, 8)])[: len(TINY.layers_at(stage.resolution))]
    done: list[int] = []

    def score(images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].mean(dim=(1, 2)) * 3

    found = channels_by_gradient(G, stage, ws.split(5), styles, score, 4, done.append)
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
        channels_by_gradient(G, stage, [ws], styles, score, 9999, done.append)


def test_the_network_says_what_its_channels_are_called():
    found = [Channel(3, 5, 1.0, 2.0), Channel(3, 8 + 5, -1.0, 2.0)]
    assert TINY.style_dims()[3] == 16
    assert channel_directions(found, TINY, "test").names == ("layer 3 scale 5", "layer 3 shift 5")
    assert NetworkConfig.style_channel_name(TINY, 3, 13) == "layer 3 channel 13"
