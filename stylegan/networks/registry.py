"""The seam between network families: a config becomes a generator or a discriminator."""

from __future__ import annotations

from stylegan.networks.base import ModelConfig
from stylegan.networks.generator import Generator
from stylegan.networks.progan import ProGANGenerator
from stylegan.networks.stylegan1 import Discriminator


def build_generator(cfg: ModelConfig) -> Generator | ProGANGenerator:
    """The generator of cfg.family, with fresh weights."""
    return ProGANGenerator(cfg) if cfg.family == "progan" else Generator(cfg)


def build_discriminator(cfg: ModelConfig) -> Discriminator:
    """The discriminator of cfg.family, with fresh weights."""
    return Discriminator(cfg)
