"""What every network family has in common, as plain numbers: sizes, layers, and how far a network has grown.

Nothing here needs PyTorch, so that command lines and presets can be read without loading it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from torch_utils.errors import UserError
from torch_utils.settings import from_plain, to_plain

NoiseMode = Literal["const", "random", "none"]  # the network's own, drawn from the seed, or none

WIDEST = 1 << 20  # limit of any width, see `limits.py`

Config = TypeVar("Config", bound="NetworkConfig")


@dataclass(frozen=True)
class Stage:
    """How far a network has grown, or is to be evaluated.

    resolution: nominal, see `NetworkConfig`   alpha: weight in (0, 1] of the newest block against the one before
    """

    resolution: int
    alpha: float = 1.0


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a synthesis network.

    row: of ws, the one that feeds the layer   resolution: nominal, at which it works
    style_dim: numbers in its style (StyleGAN: a scale and a shift for each feature map); 0 for a layer without style
    noise_shape: height and width of its noise map, None for a layer without noise
    kind: "conv", or "rgb" for one that makes an image
    """

    row: int
    resolution: int
    style_dim: int = 0
    noise_shape: tuple[int, int] | None = None
    kind: Literal["conv", "rgb"] = "conv"


class Cost(NamedTuple):
    """Work of one image in a forward pass: convolutions in 10^9 operations, and the numbers in all feature maps."""

    gflop: float
    activations: int


@dataclass(frozen=True)
class NetworkConfig:
    """The dimensions of a generator and its discriminator. Each family has a subclass with settings of its own.

    `resolution` counts doublings, as the field does: 4 * 2^k. A network of nominal resolution R generates images of
    (base_h * R/4, base_w * R/4) pixels, so the usual base of 4x4 gives RxR and a base of 4x6 at R = 128 gives 128x192.
    """

    family: str = ""
    resolution: int = 1024
    base: tuple[int, int] = (4, 4)
    channels: int = 3
    num_classes: int = 0
    z_dim: int = 512

    TITLE: ClassVar[str] = ""  # for messages
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "resolution": (4, 1 << 14), "channels": (1, 64), "num_classes": (0, WIDEST), "z_dim": (1, WIDEST),
    }  # fmt: skip
    """Least and most that a file may ask for, by setting."""

    def __post_init__(self) -> None:
        if self.family != type(self).family:
            raise UserError(f"{self.TITLE} cannot be of the family {self.family!r}; leave out 'family'")
        steps = self.resolution // 4
        if self.resolution < 4 or self.resolution != 4 * steps or steps & (steps - 1):
            raise UserError(f"resolution {self.resolution} is not 4 times a power of two; use 4, 8, 16, ... 1024")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... resolution."""
        return tuple(4 << k for k in range((self.resolution // 4).bit_length()))

    @property
    def stages(self) -> tuple[int, ...]:
        """The nominal resolutions at which the network can be evaluated, smallest first."""
        return self.resolutions

    @property
    def full(self) -> Stage:
        """The stage of a network that has grown to the end."""
        return Stage(self.resolution)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Every layer of the synthesis network, in the order of evaluation."""
        raise NotImplementedError

    def layers_at(self, resolution: int) -> tuple[LayerInfo, ...]:
        """The layers that are evaluated at a resolution."""
        return tuple(layer for layer in self.layers if layer.resolution <= resolution)

    def layers_of_rows(self, rows: Sequence[int]) -> list[int]:
        """The numbers of the layers that are fed by these rows of ws."""
        return [index for index, layer in enumerate(self.layers) if layer.row in rows]

    def noise_shapes(self, resolution: int) -> list[tuple[int, int]]:
        """Height and width of the noise map of each layer that has one, up to a resolution."""
        return [layer.noise_shape for layer in self.layers_at(resolution) if layer.noise_shape]

    def style_dims(self, resolution: int | None = None) -> list[int]:
        """How many numbers the style of each layer has, up to a resolution (default: all); empty without styles."""
        return [layer.style_dim for layer in self.layers_at(resolution or self.resolution) if layer.style_dim]

    def style_channel_name(self, layer: int, index: int) -> str:
        """The name of entry `index` of the style of a layer, such as "layer 3 channel 5"."""
        return f"layer {layer} channel {index}"

    @property
    def num_ws(self) -> int:
        """Rows of ws: 1 where all layers are fed by the same latent."""
        return 1 + max(layer.row for layer in self.layers)

    @property
    def ws_dim(self) -> int:
        """Length of a row of ws: of w, or of what a network without w is fed with."""
        raise NotImplementedError

    @property
    def mixing_probability(self) -> float:
        """Share of the training images that are generated from two latents."""
        return 0.0

    @property
    def minibatch_group(self) -> int:
        """How many images of a batch the discriminator compares with each other; 1 if it looks at each alone."""
        return 1

    def size(self, resolution: int) -> tuple[int, int]:
        """Height and width in pixels at a nominal resolution."""
        return self.base[0] * resolution // 4, self.base[1] * resolution // 4

    def nominal(self, height: int) -> int:
        """The nominal resolution of images of this height. Raises UserError if no resolution has it."""
        for resolution in self.resolutions:
            if self.size(resolution)[0] == height:
                return resolution
        sizes = ", ".join(str(self.size(r)[0]) for r in self.resolutions)
        raise UserError(f"no level of this network is {height} pixels high; it has {sizes}")

    def nf(self, resolution: int) -> int:
        """Feature maps at a nominal resolution."""
        raise NotImplementedError

    def generator_cost(self, resolution: int) -> Cost:
        """Of one image through the generator up to a nominal resolution."""
        raise NotImplementedError

    def discriminator_cost(self, resolution: int) -> Cost:
        """Of one image of a nominal resolution through the discriminator."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises UserError for settings that do not fit together."""

    def wider_than(self, other: NetworkConfig) -> bool:
        """Does this network have more feature maps than `other`, so that `other`'s weights can be widened to it?"""
        return False

    def widths_of(self, other: NetworkConfig) -> dict[str, int]:
        """The settings that say how many feature maps a network has, with the values of `other`."""
        return {}

    @property
    def own_widths(self) -> dict[str, str]:
        """For settings of the width that the discriminator has apart from the generator: under which name."""
        return {}

    def width_of(self, other: NetworkConfig) -> dict[str, int]:
        """The settings in which this network is narrower than `other`, with the values that make it as wide."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it stands in the header of a snapshot."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls: type[Config], data: Mapping[str, Any], name: str = "") -> Config:
        """The inverse of to_json. Raises UserError for a setting that the family does not have, or of a wrong type.

        name: what messages call the group of settings.
        """
        return from_plain(cls, data, name)


def require_styles(config: NetworkConfig) -> None:
    """Raises UserError for a network without styles."""
    if not config.style_dims():
        raise UserError(f"this {config.TITLE} network has no styles: a single latent feeds its first layer; use a "
                        "StyleGAN network with styles for this")  # fmt: skip
