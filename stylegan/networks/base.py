"""What a network is: one frozen record from which generator and discriminator are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch_utils.errors import UserError
from torch_utils.settings import from_plain, to_plain

Activation = Literal["lrelu", "relu"]
NoiseMode = Literal["const", "random", "none"]  # the network's own, drawn from the seed, or none


@dataclass(frozen=True)
class ModelConfig:
    """A network family and its dimensions. The defaults are StyleGAN's for 1024x1024 (Karras et al. 2019, table 5).

    `resolution` counts doublings, as the field does: 4 * 2^k. A network of nominal resolution R makes pictures of
    (base_h * R/4, base_w * R/4) pixels, so the usual base of 4x4 gives RxR and a base of 4x6 at R = 128 gives 128x192.
    """

    family: Literal["stylegan", "progan"] = "stylegan"
    resolution: int = 1024
    base: tuple[int, int] = (4, 4)
    channels: int = 3
    num_classes: int = 0

    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    mapping_dim: int = 512
    mapping_lr_mul: float = 0.01
    mapping_activation: Activation = "lrelu"
    normalize_z: bool = True

    fmap_base: int = 16384
    fmap_max: int = 512
    d_fmap_max: int | None = None  # of the discriminator; None: as many as the generator
    activation: Activation = "lrelu"
    blur: tuple[float, ...] = (1, 2, 1)

    # Ablations of the paper (table 1): the traditional generator is styles, const_input and noise off.
    styles: bool = True
    const_input: bool = True
    noise: bool = True
    pixel_norm: bool = False
    instance_norm: bool = True
    style_mixing: float = 0.9

    mbstd_group: int = 4
    mbstd_features: int = 1

    def __post_init__(self) -> None:
        steps = self.resolution // 4
        if self.resolution < 4 or self.resolution != 4 * steps or steps & (steps - 1):
            raise UserError(f"resolution {self.resolution} is not 4 times a power of two; use 4, 8, 16, ... 1024")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... resolution."""
        return tuple(4 << k for k in range((self.resolution // 4).bit_length()))

    @property
    def num_layers(self) -> int:
        """Style layers in all: two per resolution."""
        return 2 * len(self.resolutions)

    @property
    def num_ws(self) -> int:
        """Rows of ws: one w per style layer, or a single one where styles are off."""
        return self.num_layers if self.styles else 1

    def nf(self, resolution: int) -> int:
        """Feature maps at a resolution."""
        return max(1, min(self.fmap_base // resolution, self.fmap_max))

    @property
    def of_discriminator(self) -> ModelConfig:
        """The same with the discriminator's feature maps, of which it may have fewer than the generator."""
        own = self.fmap_max if self.d_fmap_max is None else self.d_fmap_max
        return replace(self, fmap_max=min(self.fmap_max, own), d_fmap_max=None)

    def size(self, resolution: int) -> tuple[int, int]:
        """Height and width in pixels at a nominal resolution."""
        return self.base[0] * resolution // 4, self.base[1] * resolution // 4

    def nominal(self, height: int) -> int:
        """The nominal resolution of pictures of this height. Raises UserError if no resolution has it."""
        for resolution in self.resolutions:
            if self.size(resolution)[0] == height:
                return resolution
        sizes = ", ".join(str(self.size(r)[0]) for r in self.resolutions)
        raise UserError(f"no level of this network is {height} pixels high; it has {sizes}")

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in the header of a snapshot."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ModelConfig:
        """The inverse of to_json. Raises UserError on a field this version does not know, or of the wrong type."""
        return from_plain(ModelConfig, data)


def progan_config(
    resolution: int = 1024,
    channels: int = 3,
    num_classes: int = 0,
    z_dim: int = 512,
    *,
    fmap_base: int = 16384,
    fmap_max: int = 512,
    mbstd_group: int = 4,
) -> ModelConfig:
    """The paper's networks (table 2), as switches of the common config. The defaults are those for CelebA-HQ."""
    return ModelConfig(
        family="progan",
        resolution=resolution,
        channels=channels,
        num_classes=num_classes,
        z_dim=z_dim,
        w_dim=z_dim + num_classes,
        mapping_layers=0,
        fmap_base=fmap_base,
        fmap_max=fmap_max,
        blur=(),
        styles=False,
        const_input=False,
        noise=False,
        pixel_norm=True,
        instance_norm=False,
        style_mixing=0.0,
        mbstd_group=mbstd_group,
    )
