"""The discriminator grows as the generator does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ops.resample import upsample_nearest
from stylegan.networks.base import Discriminator
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=32, fmap_base=128, fmap_max=16)
CONFIGS = {
    "stylegan": TINY,
    "4x6": replace(TINY, base=(4, 6)),
    "rgba": replace(TINY, channels=4),
    "grey": replace(TINY, channels=1),
    "no minibatch statistics": replace(TINY, mbstd_group=1),
    "more minibatch statistics": replace(TINY, mbstd_group=2, mbstd_features=4),
    "no blur": replace(TINY, blur=()),
    "conditional": replace(TINY, num_classes=3),
    "progan": ProGANConfig(resolution=32, num_classes=3, fmap_base=128, fmap_max=16),
}
every_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


def network(cfg: StyleGAN1Config) -> Discriminator:
    torch.manual_seed(0)
    net = build_discriminator(cfg)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return net


def random_images(cfg: StyleGAN1Config, resolution: int = 32, n: int = 4) -> torch.Tensor:
    return torch.randn(n, cfg.channels, *cfg.size(resolution), generator=torch.Generator().manual_seed(1))


def classes(cfg: StyleGAN1Config) -> torch.Tensor | None:
    return torch.tensor([0, 2, 1, 0]) if cfg.num_classes else None


@every_config
def test_it_scores_at_every_resolution(cfg):
    net = network(cfg)
    for resolution in cfg.resolutions:
        scores = net(random_images(cfg, resolution), classes(cfg))
        assert scores.shape == (4,)
        assert scores.dtype == torch.float32


@every_config
@pytest.mark.parametrize("resolution", [8, 32])
def test_a_fade_starts_at_the_smaller_networks_scores_and_ends_at_the_larger_ones(cfg, resolution):
    net, c = network(cfg), classes(cfg)
    small = random_images(cfg, resolution // 2)
    start = net(upsample_nearest(small), c, Stage(resolution, 0.0))
    torch.testing.assert_close(start, net(small, c), rtol=1e-4, atol=1e-4)
    large = random_images(cfg, resolution)
    torch.testing.assert_close(net(large, c, Stage(resolution, 1 - 1e-7)), net(large, c), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(net(large, c, Stage(resolution, 0.5)), net(large, c))
    assert torch.equal(net(large, c), net(large, c, Stage(resolution)))


@pytest.mark.parametrize("cfg", [CONFIGS["4x6"], CONFIGS["conditional"], CONFIGS["progan"]])
def test_scoring_has_no_side_effects(cfg):
    net, images, c = network(cfg), random_images(cfg), classes(cfg)
    random_before = torch.get_rng_state()
    assert torch.equal(net.train()(images, c, Stage(32, 0.5)), net.eval()(images, c, Stage(32, 0.5)))
    assert torch.equal(torch.get_rng_state(), random_before)


def test_each_class_has_its_own_score_and_weights_blend_them():
    cfg = CONFIGS["conditional"]
    net, images = network(cfg), random_images(cfg)
    each = torch.stack([net(images, torch.full((4,), k)) for k in range(3)], dim=1)
    assert len(set(each[0].tolist())) == 3
    weights = torch.tensor([[0.2, 0.3, 0.5]]).expand(4, -1)
    torch.testing.assert_close(net(images, weights), (each * weights).sum(1))
    for wrong in (None, torch.full((4,), 3), torch.full((4,), -1)):
        with pytest.raises(UserError, match="0 to 2"):
            net(images, wrong)


def test_the_score_of_an_image_depends_on_its_group():
    net, images = network(TINY), random_images(TINY)
    assert not torch.allclose(net(images)[:1], net(images[:1]))
    single = network(CONFIGS["no minibatch statistics"])
    torch.testing.assert_close(single(images)[:1], single(images[:1]), rtol=1e-4, atol=1e-5)


def test_images_of_another_size():
    with pytest.raises(UserError, match="24 pixels"):
        network(TINY)(torch.zeros(1, 3, 24, 24))


@every_config
def test_it_can_be_differentiated_twice_as_r1_does(cfg):
    net, images = network(cfg), random_images(cfg).requires_grad_()
    (grad,) = torch.autograd.grad(net(images, classes(cfg), Stage(32, 0.5)).sum(), images, create_graph=True)
    grad.square().sum().backward()
    names = [name for name, p in net.named_parameters() if name.startswith("blocks.") and name.endswith("weight")]
    assert all(net.get_parameter(name).grad.abs().max() > 0 for name in names)


def test_bfloat16_is_close():
    net, images = network(TINY), random_images(TINY, n=8)
    exact, rough = net(images), net(images, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * max(1.0, exact.abs().max().item())
