"""The synthesis network grows, and does nothing else than what its arguments say."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from ops.resample import upsample_nearest
from stylegan.networks.base import Generator
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config, SynthesisNetwork
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=32, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=128, fmap_max=16)
CONFIGS = {
    "stylegan": TINY,
    "4x6": replace(TINY, base=(4, 6)),
    "3x5": replace(TINY, base=(3, 5), channels=4),
    "grey": replace(TINY, channels=1),
    "no styles": replace(TINY, styles=False, const_input=False),
    "styles, dense input": replace(TINY, const_input=False),
    "no noise": replace(TINY, noise=False),
    "pixel norm": replace(TINY, pixel_norm=True),
    "no instance norm": replace(TINY, instance_norm=False),
    "only pixel norm": replace(TINY, pixel_norm=True, instance_norm=False),
    "no blur": replace(TINY, blur=()),
    "wide blur": replace(TINY, blur=(1, 3, 3, 1)),
    "relu": replace(TINY, activation="relu"),
    "progan": ProGANConfig(resolution=32, z_dim=8, fmap_base=128, fmap_max=16),
}
every_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


def generator(cfg: StyleGAN1Config) -> Generator:
    """With biases and noise strengths that are not zero, as after training."""
    torch.manual_seed(0)
    G = build_generator(cfg)
    for name, parameter in G.synthesis.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            torch.nn.init.normal_(parameter, std=0.3)
    return G


def network(cfg: StyleGAN1Config) -> SynthesisNetwork:
    net = generator(cfg).synthesis
    assert isinstance(net, SynthesisNetwork)
    return net


def latents(cfg: StyleGAN1Config, n: int = 2) -> torch.Tensor:
    return torch.randn(n, cfg.num_ws, cfg.w_dim, generator=torch.Generator().manual_seed(1))


@every_config
def test_it_builds_and_draws_at_every_resolution(cfg):
    net = network(cfg)
    for resolution in cfg.resolutions:
        image = net(latents(cfg), Stage(resolution))
        assert image.shape == (2, cfg.channels, *cfg.size(resolution))
        assert torch.isfinite(image).all()


@every_config
@pytest.mark.parametrize("resolution", [8, 32])
def test_a_fade_starts_where_the_smaller_network_ended_and_ends_at_the_larger(cfg, resolution):
    net, ws = network(cfg), latents(cfg)
    start, end = upsample_nearest(net(ws, Stage(resolution // 2))), net(ws, Stage(resolution))
    torch.testing.assert_close(net(ws, Stage(resolution, 0.0)), start)
    torch.testing.assert_close(net(ws, Stage(resolution, 1.0)), end)
    torch.testing.assert_close(net(ws, Stage(resolution, 0.25)), 0.75 * start + 0.25 * end)


@every_config
def test_without_a_stage_it_draws_at_its_full_size(cfg):
    net, ws = network(cfg), latents(cfg)
    net(ws, Stage(8, 0.4))  # which leaves nothing behind
    assert torch.equal(net(ws), net(ws, Stage(32)))
    assert torch.equal(net(ws, Stage(8)), net(ws, Stage(8, 1.0)))
    assert net(ws).shape[2:] == cfg.size(32) and not torch.equal(net(ws), net(ws, Stage(32, 0.7)))


def test_the_generator_hands_the_stage_on():
    G, z = generator(TINY), torch.randn(2, 8)
    for stage in (None, Stage(16, 0.4)):
        assert torch.equal(G(z, stage=stage), G.synthesis(G.latents(z), stage))


@every_config
def test_drawing_has_no_side_effects(cfg):
    net, ws = network(cfg), latents(cfg)
    before, random_before = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    first = net.train()(ws, Stage(16, 0.5))
    assert torch.equal(first, net.eval()(ws, Stage(16, 0.5)))
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_noise_modes():
    net, ws = network(TINY), latents(TINY)
    assert torch.equal(net(ws), net(ws, noise="const"))
    stored = [layer.noise for res in TINY.resolutions for layer in net.blocks[str(res)].children()]
    assert torch.equal(net(ws), net(ws, noise=stored))
    assert torch.equal(net(ws, Stage(8)), net(ws, Stage(8), noise=stored[:4]))
    torch.testing.assert_close(net(ws, noise="none"), net(ws, noise=[torch.zeros_like(m) for m in stored]))
    torch.manual_seed(7)
    first = net(ws, noise="random")
    assert not torch.equal(first, net(ws, noise="random"))
    torch.manual_seed(7)
    assert torch.equal(first, net(ws, noise="random"))
    same = latents(TINY, 1).expand(2, -1, -1)
    assert not torch.equal(*net(same, noise="random"))  # a map for each image
    for bad in ("loud", stored[:3]):
        with pytest.raises(ValueError, match="noise"):
            net(ws, noise=bad)


def test_each_style_layer_listens_to_its_own_row():
    net, ws = network(TINY), latents(TINY, 1)
    whole = net(ws, Stage(16))
    for row in range(TINY.num_ws):
        other = ws.clone()
        other[:, row] += 1
        assert torch.equal(net(other, Stage(16)), whole) == (row >= 6)  # the last two rows belong to 32x32


@every_config
def test_every_weight_that_shows_learns(cfg):
    net = network(cfg)
    net(latents(cfg), Stage(32, 0.5)).square().sum().backward()
    hidden = {f"to_rgb.{res}.{kind}" for res in (4, 8) for kind in ("weight", "bias")}
    for name, parameter in net.named_parameters():
        silent = parameter.grad is None or not parameter.grad.abs().max() > 0
        assert silent == (name in hidden), name


@pytest.mark.parametrize("cfg", [TINY, CONFIGS["4x6"], CONFIGS["progan"]])
def test_bfloat16_is_close(cfg):
    net, ws = network(cfg), latents(cfg, 4)
    exact, rough = net(ws), net(ws, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize("cfg", [cfg for cfg in CONFIGS.values() if cfg.styles])
def test_an_edit_is_added_to_the_style_and_nothing_else_changes(cfg):
    G, ws = generator(cfg), latents(cfg)
    net = G.synthesis
    styles = G.styles(ws)
    assert [s.shape[1] for s in styles] == cfg.style_dims()
    edits = [torch.randn(1, size) for size in cfg.style_dims()]
    expected = net(ws)
    assert torch.equal(net(ws, edits=[0 * e for e in edits]), expected)
    edited = net(ws, edits=edits)
    assert not torch.allclose(edited, expected)
    with torch.no_grad():
        for layer, edit in zip(net.style_layers(), edits):
            layer.style.bias += edit[0]
    torch.testing.assert_close(net(ws), edited, rtol=2e-3, atol=2e-3)  # sums are rounded in another order


@pytest.mark.parametrize("cfg", [cfg for cfg in CONFIGS.values() if cfg.styles])
def test_a_style_is_the_weight_times_w_and_the_bias(cfg):
    G, ws = generator(cfg), latents(cfg)
    for layer, (own, style) in enumerate(zip(G.synthesis.style_layers(), G.styles(ws))):
        w = ws[:, cfg.layers[layer].row]
        torch.testing.assert_close(w @ G.style_weight(layer).T + own.style.bias, style, rtol=1e-4, atol=1e-5)


def test_own_noise_is_that_of_the_layers_that_have_some():
    G = generator(TINY)
    assert [tuple(maps.shape) for maps in G.own_noise()] == [(1, 1, *size) for size in TINY.noise_shapes(32)]
    assert all(a is b.noise for a, b in zip(G.own_noise(), G.synthesis.style_layers()))
    assert generator(CONFIGS["no noise"]).own_noise() == generator(CONFIGS["progan"]).own_noise() == []


@pytest.mark.parametrize("name", ["progan", "no styles"])
@pytest.mark.parametrize(
    "ask", [lambda G, ws: G.styles(ws), lambda G, ws: G.style_weight(0), lambda G, ws: G.activations(ws, 0)]
)
def test_a_network_without_styles_says_so(name, ask):
    with pytest.raises(UserError, match="no styles"):
        ask(generator(CONFIGS[name]), latents(CONFIGS[name]))
