"""Seeds become pictures, the same ones always."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stylegan.networks.base import Generator
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_generator
from stylegan.networks.sampling import z_for_seeds
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from torch_utils.images import to_uint8

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
USUAL = StyleGAN1Config(resolution=64, fmap_base=4096, fmap_max=128, num_classes=3)


def network(cfg: StyleGAN1Config) -> Generator:
    """With averages, biases and noise strengths that are not zero, as after training."""
    torch.manual_seed(0)
    net = build_generator(cfg).eval().requires_grad_(False)
    for name, value in net.state_dict().items():
        if name.endswith(("bias", "noise_strength", "w_avg")):
            value.normal_(std=0.3)
    return net


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_seed_is_the_same_picture_to_the_last_bit_whatever_the_batch_and_the_threads(threads):
    net, seeds = network(USUAL), list(range(9))
    c = torch.arange(9) % 3
    threads(1)
    expected = net.render(seeds, c=c, noise="random", batch=1)
    assert len(np.unique(to_uint8(expected))) > 100
    for count, batch in [(1, 8), (2, 3), (3, 8), (2, 1)]:
        threads(count)
        assert torch.equal(net.render(seeds, c=c, noise="random", batch=batch), expected)
        assert torch.get_num_threads() == count
    assert torch.equal(net.render([7, 2], c=c[[7, 2]], noise="random"), expected[[7, 2]])


@pytest.mark.parametrize(
    "cfg", [TINY, replace(TINY, base=(4, 6), channels=1), ProGANConfig(resolution=16, fmap_max=16)]
)
def test_render_is_forward_one_by_one(cfg):
    net = network(cfg)
    psi = net.default_psi
    pictures = net.render([3, 4])
    assert pictures.shape == (2, cfg.channels, *cfg.size(16))
    torch.testing.assert_close(pictures, net(z_for_seeds([3, 4], cfg.z_dim), psi=psi), rtol=1e-3, atol=1e-4)
    assert net.render([]).shape == (0, cfg.channels, *cfg.size(16))


def test_render_leaves_no_trace():
    net = network(TINY)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random_before = torch.get_rng_state()
    assert not net.render([0], noise="random").requires_grad
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_half_grown_networks_draw_as_far_as_they_have_grown():
    net = network(TINY)
    net.synthesis.grown = (8, 0.4)
    picture = net.render([5], psi=1.0, noise="none")
    expected = net(z_for_seeds([5], 8), resolution=8, alpha=0.4, noise="none")
    torch.testing.assert_close(picture, expected, rtol=1e-3, atol=1e-4)
    assert net.generate([5])[0].size == (8, 8)


def test_truncation_ends_at_the_average_face():
    net = network(TINY)
    assert torch.equal(*net.render([1, 2], psi=0.0))
    average = net.synthesis(net.broadcast(net.mapping.w_avg[None]))
    torch.testing.assert_close(net.render([1], psi=0.0), average, rtol=1e-3, atol=1e-4)
    assert not torch.equal(net.render([1], psi=0.7, cutoff=2), net.render([1], psi=0.7))
    assert torch.equal(net.render([1], psi=0.7, cutoff=0), net.render([1], psi=1.0))


def test_truncation_ends_at_the_average_of_the_class():
    net = network(replace(TINY, num_classes=3))
    assert torch.equal(*net.render([1, 2], psi=0.0, c=torch.tensor([2, 2])))
    averages = net.draw(net.broadcast(net.mapping.w_avg))
    assert torch.equal(net.render([1, 1, 1], psi=0.0, c=torch.arange(3)), averages)
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


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_generate_gives_pil_pictures(channels, mode):
    net = network(replace(TINY, channels=channels, base=(4, 6)))
    first, second = net.generate([0, 1])
    assert (first.mode, first.size) == (mode, (24, 16))
    assert first.tobytes() != second.tobytes()
    assert net.generate([1])[0].tobytes() == second.tobytes()
    assert net.generate([1], psi=0.7)[0].tobytes() == second.tobytes()


def test_classes():
    net = network(replace(TINY, num_classes=3))
    zero, two = net.generate([4, 4], c=[0, 2])
    assert zero.tobytes() != two.tobytes()
    assert net.generate([4], c=2)[0].tobytes() == two.tobytes()
    for wrong in (None, 3, -1):
        with pytest.raises(UserError, match="0 to 2"):
            net.generate([4], c=wrong)
    with pytest.raises(UserError, match="unconditional"):
        network(TINY).generate([4], c=0)


def test_a_blend_of_classes_lies_between_them():
    net, z = network(replace(TINY, num_classes=2, normalize_z=False, mapping_layers=0, w_dim=16)), torch.zeros(1, 8)
    a, b = net.mapping(z, torch.tensor([0])), net.mapping(z, torch.tensor([1]))
    torch.testing.assert_close(net.mapping(z, torch.tensor([[0.5, 0.5]])), (a + b) / 2)


def test_mapping_without_layers_needs_matching_widths():
    with pytest.raises(UserError, match="w_dim"):
        network(replace(TINY, mapping_layers=0, w_dim=9))


def test_mix_and_generate_take_seeds_and_ws_alike():
    net = network(TINY)
    ws = net.map(z_for_seeds([3, 4], 8))
    assert [p.tobytes() for p in net.generate(ws)] == [p.tobytes() for p in net.generate([3, 4])]
    assert torch.equal(net.mix([3, 4], [7], "coarse"), net.mix(ws, net.map(z_for_seeds([7], 8)), [0, 1, 2, 3]))
    assert torch.equal(net.mix([3, 4], [7], []), ws)
    with pytest.raises(UserError, match="6 layers"):
        net.mix([3], [4], "0-6")


def test_ws_are_drawn_with_the_noise_given_and_alone():
    net = network(USUAL)
    ws = net.map(torch.randn(3, 512), c=torch.eye(3))
    maps = net.noise_of([5, 6, 7])
    pictures = net.draw(ws, maps)
    assert torch.equal(net.draw(ws[1:2], [m[1:2] for m in maps]), pictures[1:2])
    assert torch.equal(
        net.draw(ws, [m[:1] for m in maps])[1:], net.draw(ws[1:], [m[:1].expand(2, -1, -1, -1) for m in maps])
    )
    assert not torch.equal(net.draw(ws), pictures) and not torch.equal(net.draw(ws), net.draw(ws, "none"))
