"""ws -> picture: blocks of two style layers per resolution, which grow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

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
from stylegan.networks.base import ModelConfig
from stylegan.networks.layers import SQRT2, EqualConv2d, EqualLinear, for_convolutions, minibatch_stddev, pixel_norm
from stylegan.networks.mapping import class_weights
from torch_utils.errors import UserError

Noise = str | Sequence[Tensor]
""""const", "random", "none", or a map [1 or N,1,H,W] for each layer."""


class StyleLayer(nn.Module):
    """One convolution (or the constant, or the dense input) and the epilogue after it.

    kind: "const" and "dense" start a network, "up" doubles the resolution, "conv" keeps it.
    """

    noise: Tensor

    def __init__(self, cfg: ModelConfig, kind: str, in_channels: int, out_channels: int, size: tuple[int, int]):
        super().__init__()
        self.cfg, self.kind, self.size = cfg, kind, size
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
        if cfg.noise:
            self.noise_strength = nn.Parameter(torch.zeros(out_channels))
            self.register_buffer("noise", torch.randn(1, 1, height, width))
        if cfg.styles:
            self.style = EqualLinear(cfg.w_dim, 2 * out_channels, gain=1.0)

    def forward(
        self, x: Tensor | None, w: Tensor, noise: Tensor | None, dtype: torch.dtype, edit: Tensor | None = None
    ) -> Tensor:
        """x: [N,I,h,w] or None for the first layer  w: [N,w_dim]  edit: [N,2O], added to the style

        -> [N,O,H,W] in `dtype`.
        """
        cfg = self.cfg
        x = self._convolve(x, w, dtype)
        style = self.style(w) if cfg.styles else None
        if edit is not None and style is not None:
            style = style + edit
        strength = self.noise_strength if noise is not None else None
        if not cfg.pixel_norm:
            return style_epilogue(x, self.bias, noise, strength, style, cfg.activation, cfg.instance_norm).to(dtype)
        # Pixel norm comes between activation and instance norm; an ablation, so not worth a fused op.
        x = style_epilogue(x, self.bias, noise, strength, None, cfg.activation, instance_norm=False)
        no_bias = torch.zeros_like(self.bias)
        return style_epilogue(pixel_norm(x), no_bias, None, None, style, "linear", cfg.instance_norm).to(dtype)

    def _convolve(self, x: Tensor | None, w: Tensor, dtype: torch.dtype) -> Tensor:
        if self.kind == "const":
            # Stays float32 up to the instance norm: it starts as ones, from which bfloat16 cannot tell what it learns.
            return self.const.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        (weight,) = self.effective(dtype)
        if self.kind == "dense":
            return F.linear(w, weight).unflatten(1, (-1, *self.size)).to(dtype, memory_format=torch.channels_last)
        assert x is not None
        if self.kind == "up":
            return blur(upsample_conv2d(x, weight), self.cfg.blur)
        return conv2d(x, weight, padding=1)

    def effective(self, dtype: torch.dtype) -> tuple[Tensor]:
        """The weight as it counts, in the form that the layer's operation takes."""
        if self.kind == "up":
            return (for_convolutions(upsampling_kernel(self.weight, self.scale), dtype),)
        if self.kind == "dense":
            return (self.weight * self.scale,)
        return (for_convolutions(self.weight * self.scale, dtype),)

    def packed(self, dtype: torch.dtype, batch: int) -> tuple[Tensor]:
        """The same in the order in which a convolution of so many pictures reads it; it has no derivative."""
        (weight,) = self.effective(dtype)
        if self.kind == "dense":
            return (weight,)
        if self.kind == "up":
            return (packed_for_upsampling(weight, batch, (self.size[0] // 2, self.size[1] // 2)),)
        return (packed(weight, batch, self.size, padding=1),)


class SynthesisNetwork(nn.Module):
    """g: (ws, noise) -> picture (StyleGAN, figure 1b). All blocks exist from the start.

    `grown` is how far the network has been trained: (resolution, alpha). It is what `forward` draws when it is not
    told otherwise, so that half-grown networks show pictures and not their untrained blocks.
    """

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.grown: tuple[int, float] = (cfg.resolution, 1.0)
        self.blocks = nn.ModuleDict({str(res): _block(cfg, res) for res in cfg.resolutions})
        self.to_rgb = nn.ModuleDict(
            {str(res): EqualConv2d(cfg.nf(res), cfg.channels, 1, gain=1.0) for res in cfg.resolutions}
        )

    def noise_sizes(self, resolution: int) -> list[tuple[int, int]]:
        """Height and width of the noise map of each layer, up to a resolution."""
        if not self.cfg.noise:
            return []
        return [self.cfg.size(res) for res in self.cfg.resolutions if res <= resolution for _ in range(2)]

    def style_sizes(self) -> list[int]:
        """How many numbers the style of each layer has: a scale and a shift per feature map."""
        return [2 * self.cfg.nf(res) for res in self.cfg.resolutions for _ in range(2)] if self.cfg.styles else []

    def styles(self, ws: Tensor) -> list[Tensor]:
        """ws: [N,num_ws,w_dim] -> the style of each layer, [N,2C]: scales (around 0), then shifts.

        A point of StyleSpace (Wu et al. 2021). Raises UserError for a network without styles.
        """
        if not self.cfg.styles:
            raise UserError("this network has no styles; use a StyleGAN network for this")
        return [self.style_layer(row).style(ws[:, row]) for row in range(self.cfg.num_layers)]

    def style_layer(self, row: int) -> StyleLayer:
        """The layer that row `row` of ws feeds."""
        return self._layers(self.cfg.resolutions[row // 2])[row % 2]

    def own_noise(self) -> list[Tensor]:
        """The network's own noise map [1,1,H,W] of each layer."""
        return [layer.noise for res in self.cfg.resolutions for layer in self._layers(res)] if self.cfg.noise else []

    def forward(
        self,
        ws: Tensor,
        resolution: int | None = None,
        alpha: float | None = None,
        noise: Noise = "const",
        dtype: torch.dtype = torch.float32,
        edits: Sequence[Tensor] = (),
    ) -> Tensor:
        """ws: [N,num_ws,w_dim] -> pictures [N,channels,H,W], float32, about [-1, 1].

        resolution: where to stop; by default as far as the network has grown.
        alpha: weight of the newest block against the one before, 0 to 1 (ProGAN, figure 2).
        noise: see `Noise`; "random" draws from torch's global generator.
        dtype: of the feature maps; weights, statistics, styles and pictures stay float32.
        edits: what is added to each layer's style, [1 or N,2C]: to its scales, then to its shifts (StyleSpace, Wu et
        al. 2021); empty for nothing.
        """
        if resolution is None:
            resolution, alpha = self.grown[0], self.grown[1] if alpha is None else alpha
        alpha = 1.0 if alpha is None else alpha
        x: Tensor | None = None
        image: Tensor | None = None
        maps = self._noise_maps(noise, resolution, ws)
        for index, res in enumerate(r for r in self.cfg.resolutions if r <= resolution):
            for half, layer in enumerate(self._layers(res)):
                row = 2 * index + half
                x = layer(x, ws[:, row if self.cfg.styles else 0], maps[row], dtype, edits[row] if edits else None)
            if res == resolution // 2 and alpha < 1:
                image = self._rgb(res, x)
        assert x is not None
        newest = self._rgb(resolution, x)
        return newest if image is None else torch.lerp(upsample_nearest(image), newest, alpha)

    def _layers(self, resolution: int) -> tuple[StyleLayer, StyleLayer]:
        first, second = self.blocks[str(resolution)].children()
        assert isinstance(first, StyleLayer) and isinstance(second, StyleLayer)
        return first, second

    def _rgb(self, resolution: int, x: Tensor | None) -> Tensor:
        image: Tensor = self.to_rgb[str(resolution)](x)
        return image.float()

    def _noise_maps(self, noise: Noise, resolution: int, ws: Tensor) -> Sequence[Tensor | None]:
        rows = 2 * (1 + self.cfg.resolutions.index(resolution))
        if not self.cfg.noise or noise == "none":
            return [None] * rows
        if noise == "const":
            return self.own_noise()
        if noise == "random":
            return [torch.randn(len(ws), 1, h, w, device=ws.device) for h, w in self.noise_sizes(resolution)]
        if isinstance(noise, str) or len(noise) < rows:
            raise ValueError(f"noise is 'const', 'random', 'none' or {rows} maps, not {noise!r:.80}")
        return noise


def _block(cfg: ModelConfig, resolution: int) -> nn.ModuleList:
    out, size = cfg.nf(resolution), cfg.size(resolution)
    if resolution == 4:
        first = StyleLayer(cfg, "const" if cfg.const_input else "dense", cfg.w_dim, out, size)
    else:
        first = StyleLayer(cfg, "up", cfg.nf(resolution // 2), out, size)
    return nn.ModuleList([first, StyleLayer(cfg, "conv", out, out, size)])


# Picture -> score. The resolution is read off the picture


class DiscriminatorBlock(nn.Module):
    """Two convolutions; the second blurs first and halves the resolution. [N,I,H,W] -> [N,O,H/2,W/2]."""

    def __init__(self, cfg: ModelConfig, resolution: int):
        super().__init__()
        self.cfg = cfg
        channels = cfg.nf(resolution)
        self.conv0 = EqualConv2d(channels, channels, 3)
        self.conv1 = EqualConv2d(channels, cfg.nf(resolution // 2), 3)

    def forward(self, x: Tensor) -> Tensor:
        x = blur(self.conv0(x, self.cfg.activation), self.cfg.blur)
        (kernel,) = self.effective(x.dtype)
        return bias_act(conv2d_downsample(x, kernel), self.conv1.bias, self.cfg.activation)

    def effective(self, dtype: torch.dtype) -> tuple[Tensor]:
        """The second convolution's weight as it counts, merged with the averaging."""
        return (for_convolutions(downsampling_kernel(self.conv1.weight, self.conv1.scale), dtype),)


class DiscriminatorHead(nn.Module):
    """Minibatch statistics, a convolution at the base resolution, and two dense layers. [N,C,h,w] -> [N,outputs]."""

    def __init__(self, cfg: ModelConfig, outputs: int):
        super().__init__()
        self.cfg = cfg
        channels, width = cfg.nf(4), cfg.nf(2)
        extra = cfg.mbstd_features if cfg.mbstd_group > 1 else 0
        self.conv = EqualConv2d(channels + extra, channels, 3)
        self.dense0 = EqualLinear(channels * cfg.base[0] * cfg.base[1], width)
        self.dense1 = EqualLinear(width, outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.cfg.mbstd_group > 1:
            x = minibatch_stddev(x, self.cfg.mbstd_group, self.cfg.mbstd_features)
        x = self.conv(x, self.cfg.activation)
        # Scores are float32 whatever the feature maps are.
        x = bias_act(self.dense0(x.float().flatten(1)), activation=self.cfg.activation)
        scores: Tensor = self.dense1(x)
        return scores


class Discriminator(nn.Module):
    """The mirror image of the generator (ProGAN, table 2, with StyleGAN's blur), if need be a narrower one.

    A conditional StyleGAN discriminator has one output per class and is asked for the picture's own
    (Mescheder et al. 2018); ProGAN's has one score and the logits of a classifier (AC-GAN).
    """

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg = cfg.of_discriminator
        self.from_rgb = nn.ModuleDict({str(res): EqualConv2d(cfg.channels, cfg.nf(res), 1) for res in cfg.resolutions})
        self.blocks = nn.ModuleDict({str(res): DiscriminatorBlock(cfg, res) for res in cfg.resolutions if res > 4})
        outputs = 1 + cfg.num_classes if cfg.family == "progan" else max(cfg.num_classes, 1)
        self.head = DiscriminatorHead(cfg, outputs)

    def forward(
        self, images: Tensor, c: Tensor | None = None, alpha: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """images: [N,channels,H,W] in [-1, 1]  c: class numbers [N] -> scores [N], float32.

        alpha: weight of the newest block against the one before. dtype: of the feature maps.
        """
        return self.judge(images, c, alpha, dtype)[0]

    def judge(
        self, images: Tensor, c: Tensor | None = None, alpha: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Scores [N] as `forward` gives them, and AC-GAN's class logits [N,num_classes] ([N,0] but for ProGAN)."""
        (x,) = deque(self.features(images, alpha, dtype), maxlen=1)  # the last
        outputs = self.head(x)
        if self.cfg.family == "progan" or not self.cfg.num_classes:
            return outputs[:, 0], outputs[:, 1:]
        return (outputs * class_weights(c, self.cfg.num_classes)).sum(dim=1), outputs[:, :0]

    def features(self, images: Tensor, alpha: float = 1.0, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
        """What comes out of from_rgb and of each block, [N,C,H,W] down to [N,C,h,w] of the base. See `forward`."""
        resolution = self.cfg.nominal(images.shape[2])
        x = self._from_rgb(resolution, images, dtype)
        yield x
        for res in sorted((r for r in self.cfg.resolutions if 4 < r <= resolution), reverse=True):
            x = self.blocks[str(res)](x)
            if res == resolution and alpha < 1:
                x = torch.lerp(self._from_rgb(res // 2, downsample_box(images), dtype), x, alpha)
            yield x

    def _from_rgb(self, resolution: int, images: Tensor, dtype: torch.dtype) -> Tensor:
        x: Tensor = self.from_rgb[str(resolution)](
            images.to(dtype, memory_format=torch.channels_last), self.cfg.activation
        )
        return x
