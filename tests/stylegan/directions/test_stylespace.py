"""The channel that an attribute was made from is the one that is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan.config import ModelConfig
from stylegan.directions.stylespace import as_directions, responding, styles_of
from stylegan.networks import build_generator
from torch_utils.errors import UserError

TINY = ModelConfig(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


def test_styles_are_those_that_the_layers_use():
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    w = torch.randn(5, 8)
    found = styles_of(G, w.split(2))
    assert [s.shape[1] for s in found] == G.synthesis.style_sizes() and len(found[0]) == 5
    torch.testing.assert_close(found[3], G.synthesis.style_layer(3).style(w))


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
