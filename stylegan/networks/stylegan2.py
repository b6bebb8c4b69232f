"""StyleGAN2 (Karras, Laine, Aittala, Hellsten, Lehtinen, Aila 2020): config and generator.

    z [N,z_dim] -> mapping -> w [N,w_dim] -> broadcast -> ws [N,L,w_dim]

    const [C,4,4] -> conv -> up, conv -> conv -> up, conv -> conv -> ...
                     |                   |                  |
                     to_rgb ----- up --- + ------- up ----- + ... -> images [N,3,R,R]

Every convolution is modulated: the style, which a layer computes from its row of ws, scales the feature maps that go
in, and demodulation scales those that come out back to the variance that they would have had. No feature map is
normalised. Then come noise, of one strength for each layer, bias, activation and clamp. Images of all resolutions are
added up ("skip", as drawn), or the feature maps go around each block as well ("resnet"), or neither ("orig"; section
4.1). A network has its full resolution from the start.

StyleGAN2-ADA (Karras et al. 2020) has the same networks, with classes and a clamp. `stylegan2_discriminator.py` holds
the discriminator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ops.bias_act import bias_act
from ops.conv2d import conv2d
from ops.conv2d_resample import conv2d_resample
from ops.modulated_conv2d import demodulated_conv2d, modulated_conv2d, prepared
from ops.resample import constant_filter, upsample2d
from ops.style_epilogue import noise_maps
from stylegan.networks.arguments import require_ws
from stylegan.networks.base import Generator, Noise, Synthesis, noise_of_layers
from stylegan.networks.config import WIDEST, Cost, LayerInfo, NetworkConfig, Stage
from stylegan.networks.layers import SQRT2, EqualLinear, Foldable, for_convolutions, pixel_norm
from stylegan.networks.mapping import Activation, MappingConfig, MappingNetwork, StyleConfig
from torch_utils.errors import UserError

Architecture = Literal["skip", "resnet", "orig"]
HALF = math.sqrt(0.5)  # gain of two branches of equal variance, so that their sum has it as well


@dataclass(frozen=True)
class StyleGAN2Config(StyleConfig):
    """The defaults are those of the paper for 1024x1024 (config F).

    conv_clamp: largest size of any feature map; None for no limit. Networks that were trained in float16 have 256.
    cmap_dim: length of the vectors whose product is the score of a conditional discriminator (projection, Miyato and
    Koyama 2018); None for as many as its last feature maps. 0: an output for each class, as in StyleGAN
    cmap_layers: layers of the mapping from the class to such a vector
    """

    family: str = "stylegan2"

    fmap_base: int = 32768
    fmap_max: int = 512
    activation: Activation = "lrelu"
    architecture: Architecture = "skip"
    d_architecture: Architecture = "resnet"
    resample_filter: tuple[float, ...] = (1, 3, 3, 1)
    conv_clamp: float | None = None
    noise: bool = True
    style_mixing: float = 0.9

    mbstd_group: int = 4
    mbstd_features: int = 1
    cmap_dim: int | None = None
    cmap_layers: int = 8

    TITLE: ClassVar[str] = "StyleGAN2"
    OWN: ClassVar[frozenset[str]] = NetworkConfig.OWN | {"style_mixing", "mbstd_group"}
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **MappingConfig.LIMITS, "fmap_base": (1, 1 << 30), "fmap_max": (1, WIDEST), "conv_clamp": (1e-9, 1e9),
        "mbstd_group": (0, WIDEST), "mbstd_features": (1, WIDEST), "style_mixing": (0, 1), "cmap_dim": (0, WIDEST),
        "cmap_layers": (0, 64),
    }  # fmt: skip

    @property
    def stages(self) -> tuple[int, ...]:
        """Only the full size, as the network does not grow."""
        return (self.resolution,)

    @property
    def mapping_inputs(self) -> int:
        return self.z_dim + (self.w_dim if self.num_classes else 0)

    @cached_property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Two convolutions for each resolution, but one for the first, then the layer to the image, if there is one.

        The last shares the row of the next convolution. So there is one row for each convolution, and one more.
        """
        found: list[LayerInfo] = []
        row = 0
        for res in self.resolutions:
            for inputs in self.conv_inputs(res):
                found.append(LayerInfo(row, res, inputs, self.size(res) if self.noise else None))
                row += 1
            if res in self.image_resolutions:
                found.append(LayerInfo(row, res, self.nf(res), kind="rgb"))
        return tuple(found)

    @property
    def image_resolutions(self) -> tuple[int, ...]:
        """Resolutions at which the generator has a layer to the image."""
        return self.resolutions if self.architecture == "skip" else self.resolutions[-1:]

    def conv_inputs(self, resolution: int) -> list[int]:
        """Number of input maps of each convolution of a block of the generator."""
        return [*([self.nf(resolution // 2)] if resolution > 4 else []), self.nf(resolution)]

    def generator_cost(self, resolution: int) -> Cost:
        """Upsampling convolutions are transposed ones, and cost 9 multiplications for each pixel that goes in."""
        operations, activations = 0, 0
        for res in self.resolutions:
            if res <= resolution:
                (height, width), maps = self.size(res), self.nf(res)
                operations += 9 * height * width * maps * maps
                activations += height * width * maps
                if res > 4:
                    taps = 9 + (self.architecture == "resnet")
                    operations += taps * (height // 2) * (width // 2) * maps * self.nf(res // 2)
                    activations += height * width * maps * (2 if self.architecture == "resnet" else 1)
                if res in self.image_resolutions:
                    operations += height * width * maps * self.channels
        return Cost(2 * operations / 1e9, activations)

    def discriminator_cost(self, resolution: int) -> Cost:
        height, width = self.size(resolution)
        operations = height * width * self.nf(resolution) * self.channels
        activations = height * width * self.nf(resolution)
        for res in self.resolutions:
            if 4 < res <= resolution:
                (height, width), maps, out = self.size(res), self.nf(res), self.nf(res // 2)
                quarter = (height // 2) * (width // 2)
                operations += 9 * height * width * maps * maps
                operations += quarter * maps * out * (10 if self.d_architecture == "resnet" else 9)
                activations += height * width * maps + quarter * out * (2 if self.d_architecture == "resnet" else 1)
                if self.d_architecture == "skip":
                    operations += quarter * self.channels * out
                    activations += quarter * out
        base = self.base[0] * self.base[1]
        added = self.mbstd_features if self.mbstd_group > 1 else 0
        operations += 9 * base * self.nf(4) * (self.nf(4) + added)
        return Cost(2 * operations / 1e9, activations + base * self.nf(4))

    def check(self) -> None:
        if self.num_classes and not self.mapping_layers:
            raise UserError("--map-depth must be at least 1 with classes, which the mapping network mixes with z")
        super().check()
        if self.style_mixing > 1:
            raise UserError(f"--style-mixing-prob must be from 0 to 1, got {self.style_mixing}")


# Layers, which both networks have


class ResampledConv2d(Foldable):
    """A convolution with equalised learning rate, which may double or halve the resolution with a filter.

    [N,I,H,W] -> [N,O,H',W']. Without bias there is no activation either: a shortcut.
    """

    def __init__(self, config: StyleGAN2Config, inputs: int, outputs: int, kernel: int, up: int = 1, down: int = 1,
                 bias: bool = True):  # fmt: skip
        super().__init__()
        self.config, self.up, self.down = config, up, down
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        if bias:
            self.bias = nn.Parameter(torch.zeros(outputs))

    def effective(self, dtype: torch.dtype) -> tuple[Tensor]:
        """The scaled weight [O,I,k,k]."""
        return (for_convolutions(self.weight * self.scale, dtype),)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        (weight,) = self.effective(x.dtype)
        y = resampled(x, weight, self.config, self.up, self.down)
        bias = getattr(self, "bias", None)
        return y * gain if bias is None else activated(y, bias, self.config, gain)


def resampled(
    x: Tensor, weight: Tensor, config: StyleGAN2Config, up: int = 1, down: int = 1, groups: int = 1
) -> Tensor:  # fmt: skip
    """Convolve x [N,I,H,W], padded to keep the size, with its resolution doubled before (up=2) or halved (down=2)."""
    padding = weight.shape[-1] // 2
    if up == down == groups == 1:
        return conv2d(x, weight, padding=padding)
    taps = constant_filter(config.resample_filter, x.device)
    # An upsampling kernel is turned round, as published.
    return conv2d_resample(x, weight, taps, up, down, padding, groups, flip_weight=up == 1)


def activated(x: Tensor, bias: Tensor, config: StyleGAN2Config, gain: float = 1.0) -> Tensor:
    """Bias, activation with its gain of sqrt(2), and clamp, which a smaller gain lowers as well."""
    clamp = None if config.conv_clamp is None else config.conv_clamp * gain
    return bias_act(x, bias, config.activation, gain=SQRT2 * gain, clamp=clamp)


# Generator


class StyleGAN2Mapping(MappingNetwork):
    """z and the class are normalised each by itself, and the bias of a layer comes before its gain."""

    config: StyleGAN2Config
    ACTIVATION_GAIN = SQRT2

    def fresh_embedding(self) -> Any:
        return EqualLinear(self.config.num_classes, self.config.w_dim, gain=1.0)

    def inputs(self, z: Tensor, classes: Tensor | None) -> Tensor:
        parts = [z] if classes is None else [z, self.embed(classes)]
        return torch.cat([pixel_norm(part) for part in parts] if self.config.normalize_z else parts, dim=1)


class ModulatedLayer(Foldable):
    """A modulated convolution and what follows it. up: 2 doubles the resolution, 1 keeps it.

    [N,I,h,w] and style [N,I] -> [N,O,H,W]. `style` computes the style from w; fresh ones are near 1.
    """

    noise: Tensor

    def __init__(self, config: StyleGAN2Config, inputs: int, outputs: int, size: tuple[int, int], up: int):
        super().__init__()
        self.config, self.size, self.up = config, size, up
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if config.noise:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise", torch.randn(1, 1, *size))
        self.style = _style(config, inputs)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None, stream: int, gain: float = 1.0) -> Tensor:
        """noise: a map [1 or N,1,H,W], or places [N,2] for the numbers of `stream`. gain: of the result."""
        if noise is not None:
            height, width = self.size
            added = noise_maps(noise, x.new_empty((0, 1, height, width)), stream)
            noise = None if added is None else added * self.noise_strength
        y = demodulated_conv2d(x, *self.effective(x.dtype), style, self.convolve, noise)
        return activated(y, self.bias, self.config, gain)

    def effective(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The weight [O,I,3,3] in `dtype`, and the sums of its squares [O,I]."""
        weight, squares = prepared(self.weight, dtype)
        return for_convolutions(weight, dtype), squares

    def convolve(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        return resampled(x, weight, self.config, self.up, groups=groups)


class ToRGB(nn.Module):
    """Feature maps [N,I,H,W] and style [N,I] -> image [N,channels,H,W], float32: 1x1, without demodulation."""

    def __init__(self, config: StyleGAN2Config, inputs: int):
        super().__init__()
        self.clamp, self.scale = config.conv_clamp, 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(config.channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.channels))
        self.style = _style(config, inputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y = modulated_conv2d(x, self.weight, style * self.scale, conv2d, demodulate=False)
        return bias_act(y, self.bias, clamp=self.clamp).float()


def _style(config: StyleGAN2Config, inputs: int) -> EqualLinear:
    layer = EqualLinear(config.w_dim, inputs, gain=1.0)
    nn.init.ones_(layer.bias)
    return layer


class StyleGAN2Synthesis(Synthesis):
    """(ws, noise) -> images (figure 7)."""

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        self.config = config
        self.const = nn.Parameter(torch.randn(1, config.nf(4), *config.base))
        self.convs = nn.ModuleDict({
            str(res): nn.ModuleList(
                ModulatedLayer(config, inputs, config.nf(res), config.size(res), 2 if res > 4 and k == 0 else 1)
                for k, inputs in enumerate(config.conv_inputs(res))
            ) for res in config.resolutions
        })  # fmt: skip
        self.to_rgb = nn.ModuleDict({str(res): ToRGB(config, config.nf(res)) for res in config.image_resolutions})
        around = config.resolutions[1:] if config.architecture == "resnet" else ()
        self.shortcuts = nn.ModuleDict({
            str(res): ResampledConv2d(config, config.nf(res // 2), config.nf(res), 1, up=2, bias=False)
            for res in around
        })  # fmt: skip

    def style_layers(self) -> list[ModulatedLayer | ToRGB]:
        """All layers with a style, in the order of `config.layers`."""
        found: list[ModulatedLayer | ToRGB] = []
        for res in self.config.resolutions:
            found += self.block(res)
            found += [layer for name, layer in self.to_rgb.items() if name == str(res) and isinstance(layer, ToRGB)]
        return found

    def block(self, resolution: int) -> list[ModulatedLayer]:
        """The convolutions of a resolution."""
        return [layer for layer in self.convs[str(resolution)].children() if isinstance(layer, ModulatedLayer)]

    def own_noise(self) -> list[Tensor]:
        """The noise maps of all layers with noise."""
        layers = [layer for res in self.config.resolutions for layer in self.block(res)]
        return [layer.noise for layer in layers] if self.config.noise else []

    def forward(
        self, ws: Tensor, stage: Stage | None = None, noise: Noise = "const", dtype: torch.dtype = torch.float32,
        edits: Sequence[Tensor] = (),
    ) -> Tensor:  # fmt: skip
        """See `Synthesis.forward`. There is only one stage."""
        require_ws(ws, self.config)
        given = self.styles(ws)
        if edits:
            given = [style + edit for style, edit in zip(given, edits, strict=True)]
        sizes = self.config.noise_shapes(self.config.resolution)
        maps = enumerate(noise_of_layers(noise, self.own_noise(), sizes, ws))
        styles = iter(given)
        x = self.const.to(dtype, memory_format=torch.channels_last).expand(len(ws), -1, -1, -1)
        image: Tensor | None = None
        for res in self.config.resolutions:
            name, convs = str(res), self.block(res)
            around = self.shortcuts[name](x, HALF) if name in self.shortcuts else None
            for layer in convs:
                stream, added = next(maps, (0, None))
                last = layer is convs[-1] and around is not None
                x = layer(x, next(styles), added, stream, HALF if last else 1.0)
            x = x if around is None else around + x
            if name in self.to_rgb:
                y: Tensor = self.to_rgb[name](x, next(styles))
                image = y if image is None else y + self._enlarged(image)
        assert image is not None
        return image

    def _enlarged(self, image: Tensor) -> Tensor:
        return upsample2d(image, constant_filter(self.config.resample_filter, image.device))

    def styles(self, ws: Tensor) -> list[Tensor]:
        """Style [N,I] of each layer, for the feature maps that go into it."""
        layers = self.style_layers()
        # Scaled once, and taken apart once: gradients are then put together, and not added up layer by layer.
        rows = (ws * layers[0].style.scale).unbind(1)
        return [layer.style.of_scaled(rows[about.row]) for about, layer in zip(self.config.layers, layers, strict=True)]

    def layer_of(self, weight: str) -> int:
        """See `Synthesis.layer_of`. What is not a convolution of a block belongs to its last one."""
        part, *rest = weight.split(".")
        if part == "const":
            return 0
        last = 2 * self.config.resolutions.index(int(rest[0]))
        return last - (len(self.block(int(rest[0]))) - 1 - int(rest[1])) if part == "convs" else last


class StyleGAN2Generator(Generator):
    """Mapping network and synthesis network."""

    config: StyleGAN2Config
    synthesis: StyleGAN2Synthesis

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        self.config = config
        self.mapping = StyleGAN2Mapping(config)
        self.synthesis = StyleGAN2Synthesis(config)

    def own_noise(self) -> list[Tensor]:
        return self.synthesis.own_noise()

    def styles(self, ws: Tensor) -> list[Tensor]:
        return self.synthesis.styles(ws)

    def style_weight(self, layer: int) -> Tensor:
        style = self.synthesis.style_layers()[layer].style
        return style.weight * style.scale

    def activations(self, ws: Tensor, layer: int) -> Tensor:
        caught: list[Tensor] = []
        module = self.synthesis.style_layers()[layer]
        with module.register_forward_hook(lambda module, inputs, output: caught.append(output)):
            self.synthesis(ws)
        return caught[0]
