"""The record that describes a network."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import config_from_json
from stylegan.networks.stylegan1 import StyleGAN1Config
from stylegan.networks.stylegan2 import StyleGAN2Config
from torch_utils.errors import UserError


@pytest.mark.parametrize(
    "cfg",
    [
        StyleGAN1Config(),
        StyleGAN1Config(base=(4, 6), blur=(), num_classes=7),
        ProGANConfig(resolution=32),
        StyleGAN2Config(resample_filter=(1, 2, 1), conv_clamp=256.0, cmap_dim=3),
    ],
)
def test_it_survives_json(cfg):
    again = config_from_json(json.loads(json.dumps(cfg.to_json())))
    assert again == cfg and type(again) is type(cfg)
    assert hash(again) == hash(cfg)  # lists have become tuples again


@pytest.mark.parametrize("change", [{"colour": 3}, {"z_dim": "512"}, {"blur": 3}, {"family": "biggan"}, {"base": [4]}])
def test_from_json_refuses_what_it_does_not_know(change):
    with pytest.raises(UserError, match=next(iter(change))):
        config_from_json(StyleGAN1Config().to_json() | change)


def test_settings_that_name_no_family_are_those_of_a_stylegan():
    """As in the first files of this project."""
    plain = StyleGAN1Config(resolution=64).to_json()
    del plain["family"]
    assert config_from_json(plain) == StyleGAN1Config(resolution=64)
    for wrong in ([], "stylegan", {"family": 3}, {"family": ["stylegan"]}):
        with pytest.raises(UserError, match="setting"):
            config_from_json(wrong)


@pytest.mark.parametrize("resolution", [-4, 0, 2, 3, 6, 12, 100, 1023])
def test_resolutions_that_do_not_exist(resolution):
    with pytest.raises(UserError, match=str(resolution)):
        StyleGAN1Config(resolution=resolution)


@given(st.integers(0, 8), st.integers(1, 9), st.integers(1, 9))
def test_sizes_and_nominal_resolutions_are_inverse(doublings, height, width):
    cfg = StyleGAN1Config(resolution=4 << doublings, base=(height, width))
    assert len(cfg.layers) == cfg.num_ws == 2 * len(cfg.resolutions) == 2 * (doublings + 1)
    assert cfg.full == Stage(cfg.resolution, 1.0) and cfg.stages == cfg.resolutions
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


EVERY = [
    StyleGAN1Config(resolution=64, base=(4, 6)),
    StyleGAN1Config(resolution=64, styles=False, const_input=False),
    StyleGAN1Config(resolution=32, noise=False),
    ProGANConfig(resolution=32, num_classes=3, z_dim=8),
]


@pytest.mark.parametrize("cfg", EVERY)
def test_layers_tell_what_a_network_is_made_of(cfg: NetworkConfig):
    """Sizes of noise maps and styles, and rows of ws, are those of the layers, up to any resolution."""
    assert [layer.resolution for layer in cfg.layers] == [res for res in cfg.resolutions for _ in (0, 1)]
    for resolution in cfg.resolutions:
        layers = cfg.layers_at(resolution)
        assert layers == cfg.layers[: len(layers)] and layers[-1].resolution == resolution
        assert cfg.noise_shapes(resolution) == ([cfg.size(layer.resolution) for layer in layers] if cfg.noise else [])
        assert cfg.style_dims(resolution) == ([2 * cfg.nf(layer.resolution) for layer in layers] if cfg.styles else [])
    assert cfg.style_dims() == cfg.style_dims(cfg.resolution)
    fed = [layer for row in range(cfg.num_ws) for layer in cfg.layers_of_rows([row])]
    assert sorted(fed) == list(range(len(cfg.layers)))  # each by one row


def test_what_progan_is_fed_with_follows_from_z_and_the_classes():
    cfg = ProGANConfig(resolution=32, z_dim=20, num_classes=3)
    assert (cfg.ws_dim, cfg.w_dim, cfg.num_ws) == (23, 23, 1)
    assert StyleGAN1Config(w_dim=20).ws_dim == 20
