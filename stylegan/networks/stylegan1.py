"""StyleGAN (Karras, Laine, Aila 2019): config, generator and discriminator. It grows by doublings, block by block.

The generator maps z to w, and w to the styles (scales and shifts) of two layers per resolution (figure 1b). The
discriminator is the mirror image, as in ProGAN (Karras et al. 2018, table 2) with StyleGAN's blur.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from stylegan.networks.base import Discriminator, Family, Generator, Noise, Synthesis
from stylegan.networks.config import WIDEST, Cost, LayerInfo, NetworkConfig, Stage, require_styles
from stylegan.networks.layers import (
    SQRT2,
    EqualConv2d,
    EqualLinear,
    always,
    for_convolutions,
    minibatch_stddev,
    pixel_norm,
)
from stylegan.networks.mapping import Activation, MappingNetwork, class_weights
from torch_utils.errors import UserError

SG1 = TypeVar("SG1", bound="StyleGAN1Config")


@dataclass(frozen=True)
class StyleGAN1Config(NetworkConfig):
    """The defaults are the paper's for 1024x1024 (table 5)."""

    family: str = "stylegan"

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

    TITLE: ClassVar[str] = "StyleGAN"
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **NetworkConfig.LIMITS,
        "w_dim": (1, 2 * WIDEST), "mapping_layers": (0, 64), "mapping_dim": (1, WIDEST), "fmap_base": (1, 1 << 30),
        "fmap_max": (1, WIDEST), "d_fmap_max": (1, WIDEST), "mbstd_group": (0, WIDEST), "mbstd_features": (1, WIDEST),
        "mapping_lr_mul": (1e-9, 1e9), "style_mixing": (0, 1),
    }  # fmt: skip

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Two per resolution, each fed by a row of its own, or all by one row where styles are off."""
        return tuple(
            LayerInfo(
                row=2 * index + half if self.styles else 0,
                resolution=res,
                style_dim=2 * self.nf(res) if self.styles else 0,
                noise_shape=self.size(res) if self.noise else None,
            )
            for index, res in enumerate(self.resolutions)
            for half in (0, 1)
        )

    def style_channel_name(self, layer: int, index: int) -> str:
        """A style is a scale for each feature map, then a shift for each: "layer 3 scale 5" or "layer 3 shift 5"."""
        maps = self.layers[layer].style_dim // 2
        return f"layer {layer} {'scale' if index < maps else 'shift'} {index % maps}"

    @property
    def ws_dim(self) -> int:
        return self.w_dim

    @property
    def mixing_probability(self) -> float:
        return self.style_mixing

    @property
    def minibatch_group(self) -> int:
        return self.mbstd_group

    def nf(self, resolution: int) -> int:
        """Feature maps at a resolution."""
        return max(1, min(self.fmap_base // resolution, self.fmap_max))

    def generator_cost(self, resolution: int) -> Cost:
        """In the least arithmetic known: convolutions that upsample cost 4 multiplications per output pixel and pair of
        channels, not 9 (`ops.resample`)."""
        gflop, activations = 0.0, 0
        for res in self.resolutions:
            if res <= resolution:
                height, width = self.size(res)
                taps = 9 * self.nf(res) + (4 * self.nf(res // 2) if res > 4 else 0)
                gflop += 2 * height * width * self.nf(res) * taps / 1e9
                activations += 2 * self.nf(res) * height * width
        return Cost(gflop, activations)

    def discriminator_cost(self, resolution: int) -> Cost:
        """The mirror image costs as much as a generator with its feature maps."""
        return self.of_discriminator.generator_cost(resolution)

    @property
    def of_discriminator(self: SG1) -> SG1:
        """The same with the discriminator's feature maps, of which it may have fewer than the generator."""
        own = self.fmap_max if self.d_fmap_max is None else self.d_fmap_max
        return replace(self, fmap_max=min(self.fmap_max, own), d_fmap_max=None)

    def check(self) -> None:
        width = self.z_dim * (2 if self.num_classes else 1)
        if not self.mapping_layers and self.w_dim != width:
            raise UserError(f"--map-depth 0 makes z the style, so --w-dim {self.w_dim} must be {width}")
        if self.style_mixing > 1:
            raise UserError(f"--style-mixing-prob {self.style_mixing} is not a probability; give 0 to 1")

    def wider_than(self, other: NetworkConfig) -> bool:
        """Never with pixel norm, in which every feature map depends on all others."""
        if not isinstance(other, StyleGAN1Config):
            return False
        shared = [2, *(res for res in other.resolutions if res in self.resolutions)]  # 2: the dense layers of D
        pairs = [(other.nf(res), self.nf(res)) for res in shared]
        return all(n <= w for n, w in pairs) and any(n < w for n, w in pairs) and not self.pixel_norm

    def widths_of(self, other: NetworkConfig) -> dict[str, int]:
        if not isinstance(other, StyleGAN1Config):
            return {}
        return {"fmap_base": other.fmap_base, "fmap_max": other.fmap_max}

    @property
    def own_widths(self) -> dict[str, str]:
        return {} if self.d_fmap_max is None else {"fmap_max": "d_fmap_max"}

    def width_of(self, other: NetworkConfig) -> dict[str, int]:
        """A discriminator that is narrower there than the generator stays so, unless it would be narrower than here."""
        if not isinstance(other, StyleGAN1Config):
            return {}
        found = {name: value for name, value in self.widths_of(other).items() if value > getattr(self, name)}
        own = other.of_discriminator.fmap_max
        if own < other.fmap_max and own >= self.of_discriminator.fmap_max:
            found["d_fmap_max"] = own
        return found


