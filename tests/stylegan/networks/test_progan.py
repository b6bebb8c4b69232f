"""ProGAN is used as StyleGAN is, but for what needs a w."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stylegan.networks.base import require_w
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.progan import ProGANConfig, ProGANGenerator
from stylegan.networks.registry import build_discriminator, build_generator
from torch_utils.errors import UserError


def tiny(num_classes: int = 0) -> ProGANGenerator:
    torch.manual_seed(0)
    net = build_generator(ProGANConfig(resolution=16, z_dim=6, num_classes=num_classes, fmap_base=64, fmap_max=8))
    assert isinstance(net, ProGANGenerator)
    return net


def test_the_same_seed_is_the_same_image_at_any_batch_size() -> None:
    shown = Renderer.of(tiny(), Stage(16))
    both = shown.render([3, 4], psi=1.0)
    assert both.shape == (2, 3, 16, 16)
    assert torch.equal(both[1:], shown.render([4], psi=1.0))
    assert torch.equal(both, shown.render([3, 4]))  # as there is no w, nothing is truncated where nobody asks for it


def test_the_length_of_z_does_not_matter() -> None:
    net, z = tiny(), torch.randn(2, 6)
    torch.testing.assert_close(net(4 * z), net(z), rtol=1e-4, atol=1e-4)


def test_a_fade_starts_where_the_smaller_network_ended() -> None:
    net, z = tiny(), torch.randn(2, 6)
    small = net(z, stage=Stage(8))
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(net(z, stage=Stage(16, 0.0)), large)


def test_the_class_decides_the_image() -> None:
    net, z = tiny(num_classes=3), torch.randn(1, 6).expand(3, -1)
    images = net(z, torch.arange(3))
    assert not torch.allclose(images[0], images[1])
    with pytest.raises(UserError, match="conditional"):
        net(z)


@pytest.mark.parametrize(
    "use",
    [
        lambda net, z: net(z, psi=0.7),
        lambda net, z: net.latents(z, psi=0.0),
        lambda net, z: net.mapping(z),
        lambda net, z: net.mapping.w_avg,
        lambda net, z: net.mapping.centre(),
        lambda net, z: Renderer.of(net, Stage(16)).map(z, psi=0.7),
        lambda net, z: require_w(net),
    ],
)
def test_what_needs_a_w_says_that_there_is_none(use: Callable[[ProGANGenerator, torch.Tensor], object]) -> None:
    with pytest.raises(UserError, match="ProGAN has no w, because it generates images from z directly; "):
        use(tiny(), torch.randn(1, 6))


def test_the_mapping_that_is_not_there_has_no_weights() -> None:
    assert all(name.startswith("synthesis.") for name in tiny().state_dict())


def test_the_discriminator_scores_and_classifies() -> None:
    net = build_discriminator(ProGANConfig(resolution=16, num_classes=3, fmap_base=64, fmap_max=8))
    images = torch.randn(4, 3, 16, 16)
    scores, logits = net.outputs(images)
    assert (scores.shape, logits.shape) == ((4,), (4, 3))
    torch.testing.assert_close(net(images), scores)


def test_every_weight_learns() -> None:
    net = tiny()
    net(torch.randn(4, 6), stage=Stage(16, 0.5)).square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == ["synthesis.to_rgb.4.weight", "synthesis.to_rgb.4.bias"]  # not shown at 16x16
