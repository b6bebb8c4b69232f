"""The discriminator of StyleGAN2, and the family's entry in the registry.

    images [N,3,R,R] -> from_rgb -> conv, conv + down -> ... -> [N,C,4,4] -> minibatch stddev, conv, dense -> scores [N]

A block may have a shortcut around it ("resnet"), or the image may enter at every resolution ("skip"), or neither
("orig"; section 4.1). A conditional one multiplies its output with a vector of the image's class (StyleGAN2-ADA; Miyato
and Koyama 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ops.bias_act import bias_act
from ops.resample import constant_filter, downsample2d
from stylegan.networks.base import Discriminator, Family
from stylegan.networks.config import Stage
from stylegan.networks.layers import SQRT2, EqualLinear, minibatch_stddev, pixel_norm
from stylegan.networks.mapping import class_weights
from stylegan.networks.stylegan2 import HALF, ResampledConv2d, StyleGAN2Config, StyleGAN2Generator


class ClassMapping(nn.Module):
    """Weights of classes [N,num_classes] -> vectors [N,cmap_dim], by a mapping network without z."""

    def __init__(self, config: StyleGAN2Config, dim: int):
        super().__init__()
        self.activation, self.normalize = config.mapping_activation, config.normalize_z
        self.embed = EqualLinear(config.num_classes, dim, gain=1.0)
        self.layers = nn.ModuleList(
            EqualLinear(dim, dim, gain=1.0, lr_mul=config.mapping_lr_mul) for _ in range(config.cmap_layers)
        )

    def forward(self, classes: Tensor) -> Tensor:
        x: Tensor = self.embed(classes)
        x = pixel_norm(x) if self.normalize else x
        for layer in self.layers:
            x = bias_act(layer(x), activation=self.activation, gain=SQRT2)
        return x


class StyleGAN2Block(nn.Module):
    """Two convolutions, of which the second halves the resolution. [N,I,H,W] -> [N,O,H/2,W/2]."""

    def __init__(self, config: StyleGAN2Config, resolution: int):
        super().__init__()
        channels, out = config.nf(resolution), config.nf(resolution // 2)
        self.conv0 = ResampledConv2d(config, channels, channels, 3)
        self.conv1 = ResampledConv2d(config, channels, out, 3, down=2)
        self.shortcut = None
        if config.d_architecture == "resnet":
            self.shortcut = ResampledConv2d(config, channels, out, 1, down=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            y: Tensor = self.conv1(self.conv0(x))
            return y
        around: Tensor = self.shortcut(x, HALF)
        return around + self.conv1(self.conv0(x), HALF)


class StyleGAN2Head(nn.Module):
    """Minibatch standard deviation, a convolution at the base, and two dense layers. [N,C,h,w] -> [N,outputs]."""

    def __init__(self, config: StyleGAN2Config, outputs: int):
        super().__init__()
        self.config = config
        channels = config.nf(4)
        added = config.mbstd_features if config.mbstd_group > 1 else 0
        self.conv = ResampledConv2d(config, channels + added, channels, 3)
        self.dense0 = EqualLinear(channels * config.base[0] * config.base[1], channels, gain=1.0)
        self.dense1 = EqualLinear(channels, outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        config = self.config
        if config.mbstd_group > 1:
            x = minibatch_stddev(x, config.mbstd_group, config.mbstd_features)
        x = self.conv(x)
        # Scores are float32, whatever the dtype of the feature maps.
        x = bias_act(self.dense0(x.float().flatten(1)), activation=config.activation, gain=SQRT2)
        scores: Tensor = self.dense1(x)
        return scores


class StyleGAN2Discriminator(Discriminator):
    """Blocks from the full resolution down to the base, and the head."""

    config: StyleGAN2Config

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        self.config = config
        entries = config.resolutions if config.d_architecture == "skip" else config.resolutions[-1:]
        self.from_rgb = nn.ModuleDict(
            {str(res): ResampledConv2d(config, config.channels, config.nf(res), 1) for res in entries}
        )
        self.blocks = nn.ModuleDict({str(res): StyleGAN2Block(config, res) for res in config.resolutions if res > 4})
        self.head = StyleGAN2Head(config, self.num_outputs)
        if config.num_classes and self.cmap_dim:
            self.class_mapping = ClassMapping(config, self.cmap_dim)

    @property
    def cmap_dim(self) -> int:
        """Length of the vectors whose product is the score of a conditional discriminator; 0 for no such vectors."""
        return self.config.nf(4) if self.config.cmap_dim is None else self.config.cmap_dim

    @property
    def num_outputs(self) -> int:
        return (self.config.num_classes and self.cmap_dim) or super().num_outputs

    def chosen(self, outputs: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.config.num_classes or not self.cmap_dim:
            return super().chosen(outputs, c)
        vectors = self.class_mapping(class_weights(c, self.config.num_classes))
        return (outputs * vectors).sum(dim=1) / math.sqrt(self.cmap_dim), outputs[:, :0]

    def features(
        self, images: Tensor, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> Iterator[Tensor]:
        """Yields the outputs of from_rgb and of each block: [N,C,H,W] down to [N,C,h,w] of the base."""
        images = images.to(memory_format=torch.channels_last)
        x: Tensor = self.from_rgb[str(self.config.resolution)](images.to(dtype))
        yield x
        for res in self.config.resolutions[:0:-1]:
            x = self.blocks[str(res)](x)
            if self.config.d_architecture == "skip":
                images = downsample2d(images, constant_filter(self.config.resample_filter, images.device))
                x = x + self.from_rgb[str(res // 2)](images.to(dtype))
            yield x


FAMILY = Family("stylegan2", StyleGAN2Config, StyleGAN2Generator, StyleGAN2Discriminator)
