"""Tiny networks that are never trained, for metrics of networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from stylegan.config import ModelConfig
from stylegan.networks import build_discriminator, build_generator
from stylegan.snapshot import Snapshot

TINY = ModelConfig(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


def tiny_snapshot(cfg: ModelConfig = TINY, alpha: float = 1.0) -> Snapshot:
    """A network of random weights that makes pictures with some contrast, noise included."""
    torch.manual_seed(0)
    G, D = (build(cfg).eval().requires_grad_(False) for build in (build_generator, build_discriminator))
    for name, value in G.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            value += 0.3 * torch.randn_like(value)
    G.synthesis.grown = (cfg.resolution, alpha)
    return Snapshot(G=G, D=D, config=cfg, resolution=cfg.resolution, alpha=alpha, kimg=1.0, data="blotches")


@pytest.fixture
def tiny_network() -> Callable[..., Snapshot]:
    """tiny_network(num_classes=3, alpha=0.5) -> Snapshot of 16x16 RGB pictures"""
    return lambda alpha=1.0, **changes: tiny_snapshot(replace(TINY, **changes), alpha)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
