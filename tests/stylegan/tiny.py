"""Networks of random weights, of 16x16 images, that the tests of this folder share."""

from __future__ import annotations

import torch

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.render import View
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


def snapshot(cfg: NetworkConfig = TINY, seed: int = 0, stage: Stage | None = None, with_d: bool = False) -> Snapshot:
    """Averages, biases and noise strengths are 0."""
    torch.manual_seed(seed)
    G = build_generator(cfg).eval().requires_grad_(False)
    D = build_discriminator(cfg).eval().requires_grad_(False) if with_d else None
    return Snapshot(G=G, D=D, config=cfg, stage=stage or cfg.full, kimg=1.0, data="faces")


def trained(cfg: NetworkConfig = TINY, seed: int = 0, stage: Stage | None = None) -> Snapshot:
    """Averages, biases and noise strengths are not 0, as after training."""
    found = snapshot(cfg, seed, stage)
    for name, value in found.G.state_dict().items():
        if name.endswith(("bias", "noise_strength", "w_avg")):
            value.normal_(std=0.3)
    return found


def view_of(cfg: NetworkConfig = TINY, seed: int = 0, **how: object) -> View:
    """How tools see a trained network. how: as for `View.of`."""
    return View.of(trained(cfg, seed), **how)  # type: ignore[arg-type]
