"""z -> w -> ws -> picture, and seeds -> pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn

from stylegan.config import ModelConfig
from stylegan.latents import broadcast, noise_for_seeds, truncate, z_for_seeds
from stylegan.mapping import MappingNetwork
from stylegan.synthesis import Noise, SynthesisNetwork
from torch_utils.images import to_pil, to_uint8

NoiseMode = Literal["const", "random", "none"]


class Generator(nn.Module):
    """A mapping network and a synthesis network (StyleGAN, figure 1)."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.mapping = MappingNetwork(cfg)
        self.synthesis = SynthesisNetwork(cfg)

    @property
    def num_ws(self) -> int:
        return self.cfg.num_ws

    def broadcast(self, w: Tensor) -> Tensor:
        """w [N,w_dim] -> ws [N,num_ws,w_dim]."""
        return broadcast(w, self.num_ws)

    def latents(self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], classes [N] -> truncated ws [N,num_ws,w_dim]."""
        return truncate(self.broadcast(self.mapping(z, c)), self.mapping.w_avg, psi, cutoff)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        resolution: int | None = None,
        alpha: float | None = None,
        noise: Noise = "const",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """z [N,z_dim] -> pictures [N,channels,H,W]; the rest as in `latents` and `SynthesisNetwork.forward`."""
        return self.synthesis(self.latents(z, c, psi, cutoff), resolution, alpha, noise, dtype)

    @torch.inference_mode()
    def render(
        self, seeds: Sequence[int], psi: float = 0.7, cutoff: int | None = None, c: Tensor | None = None,
        noise: NoiseMode = "const", batch: int = 8,
    ) -> Tensor:
        """One picture per seed, [N,channels,H,W] on the CPU, at the resolution the network has grown to.

        c: classes [N]. A seed gives the same picture in any batch: each is computed alone in all that is random.
        """
        device = next(self.parameters()).device
        pictures = []
        for start in range(0, len(seeds), batch):
            part = list(seeds[start : start + batch])
            classes = None if c is None else c[start : start + batch].to(device)
            z = z_for_seeds(part, self.cfg.z_dim).to(device)
            maps: Noise = noise
            if noise == "random":
                maps = [m.to(device) for m in noise_for_seeds(part, self.synthesis.noise_sizes(self.cfg.resolution))]
            pictures.append(self(z, classes, psi=psi, cutoff=cutoff, noise=maps).cpu())
        return torch.cat(pictures)

    def generate(
        self, seeds: Sequence[int], psi: float = 0.7, cutoff: int | None = None, c: int | None = None
    ) -> list[Image.Image]:
        """One PIL picture per seed. c: a class number for a conditional network."""
        classes = None if c is None else torch.full((len(seeds),), c)
        return [to_pil(pixels) for pixels in to_uint8(self.render(seeds, psi, cutoff, classes))]
