"""A folded generator draws the same images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stylegan.networks.config import Stage
from stylegan.networks.inference import folded
from stylegan.networks.layers import Foldable
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
CONFIGS = [
    TINY,
    replace(TINY, const_input=False, pixel_norm=True, num_classes=3),
    ProGANConfig(resolution=16, fmap_max=16),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cfg", CONFIGS)
def test_it_draws_the_same(cfg, dtype):
    torch.manual_seed(0)
    G, z = build_generator(cfg), torch.randn(2, cfg.z_dim)
    c = torch.tensor([0, 2]) if cfg.num_classes else None
    for resolution, alpha in [(16, 1.0), (8, 0.3)]:
        how = {"stage": Stage(resolution, alpha), "dtype": dtype}
        assert torch.equal(folded(G, dtype)(z, c, **how), G(z, c, **how))
        with torch.no_grad():
            ours, plain = folded(G, dtype, batch=2)(z, c, **how).float(), G(z, c, **how).float()
        assert (ours - plain).norm() <= (1e-5 if dtype == torch.float32 else 2**-6) * plain.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_discriminator_sees_the_same_to_the_last_bit(dtype):
    torch.manual_seed(0)
    D, x = build_discriminator(TINY), torch.randn(2, 3, 16, 16)
    kept = folded(D, dtype)
    stage = Stage(16, 0.3)
    before = list(kept.features(x, stage, dtype))
    assert all(map(torch.equal, before, D.features(x, stage, dtype)))
    torch.testing.assert_close(kept(x, stage=stage, dtype=dtype), D(x, stage=stage, dtype=dtype))
    with torch.no_grad():
        D.blocks["16"].conv1.weight.add_(1)
    assert all(map(torch.equal, before, kept.features(x, stage, dtype)))
    assert not torch.equal(before[1], list(D.features(x, stage, dtype))[1])


def test_kernels_lie_as_convolutions_read_them():
    for network in (build_generator(TINY), build_discriminator(TINY)):
        layers = [m for m in folded(network).modules() if isinstance(m, Foldable)]
        kernels = [t for layer in layers for t in layer.effective(torch.float32) if t.ndim == 4]
        assert len(kernels) >= 6 and all(t.is_contiguous(memory_format=torch.channels_last) for t in kernels)


@pytest.mark.parametrize("batch", [None, 2])
@torch.no_grad()
def test_it_stays_as_it_is_when_the_generator_learns(batch):
    torch.manual_seed(0)
    G, z = build_generator(TINY), torch.randn(2, 8)
    copied = folded(G, batch=batch)
    before = copied(z)
    for layer in (G.mapping.layers[0], G.synthesis.blocks["8"][0], G.synthesis.to_rgb["16"]):
        layer.weight.add_(1)
    assert torch.equal(copied(z), before)
    assert not torch.equal(G(z), before)


def test_it_takes_no_memory_for_what_it_shares():
    G = build_generator(TINY)
    assert [id(p) for p in folded(G).parameters()] == [id(p) for p in G.parameters()]
