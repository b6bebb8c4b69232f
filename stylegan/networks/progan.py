"""ProGAN (Karras et al. 2018), the second family: StyleGAN's synthesis network without styles, fed with z itself."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from stylegan.networks.base import ModelConfig
from stylegan.networks.generator import Generator
from stylegan.networks.layers import pixel_norm
from stylegan.networks.mapping import MappingNetwork, class_weights
from stylegan.networks.stylegan1 import SynthesisNetwork
from torch_utils.errors import UserError


class ProGANGenerator(Generator):
    """Used like StyleGAN's generator, but for what needs a w: truncation and `mapping` raise UserError."""

    def __init__(self, cfg: ModelConfig):
        nn.Module.__init__(self)
        self.cfg = cfg
        self.mapping = _NoMapping()
        self.synthesis = SynthesisNetwork(cfg)

    def latents(self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], classes [N] -> what the first layer sees, [N,1,z_dim+num_classes]: z and the one-hot class.

        Raises UserError unless psi is 1, and when a conditional network gets no class.
        """
        if psi != 1:
            raise UserError("ProGAN has no w to truncate; use --trunc 1 (psi=1)")
        x = z.float()
        if self.cfg.num_classes:
            x = torch.cat([x, class_weights(c, self.cfg.num_classes)], dim=1)
        return self.broadcast(pixel_norm(x) if self.cfg.normalize_z else x)


class _NoMapping(MappingNetwork):
    """Stands where the mapping network would be, without weights, and says so to whoever asks for w."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> NoReturn:
        raise UserError(_NO_W)

    def centre(self, c: Tensor | None = None) -> NoReturn:
        raise UserError(_NO_W)

    def __getattr__(self, name: str) -> Any:
        if name == "w_avg":
            raise UserError(_NO_W)
        return super().__getattr__(name)


_NO_W = "ProGAN has no w: it draws from z directly; use a StyleGAN network for this"
