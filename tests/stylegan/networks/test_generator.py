"""Seeds become images, the same ones always."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stylegan.networks.base import Generator
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_generator
from stylegan.networks.sampling import z_for_seeds
from stylegan.networks.stylegan1 import StyleGAN1Config
from tests.stylegan.tiny import TINY
from torch_utils.errors import UserError
from torch_utils.images import to_uint8

USUAL = StyleGAN1Config(resolution=64, fmap_base=4096, fmap_max=128, num_classes=3)


def network(cfg: StyleGAN1Config) -> Generator:
    """With averages, biases and noise strengths that are not zero, as after training."""
    torch.manual_seed(0)
    net = build_generator(cfg).eval().requires_grad_(False)
    for name, value in net.state_dict().items():
        if name.endswith(("bias", "noise_strength", "w_avg")):
            value.normal_(std=0.3)
    return net


def shown(cfg: StyleGAN1Config, stage: Stage | None = None) -> Renderer:
    return Renderer.of(network(cfg), stage or cfg.full)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_seed_is_the_same_image_to_the_last_bit_for_any_batch_and_number_of_threads(threads):
    renderer, seeds = shown(USUAL), list(range(9))
    c = torch.arange(9) % 3
    threads(1)
    expected = renderer.render(seeds, c, noise="random", batch=1)
    assert len(np.unique(to_uint8(expected))) > 100
    for count, batch in [(1, 8), (2, 3), (3, 8), (2, 1)]:
        threads(count)
        assert torch.equal(renderer.render(seeds, c, noise="random", batch=batch), expected)
        assert torch.get_num_threads() == count
    assert torch.equal(renderer.render([7, 2], c[[7, 2]], noise="random"), expected[[7, 2]])


CONFIGS = [
    TINY, replace(TINY, base=(4, 6), channels=1), replace(TINY, styles=False, const_input=False),
    ProGANConfig(resolution=16, fmap_max=16),
]  # fmt: skip


@pytest.mark.parametrize("cfg", CONFIGS)
@pytest.mark.parametrize("stage", [None, Stage(16, 0.7), Stage(8, 0.4), Stage(4)])
def test_render_is_forward_one_by_one(cfg, stage):
    renderer, wanted = shown(cfg, stage), stage or Stage(16)
    net, psi = renderer.G, renderer.G.default_psi
    images = renderer.render([3, 4])
    assert images.shape == (2, cfg.channels, *cfg.size(wanted.resolution)) and images.shape[2:] == renderer.size
    expected = net(z_for_seeds([3, 4], cfg.z_dim), psi=psi, stage=stage)
    torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-4)
    assert renderer.render([]).shape == (0, cfg.channels, *renderer.size)


def test_render_leaves_no_trace():
    renderer = shown(TINY)
    before = {name: value.clone() for name, value in renderer.G.state_dict().items()}
    random_before = torch.get_rng_state()
    assert not renderer.render([0], noise="random").requires_grad
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(torch.equal(value, before[name]) for name, value in renderer.G.state_dict().items())


def test_renderers_of_one_network_at_several_stages_do_not_disturb_each_other():
    net = network(TINY)
    stages = [Stage(8, 0.4), Stage(16), Stage(4)]
    renderers = [Renderer.of(net, stage) for stage in stages]
    first = [renderer.render([5]) for renderer in renderers]
    assert [image.shape[2] for image in first] == [8, 16, 4]
    assert all(torch.equal(a, b.render([5])) for a, b in zip(first, renderers))
    assert [m.shape[2] for m in renderers[0].noise_of([5])] == [4, 4, 8, 8]


@pytest.mark.parametrize("cfg", CONFIGS)
def test_every_layer_gets_the_same_w(cfg):
    w = torch.randn(2, cfg.ws_dim)
    assert torch.equal(network(cfg).broadcast(w), torch.stack([w] * cfg.num_ws, dim=1))


def test_truncation_ends_at_the_average_face():
    renderer = shown(TINY)
    net = renderer.G
    assert torch.equal(*renderer.render([1, 2], psi=0.0))
    average = net.synthesis(net.broadcast(net.mapping.w_avg[None]))
    torch.testing.assert_close(renderer.render([1], psi=0.0), average, rtol=1e-3, atol=1e-4)
    assert not torch.equal(renderer.render([1], psi=0.7, cutoff=2), renderer.render([1], psi=0.7))
    assert torch.equal(renderer.render([1], psi=0.7, cutoff=0), renderer.render([1], psi=1.0))


def test_truncation_ends_at_the_average_of_the_class():
    renderer = shown(replace(TINY, num_classes=3))
    net = renderer.G
    assert torch.equal(*renderer.render([1, 2], torch.tensor([2, 2]), psi=0.0))
    averages = renderer.draw(net.broadcast(net.mapping.w_avg))
    assert torch.equal(renderer.render([1, 1, 1], torch.arange(3), psi=0.0), averages)
    assert not torch.equal(averages[0], averages[1])
    between = net.mapping.centre(torch.tensor([[0.25, 0, 0.75]]))
    torch.testing.assert_close(between[0], net.mapping.w_avg[0] * 0.25 + net.mapping.w_avg[2] * 0.75)


def test_a_single_average_is_taken_for_that_of_every_class():
    old = network(replace(TINY, num_classes=3)).state_dict()
    old["mapping.w_avg"] = torch.arange(float(TINY.w_dim))
    net = network(replace(TINY, num_classes=3))
    net.load_state_dict(old)
    assert torch.equal(net.mapping.w_avg, old["mapping.w_avg"].expand(3, -1))
    assert old["mapping.w_avg"].ndim == 1, "whose state it is keeps it as it was"


def test_classes():
    renderer = shown(replace(TINY, num_classes=3))
    zero, two = renderer.render([4, 4], torch.tensor([0, 2]))
    assert not torch.equal(zero, two)
    for wrong in (None, torch.tensor([3]), torch.tensor([-1])):
        with pytest.raises(UserError, match="0 to 2"):
            renderer.render([4], wrong)
    with pytest.raises(UserError, match="unconditional"):
        shown(TINY).render([4], torch.tensor([0]))


def test_a_blend_of_classes_lies_between_them():
    net, z = network(replace(TINY, num_classes=2, normalize_z=False, mapping_layers=0, w_dim=16)), torch.zeros(1, 8)
    a, b = net.mapping(z, torch.tensor([0])), net.mapping(z, torch.tensor([1]))
    torch.testing.assert_close(net.mapping(z, torch.tensor([[0.5, 0.5]])), (a + b) / 2)


def test_mapping_without_layers_needs_matching_widths():
    with pytest.raises(UserError, match="w_dim"):
        network(replace(TINY, mapping_layers=0, w_dim=9))


def test_ws_are_drawn_with_their_own_noise_one_by_one():
    renderer = shown(USUAL)
    ws = renderer.map(torch.randn(3, 512), torch.eye(3))
    maps = renderer.noise_of([5, 6, 7])
    images = renderer.draw(ws, maps)
    assert torch.equal(renderer.draw(ws[1:2], [m[1:2] for m in maps]), images[1:2])
    shared, copied = [m[:1] for m in maps], [m[:1].expand(2, -1, -1, -1) for m in maps]
    assert torch.equal(renderer.draw(ws, shared)[1:], renderer.draw(ws[1:], copied))
    assert not torch.equal(renderer.draw(ws), images) and not torch.equal(renderer.draw(ws), renderer.draw(ws, "none"))
