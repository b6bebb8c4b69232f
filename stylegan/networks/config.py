"""Dimensions of a network as plain numbers, the same for every family: sizes, layers, stages and cost.

Nothing here needs PyTorch, so that command lines and presets can be read without loading it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from torch_utils.errors import UserError
from torch_utils.settings import to_plain

if TYPE_CHECKING:
    from torch import Tensor

NoiseMode = Literal["const", "random", "none"]  # the network's own, drawn from the seed, or none
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""Number format in which images are generated. tf32: float32, of whose fraction a GPU takes 10 bits in products."""

WIDEST = 1 << 20  # limit for any width that a file claims, see `NetworkConfig.LIMITS`

Config = TypeVar("Config", bound="NetworkConfig")


@dataclass(frozen=True)
class Stage:
    """How far a network has grown, or how far to evaluate it.

    resolution: nominal, see `NetworkConfig`
    alpha: weight of the newest block against the one before, in (0, 1]
    weight: alpha below 1 as a float32 tensor [] on the device, for steps that are recorded once and repeated with other
    values; None for alpha itself
    """

    resolution: int
    alpha: float = 1.0
    weight: Tensor | None = field(default=None, kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a synthesis network.

    row: the row of ws that feeds the layer
    resolution: the nominal resolution at which it works
    style_dim: length of its style (StyleGAN: a scale and a shift for each feature map); 0 for a layer without style
    noise_shape: height and width of its noise map; None for a layer without noise
    kind: "conv", or "rgb" for a layer whose output is an image
    """

    row: int
    resolution: int
    style_dim: int = 0
    noise_shape: tuple[int, int] | None = None
    kind: Literal["conv", "rgb"] = "conv"


class Cost(NamedTuple):
    """Cost of one image in a forward pass.

    gflop: operations of the convolutions, in 10^9   activations: numbers in all feature maps
    """

    gflop: float
    activations: int


@dataclass(frozen=True)
class NetworkConfig:
    """Dimensions of a generator and its discriminator. Each family has a subclass with settings of its own.

    `resolution` counts doublings, as the field does: 4 * 2^k. A network of nominal resolution R generates images of
    (base_h * R/4, base_w * R/4) pixels, so the usual base of 4x4 gives RxR and a base of 4x6 at R = 128 gives 128x192.
    """

    family: str = ""
    resolution: int = 1024
    base: tuple[int, int] = (4, 4)
    channels: int = 3
    num_classes: int = 0
    z_dim: int = 512

    TITLE: ClassVar[str] = ""  # name of the family in messages
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "resolution": (4, 1 << 14), "channels": (1, 64), "num_classes": (0, WIDEST), "z_dim": (1, WIDEST),
    }  # fmt: skip
    """Smallest and largest value of a setting in a file, see `registry.require_buildable`."""

    OWN: ClassVar[frozenset[str]] = frozenset({"family", "resolution", "base", "channels", "num_classes"})
    """Settings that a network does not take from the one whose weights it starts with, see `inherited`."""

    WIDTHS: ClassVar[frozenset[str]] = frozenset()
    """Settings that it takes only where they are larger, because weights can be widened."""

    def __post_init__(self) -> None:
        if self.family != type(self).family:
            raise UserError(f"family must be {type(self).family!r} for {self.TITLE}, got {self.family!r}")
        steps = self.resolution // 4
        if self.resolution < 4 or self.resolution != 4 * steps or steps & (steps - 1):
            raise UserError(f"resolution must be 4 times a power of two (4, 8, 16, ... 1024), got {self.resolution}")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """All nominal resolutions up to that of the network: 4, 8, ... resolution."""
        return tuple(4 << k for k in range((self.resolution // 4).bit_length()))

    @property
    def stages(self) -> tuple[int, ...]:
        """Nominal resolutions at which the network can be evaluated, in increasing order."""
        return self.resolutions

    @property
    def full(self) -> Stage:
        """The stage of a network that has grown completely."""
        return Stage(self.resolution)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """All layers of the synthesis network, in the order of evaluation."""
        raise NotImplementedError

    def layers_at(self, resolution: int) -> tuple[LayerInfo, ...]:
        """Layers that are evaluated at a resolution."""
        return tuple(layer for layer in self.layers if layer.resolution <= resolution)

    def layers_of_rows(self, rows: Sequence[int]) -> list[int]:
        """Indices of the layers that these rows of ws feed."""
        return [index for index, layer in enumerate(self.layers) if layer.row in rows]

    def main_layers(self, row: int) -> list[int]:
        """Indices of the layers that a row of ws feeds, without those to the image, unless it feeds only these.

        In StyleGAN2 a row feeds a layer to the image and the first layer of the next resolution.
        """
        fed = self.layers_of_rows([row])
        return [index for index in fed if self.layers[index].kind == "conv"] or fed

    def rows_at(self, resolution: int) -> int:
        """Number of rows of ws that are used at a resolution."""
        return 1 + max(layer.row for layer in self.layers_at(resolution))

    def noise_shapes(self, resolution: int) -> list[tuple[int, int]]:
        """Height and width of the noise map of each layer with noise, up to a resolution."""
        return [layer.noise_shape for layer in self.layers_at(resolution) if layer.noise_shape]

    def style_dims(self, resolution: int | None = None) -> list[int]:
        """Length of the style of each layer, up to a resolution (default: all); empty without styles."""
        return [layer.style_dim for layer in self.layers_at(resolution or self.resolution) if layer.style_dim]

    def style_channel_name(self, layer: int, index: int) -> str:
        """The name of entry `index` of the style of a layer, such as "layer 3 channel 5"."""
        return f"layer {layer} channel {index}"

    @property
    def num_ws(self) -> int:
        """Number of rows of ws: 1 if the same latent feeds all layers."""
        return 1 + max(layer.row for layer in self.layers)

    @property
    def ws_dim(self) -> int:
        """Length of a row of ws: that of w, or of the input of a network without w."""
        raise NotImplementedError

    @property
    def mixing_probability(self) -> float:
        """Probability that a training image is generated from two latents (style mixing)."""
        return 0.0

    @property
    def minibatch_group(self) -> int:
        """Number of images that the discriminator compares with each other; 1 if it scores each by itself."""
        return 1

    def size(self, resolution: int) -> tuple[int, int]:
        """Height and width in pixels at a nominal resolution."""
        return self.base[0] * resolution // 4, self.base[1] * resolution // 4

    def nominal(self, height: int) -> int:
        """Nominal resolution of images of this height. Raises UserError if no resolution has this height."""
        for resolution in self.resolutions:
            if self.size(resolution)[0] == height:
                return resolution
        sizes = ", ".join(str(self.size(r)[0]) for r in self.resolutions)
        raise UserError(f"images of this network cannot be {height} pixels high; possible heights are {sizes}")

    def nf(self, resolution: int) -> int:
        """Number of feature maps at a nominal resolution."""
        raise NotImplementedError

    def generator_cost(self, resolution: int) -> Cost:
        """Cost of one image in the generator, up to a nominal resolution."""
        raise NotImplementedError

    def discriminator_cost(self, resolution: int) -> Cost:
        """Cost of one image of a nominal resolution in the discriminator."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""

    def wider_than(self, other: NetworkConfig) -> bool:
        """Whether this network has more feature maps than `other`, so that weights of `other` can be widened for it."""
        return False

    def widths_of(self, other: NetworkConfig) -> dict[str, int]:
        """Settings for the number of feature maps, with the values of `other`."""
        return {}

    @property
    def own_widths(self) -> dict[str, str]:
        """Settings for the number of feature maps that the discriminator has under another name: {setting: name}."""
        return {}

    def width_of(self, other: NetworkConfig) -> dict[str, int]:
        """Settings in which this network is narrower than `other`, with the values that make it as wide."""
        return {}

    @property
    def inheritable(self) -> list[str]:
        """Settings that a network may take from the one whose weights it starts with."""
        return [field.name for field in fields(self) if field.name not in self.OWN]

    def inherited(self, other: NetworkConfig) -> dict[str, Any]:
        """Settings with which the weights of `other` fit this network and compute the same; {} for another family."""
        if other.family != self.family:
            return {}
        values = {name: getattr(other, name) for name in self.inheritable if name not in self.WIDTHS}
        return {name: value for name, value in values.items() if value != getattr(self, name)} | self.width_of(other)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the header of a snapshot."""
        return dict(to_plain(self))


def require_styles(config: NetworkConfig) -> None:
    """Raises UserError for a network without styles."""
    if not config.style_dims():
        raise UserError(f"this {config.TITLE} network has no styles: a single latent feeds its first layer; use a "
                        "StyleGAN network with styles")  # fmt: skip