class StyleLayer(nn.Module):
    """One convolution (or the constant, or the dense input) and the epilogue after it.

    kind: "const" and "dense" start a network, "up" doubles the resolution, "conv" keeps it.
    """

    noise: Tensor

    def __init__(self, config: StyleGAN1Config, kind: str, in_channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        self.config, self.kind, self.size = config, kind, size
        height, width = size
        if kind == "const":
            self.const = nn.Parameter(torch.ones(1, out_channels, height, width))
        elif kind == "dense":
            self.weight = nn.Parameter(torch.randn(out_channels * height * width, in_channels))
            # A quarter of the usual gain: ProGAN's choice for the first layer.
            self.scale = SQRT2 / 4 / math.sqrt(in_channels)
        else:
            self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
            self.scale = SQRT2 / math.sqrt(in_channels * 9)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if config.noise:
            self.noise_strength = nn.Parameter(torch.zeros(out_channels))
            self.register_buffer("noise", torch.randn(1, 1, height, width))
        if config.styles:
            self.style = EqualLinear(config.w_dim, 2 * out_channels, gain=1.0)

    def forward(
        self, x: Tensor | None, w: Tensor, noise: Tensor | None, dtype: torch.dtype, edit: Tensor | None = None
    ) -> Tensor:
        """x: [N,I,h,w] or None for the first layer  w: [N,w_dim]  edit: [N,2O], added to the style

        -> [N,O,H,W] in `dtype`.
        """
        config = self.config
        x = self._convolve(x, w, dtype)
        style = self.style(w) if config.styles else None
        if edit is not None and style is not None:
            style = style + edit
        strength = self.noise_strength if noise is not None else None
        if not config.pixel_norm:
            return style_epilogue(x, self.bias, noise, strength, style, config.activation, config.instance_norm).to(
                dtype
            )
        # Pixel norm comes between activation and instance norm; an ablation, so not worth a fused op.
        x = style_epilogue(x, self.bias, noise, strength, None, config.activation, instance_norm=False)
        no_bias = torch.zeros_like(self.bias)
        return style_epilogue(pixel_norm(x), no_bias, None, None, style, "linear", config.instance_norm).to(dtype)

    def _convolve(self, x: Tensor | None, w: Tensor, dtype: torch.dtype) -> Tensor:
        if self.kind == "const":
            # Stays float32 up to the instance norm: it starts as ones, from which bfloat16 cannot tell what it learns.
            return self.const.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        (weight,) = self.effective(dtype)
        if self.kind == "dense":
            return F.linear(w, weight).unflatten(1, (-1, *self.size)).to(dtype, memory_format=torch.channels_last)
        assert x is not None
        if self.kind == "up":
            return blur(upsample_conv2d(x, weight), self.config.blur)
        return conv2d(x, weight, padding=1)

    def effective(self, dtype: torch.dtype) -> tuple[Tensor]:
        """The weight as it counts, in the form that the layer's operation takes."""
        if self.kind == "up":
            return (for_convolutions(upsampling_kernel(self.weight, self.scale), dtype),)
        if self.kind == "dense":
            return (self.weight * self.scale,)
        return (for_convolutions(self.weight * self.scale, dtype),)

    def fold(self, dtype: torch.dtype, batch: int | None) -> None:
        """Keep what is derived from the weight; packed, if the batch is known."""
        if self.kind != "const":
            kept = self.effective(dtype) if batch is None else self.packed(dtype, batch)
            setattr(self, "effective", always(kept))  # noqa: B010

    def packed(self, dtype: torch.dtype, batch: int) -> tuple[Tensor]:
        """The weight in the order in which a convolution of so many images reads it; it has no derivative."""
        (weight,) = self.effective(dtype)
        if self.kind == "dense":
            return (weight,)
        if self.kind == "up":
            return (packed_for_upsampling(weight, batch, (self.size[0] // 2, self.size[1] // 2)),)
        return (packed(weight, batch, self.size, padding=1),)


class SynthesisNetwork(Synthesis):
    """g: (ws, noise) -> images (StyleGAN, figure 1b). All blocks exist from the start."""

    def __init__(self, config: StyleGAN1Config):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({str(res): _block(config, res) for res in config.resolutions})
        self.to_rgb = nn.ModuleDict(
            {str(res): EqualConv2d(config.nf(res), config.channels, 1, gain=1.0) for res in config.resolutions}
        )

    def style_layers(self) -> list[StyleLayer]:
        """In the order of `config.layers`."""
        return [layer for res in self.config.resolutions for layer in self._block(res)]

    def forward(
        self,
        ws: Tensor,
        stage: Stage | None = None,
        noise: Noise = "const",
        dtype: torch.dtype = torch.float32,
        edits: Sequence[Tensor] = (),
    ) -> Tensor:
        """See `Synthesis.forward`. edits: to the scales of a layer [1 or N,C], then to its shifts."""
        stage = stage or self.config.full
        x: Tensor | None = None
        image: Tensor | None = None
        layers = self.config.layers_at(stage.resolution)
        maps = self._noise_maps(noise, stage.resolution, ws)
        for index, (about, layer) in enumerate(zip(layers, self.style_layers(), strict=False)):
            x = layer(x, ws[:, about.row], maps[index], dtype, edits[index] if edits else None)
            if index % 2 and about.resolution == stage.resolution // 2 and stage.alpha < 1:
                image = self._rgb(about.resolution, x)
        newest = self._rgb(stage.resolution, x)
        return newest if image is None else torch.lerp(upsample_nearest(image), newest, stage.alpha)

    def _block(self, resolution: int) -> tuple[StyleLayer, StyleLayer]:
        first, second = self.blocks[str(resolution)].children()
        assert isinstance(first, StyleLayer) and isinstance(second, StyleLayer)
        return first, second

    def _rgb(self, resolution: int, x: Tensor | None) -> Tensor:
        image: Tensor = self.to_rgb[str(resolution)](x)
        return image.float()

    def _noise_maps(self, noise: Noise, resolution: int, ws: Tensor) -> Sequence[Tensor | None]:
        count = len(self.config.layers_at(resolution))
        if not self.config.noise or noise == "none":
            return [None] * count
        if noise == "const":
            return [layer.noise for layer in self.style_layers()]
        if noise == "random":
            shapes = self.config.noise_shapes(resolution)
            return [torch.randn(len(ws), 1, h, w, device=ws.device) for h, w in shapes]
        if isinstance(noise, str) or len(noise) < count:
            raise ValueError(f"noise is 'const', 'random', 'none' or {count} maps, not {noise!r:.80}")
        return noise


def _block(config: StyleGAN1Config, resolution: int) -> nn.ModuleList:
    out, size = config.nf(resolution), config.size(resolution)
    if resolution == 4:
        first = StyleLayer(config, "const" if config.const_input else "dense", config.w_dim, out, size)
    else:
        first = StyleLayer(config, "up", config.nf(resolution // 2), out, size)
    return nn.ModuleList([first, StyleLayer(config, "conv", out, out, size)])


class StyleGAN1Generator(Generator):
    """A mapping network and a synthesis network (StyleGAN, figure 1)."""

    config: StyleGAN1Config
    synthesis: SynthesisNetwork

    def __init__(self, config: StyleGAN1Config):
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(
            config.z_dim, config.w_dim, config.num_classes, layers=config.mapping_layers, width=config.mapping_dim,
            lr_mul=config.mapping_lr_mul, activation=config.mapping_activation, normalize_z=config.normalize_z,
        )  # fmt: skip
        self.synthesis = SynthesisNetwork(config)

    def own_noise(self) -> list[Tensor]:
        return [layer.noise for layer in self.synthesis.style_layers()] if self.config.noise else []

    def styles(self, ws: Tensor) -> list[Tensor]:
        """The scales of each layer (around 0), then its shifts: [N,2C]. See `Generator.styles`."""
        require_styles(self.config)
        pairs = zip(self.config.layers, self.synthesis.style_layers(), strict=True)
        return [layer.style(ws[:, about.row]) for about, layer in pairs]

    def style_weight(self, layer: int) -> Tensor:
        require_styles(self.config)
        style = self.synthesis.style_layers()[layer].style
        return style.weight * style.scale

    def activations(self, ws: Tensor, layer: int) -> Tensor:
        require_styles(self.config)
        caught: list[Tensor] = []
        module = self.synthesis.style_layers()[layer]
        hook = module.register_forward_hook(lambda module, given, result: caught.append(result))
        try:
            self.synthesis(ws, Stage(self.config.layers[layer].resolution))
        finally:
            hook.remove()
        return caught[0]


class DiscriminatorBlock(nn.Module):
    """Two convolutions; the second blurs first and halves the resolution. [N,I,H,W] -> [N,O,H/2,W/2]."""

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
        """The second convolution's weight as it counts, merged with the averaging."""
        return (for_convolutions(downsampling_kernel(self.conv1.weight, self.conv1.scale), dtype),)

    def fold(self, dtype: torch.dtype, batch: int | None) -> None:
        """Keep what is derived from the weight."""
        setattr(self, "effective", always(self.effective(dtype)))  # noqa: B010


class DiscriminatorHead(nn.Module):
    """Minibatch statistics, a convolution at the base resolution, and two dense layers. [N,C,h,w] -> [N,outputs]."""

    def __init__(self, config: StyleGAN1Config, outputs: int):
        super().__init__()
        self.config = config
        channels, width = config.nf(4), config.nf(2)
        self.conv = EqualConv2d(channels + _statistics(config), channels, 3)
        self.dense0 = EqualLinear(channels * config.base[0] * config.base[1], width)
        self.dense1 = EqualLinear(width, outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.mbstd_group > 1:
            x = minibatch_stddev(x, self.config.mbstd_group, self.config.mbstd_features)
        x = self.conv(x, self.config.activation)
        # Scores are float32 whatever the feature maps are.
        x = bias_act(self.dense0(x.float().flatten(1)), activation=self.config.activation)
        scores: Tensor = self.dense1(x)
        return scores


class StyleGAN1Discriminator(Discriminator):
    """The mirror image of the generator, if need be a narrower one.

    A conditional one has one output per class and is asked for the image's own (Mescheder et al. 2018).
    """

    config: StyleGAN1Config

    def __init__(self, config: StyleGAN1Config):
        super().__init__()
        self.config = config = config.of_discriminator
        self.from_rgb = nn.ModuleDict(
            {str(res): EqualConv2d(config.channels, config.nf(res), 1) for res in config.resolutions}
        )
        self.blocks = nn.ModuleDict(
            {str(res): DiscriminatorBlock(config, res) for res in config.resolutions if res > 4}
        )
        self.head = DiscriminatorHead(config, self.num_outputs)

    @property
    def num_outputs(self) -> int:
        return max(self.config.num_classes, 1)

    def outputs(
        self, images: Tensor, c: Tensor | None = None, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        (x,) = deque(self.features(images, stage, dtype), maxlen=1)  # the last
        return self.chosen(self.head(x), c)

    def chosen(self, outputs: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scores [N] and class logits [N,0] from the outputs of the head [N,num_outputs]."""
        if not self.config.num_classes:
            return outputs[:, 0], outputs[:, 1:]
        return (outputs * class_weights(c, self.config.num_classes)).sum(dim=1), outputs[:, :0]

    def features(
        self, images: Tensor, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> Iterator[Tensor]:
        """What comes out of from_rgb and of each block, [N,C,H,W] down to [N,C,h,w] of the base."""
        resolution = self.config.nominal(images.shape[2])
        alpha = 1.0 if stage is None else stage.alpha
        x = self._from_rgb(resolution, images, dtype)
        yield x
        for res in sorted((r for r in self.config.resolutions if 4 < r <= resolution), reverse=True):
            x = self.blocks[str(res)](x)
            if res == resolution and alpha < 1:
                x = torch.lerp(self._from_rgb(res // 2, downsample_box(images), dtype), x, alpha)
            yield x

    def _from_rgb(self, resolution: int, images: Tensor, dtype: torch.dtype) -> Tensor:
        x: Tensor = self.from_rgb[str(resolution)](
            images.to(dtype, memory_format=torch.channels_last), self.config.activation
        )
        return x


def _statistics(config: StyleGAN1Config) -> int:
    """How many inputs of the discriminator's last convolution are no feature maps but minibatch standard deviations."""
    return config.mbstd_features if config.mbstd_group > 1 else 0


def widened(name: str, narrow: Tensor, fresh: Tensor, config: NetworkConfig) -> Tensor:
    """The tensor `name` of the wider network, from that of the narrower one and a fresh one of the wider.

    The two differ only in how many feature maps they have. The new feature maps start as those of a fresh network, but
    the weights by which old maps depend on new ones are zero, so that the network computes what the narrower one did
    (Chen et al. 2016, Net2Net, section 3). Minibatch statistics are averages over all maps: scores change a little
    where 4x4 is wider.
    """
    assert isinstance(config, StyleGAN1Config)
    wide = fresh.clone()
    if name.endswith(".const"):  # [1,C,h,w]
        wide[:, : narrow.shape[1]] = narrow
    elif ".style." in name:  # the scales of all maps, then the shifts of all
        wide.unflatten(0, (2, -1))[:, : len(narrow) // 2] = narrow.unflatten(0, (2, -1))
    elif narrow.ndim == 1:
        wide[: len(narrow)] = narrow
    else:  # [outputs, inputs, ...], scaled by 1 / sqrt(fan_in) when used
        maps = narrow.shape[1] - (_statistics(config) if name == "head.conv.weight" else 0)
        old = wide[: len(narrow)].zero_()
        old[:, :maps] = narrow[:, :maps]
        old[:, old.shape[1] - narrow.shape[1] + maps :] = narrow[:, maps:]
        old *= (old[0].numel() / narrow[0].numel()) ** 0.5
    return wide


FAMILY = Family("stylegan", StyleGAN1Config, StyleGAN1Generator, StyleGAN1Discriminator, widened)
