"""StyleGAN (Karras, Laine, Aila 2019): config, generator and discriminator.

    z [N,z_dim] -> mapping -> w [N,w_dim] -> broadcast -> ws [N,L,w_dim], two rows for each resolution (figure 1b)

    const [C,4,4] -> style, conv, style -> up, style, conv, style -> up, ... -> to_rgb -> images [N,3,R,R]

Each style layer adds noise, activates, normalises each feature map, and gives it the scale and shift that it computes
from its row of ws. The discriminator is the mirror image, as in ProGAN (Karras et al. 2018, table 2) with StyleGAN's
blur. Both grow: all blocks exist from the start, and a `Stage` says how many are evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.bias_act import bias_act
from ops.conv2d import conv2d, packed
from ops.resample import (
    blur,
    conv2d_downsample,
    downsample_box,
    downsampling_kernel,
    packed_for_upsampling,
    upsample_conv2d,
    upsample_nearest,
    upsampling_kernel,
)
from ops.style_epilogue import style_epilogue
from stylegan.networks.arguments import require_ws
from stylegan.networks.base import Discriminator, Family, Generator, Noise, Synthesis, noise_of_layers
from stylegan.networks.config import WIDEST, Cost, LayerInfo, NetworkConfig, Stage, require_styles
from stylegan.networks.layers import (
    SQRT2,
    EqualConv2d,
    EqualLinear,
    Foldable,
    faded,
    for_convolutions,
    minibatch_stddev,
    pixel_norm,
)
from stylegan.networks.mapping import Activation, MappingConfig, MappingNetwork, StyleConfig
from torch_utils.errors import UserError

SG1 = TypeVar("SG1", bound="StyleGAN1Config")


@dataclass(frozen=True)
class StyleGAN1Config(StyleConfig):
    """The defaults are those of the paper for 1024x1024 (table 5)."""

    family: str = "stylegan"

    fmap_base: int = 16384
    fmap_max: int = 512
    d_fmap_max: int | None = None  # of the discriminator; None: the same as the generator
    activation: Activation = "lrelu"
    blur: tuple[float, ...] = (1, 2, 1)

    # Ablations of the paper (table 1): the traditional generator has styles, const_input and noise off.
    styles: bool = True
    const_input: bool = True
    noise: bool = True
    pixel_norm: bool = False
    instance_norm: bool = True
    style_mixing: float = 0.9

    mbstd_group: int = 4
    mbstd_features: int = 1

    TITLE: ClassVar[str] = "StyleGAN"
    OWN: ClassVar[frozenset[str]] = NetworkConfig.OWN | {"style_mixing", "mbstd_group"}
    WIDTHS: ClassVar[frozenset[str]] = frozenset({"fmap_base", "fmap_max", "d_fmap_max"})
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **MappingConfig.LIMITS, "fmap_base": (1, 1 << 30), "fmap_max": (1, WIDEST), "d_fmap_max": (1, WIDEST),
        "mbstd_group": (0, WIDEST), "mbstd_features": (1, WIDEST), "style_mixing": (0, 1),
    }  # fmt: skip

    @cached_property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Two layers for each resolution, each with its own row of ws; without styles, all share one row."""
        return tuple(
            LayerInfo(
                row=2 * index + k if self.styles else 0, resolution=res,
                style_dim=2 * self.nf(res) if self.styles else 0, noise_shape=self.size(res) if self.noise else None,
            )
            for index, res in enumerate(self.resolutions) for k in (0, 1)
        )  # fmt: skip

    def style_channel_name(self, layer: int, index: int) -> str:
        """A style is a scale for each feature map, then a shift for each: "layer 3 scale 5" or "layer 3 shift 5"."""
        maps = self.layers[layer].style_dim // 2
        return f"layer {layer} {'scale' if index < maps else 'shift'} {index % maps}"

    def generator_cost(self, resolution: int) -> Cost:
        """A convolution that upsamples takes 4 multiplications for each output pixel and pair of channels, not 9."""
        gflop, activations = 0.0, 0
        for res in self.resolutions:
            if res <= resolution:
                height, width = self.size(res)
                taps = 9 * self.nf(res) + (4 * self.nf(res // 2) if res > 4 else 0)
                gflop += 2 * height * width * self.nf(res) * taps / 1e9
                activations += 2 * self.nf(res) * height * width
        return Cost(gflop, activations)

    def discriminator_cost(self, resolution: int) -> Cost:
        """The mirror image costs the same as a generator with as many feature maps."""
        return self.of_discriminator.generator_cost(resolution)

    @property
    def of_discriminator(self: SG1) -> SG1:
        """The config of the discriminator, which may have fewer feature maps than the generator."""
        own = self.fmap_max if self.d_fmap_max is None else self.d_fmap_max
        return replace(self, fmap_max=min(self.fmap_max, own), d_fmap_max=None)

    def check(self) -> None:
        super().check()
        if self.style_mixing > 1:
            raise UserError(f"--style-mixing-prob must be from 0 to 1, got {self.style_mixing}")

    def wider_than(self, other: NetworkConfig) -> bool:
        """See `NetworkConfig.wider_than`. Always False with pixel norm, which mixes all feature maps."""
        if not isinstance(other, StyleGAN1Config):
            return False
        shared = [2, *(res for res in other.resolutions if res in self.resolutions)]  # 2: the dense layers of D
        pairs = [(other.nf(res), self.nf(res)) for res in shared]
        return all(n <= w for n, w in pairs) and any(n < w for n, w in pairs) and not self.pixel_norm

    def widths_of(self, other: NetworkConfig) -> dict[str, int]:
        return {"fmap_base": other.fmap_base, "fmap_max": other.fmap_max} if isinstance(other, StyleGAN1Config) else {}

    @property
    def own_widths(self) -> dict[str, str]:
        return {} if self.d_fmap_max is None else {"fmap_max": "d_fmap_max"}

    def width_of(self, other: NetworkConfig) -> dict[str, int]:
        """See `NetworkConfig.width_of`. If the discriminator of `other` is narrower than its generator, it remains so,
        unless it would become narrower than the discriminator of this config."""
        if not isinstance(other, StyleGAN1Config):
            return {}
        found = {name: value for name, value in self.widths_of(other).items() if value > getattr(self, name)}
        own = other.of_discriminator.fmap_max
        if own < other.fmap_max and own >= self.of_discriminator.fmap_max:
            found["d_fmap_max"] = own
        return found


# Generator


class StyleLayer(Foldable):
    """A convolution and what follows it: noise, bias, activation, instance norm and style (StyleGAN, section 2).

    kind: "up" doubles the resolution, "conv" keeps it; the first layer is "const", the learned constant, or "dense"
    """

    noise: Tensor

    def __init__(self, config: StyleGAN1Config, kind: str, in_channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        self.config, self.kind, self.size = config, kind, size
        if kind == "const":
            self.const = nn.Parameter(torch.ones(1, out_channels, *size))
        elif kind == "dense":
            self.weight = nn.Parameter(torch.randn(out_channels * math.prod(size), in_channels))
            # A quarter of the usual gain, as in the first layer of ProGAN.
            self.scale = SQRT2 / 4 / math.sqrt(in_channels)
        else:
            self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
            self.scale = SQRT2 / math.sqrt(in_channels * 9)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if config.noise:
            self.noise_strength = nn.Parameter(torch.zeros(out_channels))
            self.register_buffer("noise", torch.randn(1, 1, *size))
        if config.styles:
            self.style = EqualLinear(config.w_dim, 2 * out_channels, gain=1.0)

    def forward(
        self, x: Tensor | None, w: Tensor, style: Tensor | None, noise: Tensor | None, stream: int, dtype: torch.dtype
    ) -> Tensor:
        """x [N,I,h,w], None for the first layer; w [N,w_dim]; style [N,2O] -> [N,O,H,W] in `dtype`.

        noise: a map [1 or N,1,H,W], or places [N,2] for the numbers of `stream`
        """
        config = self.config
        x = self.convolve(x, w, dtype)
        strength = self.noise_strength if noise is not None else None
        if config.pixel_norm:  # between activation and instance norm; an ablation, not worth a fused op
            x = style_epilogue(
                x, self.bias, noise, strength, None, config.activation, instance_norm=False, stream=stream
            )
            no_bias = torch.zeros_like(self.bias)
            x = style_epilogue(pixel_norm(x), no_bias, None, None, style, "linear", config.instance_norm)
        else:
            x = style_epilogue(
                x, self.bias, noise, strength, style, config.activation, config.instance_norm, stream=stream
            )
        return x.to(dtype)

    def convolve(self, x: Tensor | None, w: Tensor, dtype: torch.dtype) -> Tensor:
        """[N,I,h,w] -> [N,O,H,W] in `dtype`; the constant in float32."""
        if self.kind == "const":
            # float32 up to the instance norm: it starts as ones, and bfloat16 would round away what it learns.
            return self.const.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        (weight,) = self.effective(dtype)
        if self.kind == "dense":
            return F.linear(w, weight).unflatten(1, (-1, *self.size)).to(dtype, memory_format=torch.channels_last)
        assert x is not None
        if self.kind == "up":
            return blur(upsample_conv2d(x, weight), self.config.blur)
        return conv2d(x, weight, padding=1)

    def effective(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The scaled weight, in the form that the operation of the layer expects; nothing for the constant."""
        if self.kind == "const":
            return ()
        if self.kind == "up":
            return (for_convolutions(upsampling_kernel(self.weight, self.scale), dtype),)
        if self.kind == "dense":
            return (self.weight * self.scale,)
        return (for_convolutions(self.weight * self.scale, dtype),)

    def packed(self, dtype: torch.dtype, batch: int) -> tuple[Tensor, ...]:
        """The weight in the order in which a convolution of `batch` images reads it."""
        if self.kind in ("const", "dense"):
            return self.effective(dtype)
        (weight,) = self.effective(dtype)
        if self.kind == "up":
            return (packed_for_upsampling(weight, batch, (self.size[0] // 2, self.size[1] // 2)),)
        return (packed(weight, batch, self.size, padding=1),)


class SynthesisNetwork(Synthesis):
    """g: (ws, noise) -> images (StyleGAN, figure 1b)."""

    def __init__(self, config: StyleGAN1Config):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({str(res): _block(config, res) for res in config.resolutions})
        self.to_rgb = nn.ModuleDict(
            {str(res): EqualConv2d(config.nf(res), config.channels, 1, gain=1.0) for res in config.resolutions}
        )

    def style_layers(self) -> list[StyleLayer]:
        """All style layers, in the order of `config.layers`."""
        return [layer for block in self.blocks.values() for layer in block.children() if isinstance(layer, StyleLayer)]

    def forward(
        self, ws: Tensor, stage: Stage | None = None, noise: Noise = "const", dtype: torch.dtype = torch.float32,
        edits: Sequence[Tensor] = (),
    ) -> Tensor:  # fmt: skip
        """See `Synthesis.forward`. edits: changes of the scales of a layer [1 or N,C], then of its shifts."""
        require_ws(ws, self.config)
        stage = stage or self.config.full
        x: Tensor | None = None
        image: Tensor | None = None
        layers = self.config.layers_at(stage.resolution)
        maps = [None] * len(layers)
        if self.config.noise:
            own = [layer.noise for layer in self.style_layers()]
            maps = noise_of_layers(noise, own, self.config.noise_shapes(stage.resolution), ws)
        styles: Sequence[Tensor | None] = [None] * len(layers)
        if self.config.styles:
            styles = self.styles(ws, len(layers))
            if edits:
                styles = [style + edit for style, edit in zip(styles, edits, strict=False)]
        rows = ws.unbind(1)
        for index, (about, layer) in enumerate(zip(layers, self.style_layers(), strict=False)):
            x = layer(x, rows[about.row], styles[index], maps[index], index, dtype)
            if index % 2 and about.resolution == stage.resolution // 2 and stage.alpha < 1:
                image = self.to_rgb[str(about.resolution)](x).float()
        newest: Tensor = self.to_rgb[str(stage.resolution)](x).float()
        return newest if image is None else faded(upsample_nearest(image), newest, stage)

    def styles(self, ws: Tensor, count: int | None = None) -> list[Tensor]:
        """Styles [N,2C] of the first `count` layers, or of all: scales of all feature maps, minus 1, then shifts."""
        layers = self.style_layers()[:count]
        # Scaled once, and taken apart once: gradients are then put together, and not added up layer by layer.
        rows = (ws * layers[0].style.scale).unbind(1)
        return [
            layer.style.of_scaled(rows[about.row]) for about, layer in zip(self.config.layers, layers, strict=False)
        ]

    def layer_of(self, weight: str) -> int:
        """See `Synthesis.layer_of`. An image layer belongs to the style layer before it."""
        part, resolution, k, *_ = weight.split(".")
        return self.config.resolutions.index(int(resolution)) * 2 + (int(k) if part == "blocks" else 1)


def _block(config: StyleGAN1Config, resolution: int) -> nn.ModuleList:
    """The two style layers of a resolution."""
    out, size = config.nf(resolution), config.size(resolution)
    kind, inputs = "up", config.nf(resolution // 2)
    if resolution == 4:
        kind, inputs = "const" if config.const_input else "dense", config.w_dim
    return nn.ModuleList([StyleLayer(config, kind, inputs, out, size), StyleLayer(config, "conv", out, out, size)])


class StyleGAN1Generator(Generator):
    """Mapping network and synthesis network (StyleGAN, figure 1)."""

    config: StyleGAN1Config
    synthesis: SynthesisNetwork

    def __init__(self, config: StyleGAN1Config):
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def own_noise(self) -> list[Tensor]:
        return [layer.noise for layer in self.synthesis.style_layers()] if self.config.noise else []

    def styles(self, ws: Tensor) -> list[Tensor]:
        require_styles(self.config)
        return self.synthesis.styles(ws)

    def style_weight(self, layer: int) -> Tensor:
        require_styles(self.config)
        style = self.synthesis.style_layers()[layer].style
        return style.weight * style.scale

    def activations(self, ws: Tensor, layer: int) -> Tensor:
        require_styles(self.config)
        caught: list[Tensor] = []
        module = self.synthesis.style_layers()[layer]
        with module.register_forward_hook(lambda module, inputs, output: caught.append(output)):
            self.synthesis(ws, Stage(self.config.layers[layer].resolution))
        return caught[0]


# Discriminator


class DiscriminatorBlock(Foldable):
    """Two convolutions, with a blur between them; the second halves the resolution. [N,I,H,W] -> [N,O,H/2,W/2]."""

    def __init__(self, config: StyleGAN1Config, resolution: int):
        super().__init__()
        self.config = config
        channels = config.nf(resolution)
        self.conv0 = EqualConv2d(channels, channels, 3)
        self.conv1 = EqualConv2d(channels, config.nf(resolution // 2), 3)

    def forward(self, x: Tensor) -> Tensor:
        x = blur(self.conv0(x, self.config.activation), self.config.blur)
        (kernel,) = self.effective(x.dtype)
        return bias_act(conv2d_downsample(x, kernel), self.conv1.bias, self.config.activation)

    def effective(self, dtype: torch.dtype) -> tuple[Tensor]:
        """The scaled weight of the second convolution, merged with the averaging of 2x2 pixels."""
        return (for_convolutions(downsampling_kernel(self.conv1.weight, self.conv1.scale), dtype),)


class DiscriminatorHead(nn.Module):
    """Minibatch standard deviation, a convolution at the base, and two dense layers. [N,C,h,w] -> [N,outputs]."""

    def __init__(self, config: StyleGAN1Config, outputs: int):
        super().__init__()
        self.config = config
        channels, width = config.nf(4), config.nf(2)
        self.conv = EqualConv2d(channels + _mbstd_maps(config), channels, 3)
        self.dense0 = EqualLinear(channels * config.base[0] * config.base[1], width)
        self.dense1 = EqualLinear(width, outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.mbstd_group > 1:
            x = minibatch_stddev(x, self.config.mbstd_group, self.config.mbstd_features)
        x = self.conv(x, self.config.activation)
        # Scores are float32, whatever the dtype of the feature maps.
        x = bias_act(self.dense0(x.float().flatten(1)), activation=self.config.activation)
        scores: Tensor = self.dense1(x)
        return scores


class StyleGAN1Discriminator(Discriminator):
    """The mirror image of the generator."""

    config: StyleGAN1Config

    def __init__(self, config: StyleGAN1Config):
        super().__init__()
        self.config = config = config.of_discriminator
        self.from_rgb = nn.ModuleDict(
            {str(res): EqualConv2d(config.channels, config.nf(res), 1) for res in config.resolutions}
        )
        self.blocks = nn.ModuleDict({str(r): DiscriminatorBlock(config, r) for r in config.resolutions if r > 4})
        self.head = DiscriminatorHead(config, self.num_outputs)

    def features(
        self, images: Tensor, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> Iterator[Tensor]:
        """Yields the outputs of from_rgb and of each block: [N,C,H,W] down to [N,C,h,w] of the base."""
        resolution = self.config.nominal(images.shape[2])
        x = self._from_rgb(resolution, images, dtype)
        yield x
        for res in sorted((r for r in self.config.resolutions if 4 < r <= resolution), reverse=True):
            x = self.blocks[str(res)](x)
            if res == resolution and stage is not None and stage.alpha < 1:
                x = faded(self._from_rgb(res // 2, downsample_box(images), dtype), x, stage)
            yield x

    def backward_order(self) -> list[nn.Parameter]:
        """See `Generator.backward_order`. Blocks are listed from the last to the first, all else the other way."""
        return [p for part in ("head", "blocks", "from_rgb") for p in self.get_submodule(part).parameters()]

    def _from_rgb(self, resolution: int, images: Tensor, dtype: torch.dtype) -> Tensor:
        images = images.to(dtype, memory_format=torch.channels_last)
        x: Tensor = self.from_rgb[str(resolution)](images, self.config.activation)
        return x


def _mbstd_maps(config: StyleGAN1Config) -> int:
    """Number of minibatch standard deviations among the inputs of the discriminator's last convolution."""
    return config.mbstd_features if config.mbstd_group > 1 else 0


# Widening


def widened(name: str, narrow: Tensor, fresh: Tensor, config: NetworkConfig) -> Tensor:
    """The tensor `name` of a wider network, from that of a narrower one and a fresh one of the wider.

    New feature maps start as in a fresh network, but the weights from new maps to old ones are zero, so that the wider
    network computes the same as the narrower one (Net2Net, Chen et al. 2016, section 3). The minibatch standard
    deviation is an average over all maps, so scores change slightly if 4x4 becomes wider.
    """
    assert isinstance(config, StyleGAN1Config)
    wide = fresh.clone()
    if name.endswith(".const"):  # [1,C,H,W]
        wide[:, : narrow.shape[1]] = narrow
    elif ".style." in name:  # scales of all maps, then shifts of all maps
        wide.unflatten(0, (2, -1))[:, : len(narrow) // 2] = narrow.unflatten(0, (2, -1))
    elif narrow.ndim == 1:
        wide[: len(narrow)] = narrow
    else:  # [outputs,inputs,...], which the network scales by 1 / sqrt(fan_in)
        maps = narrow.shape[1] - (_mbstd_maps(config) if name == "head.conv.weight" else 0)
        old = wide[: len(narrow)].zero_()
        old[:, :maps] = narrow[:, :maps]
        old[:, old.shape[1] - narrow.shape[1] + maps :] = narrow[:, maps:]
        old *= (old[0].numel() / narrow[0].numel()) ** 0.5
    return wide


IMAGE_LAYERS = ("synthesis.to_rgb.", "from_rgb.")

FAMILY = Family("stylegan", StyleGAN1Config, StyleGAN1Generator, StyleGAN1Discriminator, widened, IMAGE_LAYERS)
