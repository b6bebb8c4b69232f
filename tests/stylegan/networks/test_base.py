"""The record that describes a network."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.networks.progan import ProGANConfig
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError


@pytest.mark.parametrize(
    "cfg", [StyleGAN1Config(), StyleGAN1Config(base=(4, 6), blur=(), num_classes=7), ProGANConfig(resolution=32)]
)
def test_it_survives_json(cfg):
    again = StyleGAN1Config.from_json(json.loads(json.dumps(cfg.to_json())))
    assert again == cfg
    assert hash(again) == hash(cfg)  # lists have become tuples again


@pytest.mark.parametrize("change", [{"colour": 3}, {"z_dim": "512"}, {"blur": 3}, {"family": "biggan"}, {"base": [4]}])
def test_from_json_refuses_what_it_does_not_know(change):
    with pytest.raises(UserError, match=next(iter(change))):
        StyleGAN1Config.from_json(StyleGAN1Config().to_json() | change)


@pytest.mark.parametrize("resolution", [-4, 0, 2, 3, 6, 12, 100, 1023])
def test_resolutions_that_do_not_exist(resolution):
    with pytest.raises(UserError, match=str(resolution)):
        StyleGAN1Config(resolution=resolution)


@given(st.integers(0, 8), st.integers(1, 9), st.integers(1, 9))
def test_sizes_and_nominal_resolutions_are_inverse(doublings, height, width):
    cfg = StyleGAN1Config(resolution=4 << doublings, base=(height, width))
    assert cfg.num_layers == 2 * len(cfg.resolutions) == 2 * (doublings + 1)
    for k, resolution in enumerate(cfg.resolutions):
        assert cfg.size(resolution) == (height << k, width << k)
        assert cfg.nominal(height << k) == resolution
    with pytest.raises(UserError, match="high"):
        cfg.nominal(height << (doublings + 1))


def test_published_numbers_of_maps():
    assert [StyleGAN1Config().nf(r) for r in (4, 32, 64, 128, 256, 512, 1024)] == [512, 512, 256, 128, 64, 32, 16]


def test_without_styles_there_is_one_w():
    assert StyleGAN1Config(styles=False).num_ws == 1
    assert StyleGAN1Config().num_ws == 18
