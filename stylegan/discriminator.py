"""Picture -> score. The resolution is read off the picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.bias_act import bias_act
from ops.resample import blur, conv2d_downsample, downsample_box, downsampling_kernel
from stylegan.config import ModelConfig
from stylegan.layers import EqualConv2d, EqualLinear, for_convolutions, minibatch_stddev
from stylegan.mapping import class_weights


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


def fade(images: Tensor, alpha: float) -> Tensor:
    """Real pictures at a fade: blended with themselves at half the resolution, as the generator's are. [N,C,H,W]."""
    if alpha >= 1:
        return images
    half = F.interpolate(downsample_box(images), scale_factor=2, mode="nearest")
    return torch.lerp(half, images, alpha)
