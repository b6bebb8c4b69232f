"""DCGAN (Radford, Metz, Chintala 2016): strided and transposed convolutions with batch norm, for 28 to 64 pixels.

It does not grow, has no w and no styles: z goes through a dense layer to the base, and each transposed convolution
doubles the size (figure 1). The discriminator is the mirror image, of strided convolutions with leaky ReLU.

Batch norm makes each training image depend on the others of its micro-batch, and keeps running averages for generating
images; these are the only numbers in this engine that move in a forward pass, in training mode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.networks.base import Discriminator, Family, GeneratorWithoutW, Noise, Synthesis
from stylegan.networks.config import WIDEST, Cost, LayerInfo, NetworkConfig, Stage
from stylegan.networks.layers import for_convolutions
from stylegan.networks.mapping import class_weights
from torch_utils.errors import UserError

KERNEL, SPREAD = 5, 0.02  # side of all kernels; standard deviation of fresh weights (section 4)
LARGEST = 128  # nominal; the paper stops at 64


@dataclass(frozen=True)
class DCGANConfig(NetworkConfig):
    """The defaults are the paper's for 64x64: 1024, 512, 256 and 128 feature maps."""

    family: str = "dcgan"
    resolution: int = 64
    z_dim: int = 100

    fmap_base: int = 4096
    fmap_max: int = 1024

    TITLE: ClassVar[str] = "DCGAN"
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **NetworkConfig.LIMITS, "resolution": (8, LARGEST), "fmap_base": (1, 1 << 30), "fmap_max": (1, WIDEST),
    }  # fmt: skip

    @property
    def stages(self) -> tuple[int, ...]:
        return (self.resolution,)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The dense layer, and a transposed convolution for each doubling, all fed by the same z."""
        return tuple(LayerInfo(row=0, resolution=res) for res in self.resolutions)

    @property
    def ws_dim(self) -> int:
        return self.z_dim + self.num_classes

    def nf(self, resolution: int) -> int:
        return max(1, min(self.fmap_base // resolution, self.fmap_max))

    def channels_at(self, resolution: int) -> int:
        """Feature maps at a resolution, of which the last are the image."""
        return self.channels if resolution == self.resolution else self.nf(resolution)

    def generator_cost(self, resolution: int) -> Cost:
        """A transposed convolution of stride 2 has a quarter of its taps at each output pixel."""
        gflop, activations = 0.0, 0
        for res in self.resolutions:
            height, width = self.size(res)
            inputs = self.ws_dim if res == 4 else self.channels_at(res // 2)
            taps = 1.0 if res == 4 else KERNEL**2 / 4
            gflop += 2 * height * width * self.channels_at(res) * inputs * taps / 1e9
            activations += height * width * self.channels_at(res)
        return Cost(gflop, activations)

    def discriminator_cost(self, resolution: int) -> Cost:
        """The mirror image does the same products the other way round."""
        return self.generator_cost(resolution)

    def check(self) -> None:
        if not 8 <= self.resolution <= LARGEST:
            raise UserError(f"--resolution {self.resolution} is not possible with DCGAN, which is for 8 to {LARGEST}")


class BatchNorm(nn.Module):
    """Batch normalisation with running averages for evaluation. [N,C,H,W] -> the same, in the input's dtype."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(1 + SPREAD * torch.randn(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        averages = self.get_buffer("mean"), self.get_buffer("variance")
        moved = mean, variance = averages[0].clone(), averages[1].clone()
        normalised = F.batch_norm(x.float(), mean, variance, self.weight, self.bias, self.training)
        if self.training:
            for average, now in zip(averages, moved, strict=True):  # what is not finite would stay in it for good
                average.copy_(torch.where(now.isfinite(), now, average))
        return normalised.to(x.dtype)


class DCGANSynthesis(Synthesis):
    """z and class -> images. Each layer but the last is followed by batch norm and ReLU, the last by tanh."""

    def __init__(self, config: DCGANConfig):
        super().__init__()
        self.config = config
        height, width = config.base
        self.dense = nn.Parameter(SPREAD * torch.randn(config.ws_dim, config.nf(4) * height * width))
        self.weights = nn.ParameterDict(
            {str(res): SPREAD * torch.randn(config.nf(res // 2), config.channels_at(res), KERNEL, KERNEL)
             for res in config.resolutions if res > 4}
        )  # fmt: skip
        self.norms = nn.ModuleDict({str(res): BatchNorm(config.nf(res)) for res in config.resolutions[:-1]})
        self.bias = nn.Parameter(torch.zeros(config.channels))

    def forward(
        self,
        ws: Tensor,
        stage: Stage | None = None,
        noise: Noise = "const",
        dtype: torch.dtype = torch.float32,
        edits: Sequence[Tensor] = (),
    ) -> Tensor:
        """See `Synthesis.forward`. There is one stage, no noise, and nothing to edit."""
        x = (ws[:, 0] @ self.dense).unflatten(1, (-1, *self.config.base))
        x = x.to(dtype, memory_format=torch.channels_last)
        for res in self.config.resolutions[:-1]:
            x = F.relu(self.norms[str(res)](x))
            weight = for_convolutions(self.weights[str(2 * res)], dtype)
            x = F.conv_transpose2d(x, weight, stride=2, padding=KERNEL // 2, output_padding=1)
        return torch.tanh(x.float() + self.bias[:, None, None])


class DCGANGenerator(GeneratorWithoutW):
    """A synthesis network that is fed with z and the one-hot class."""

    config: DCGANConfig

    def __init__(self, config: DCGANConfig):
        super().__init__()
        self.config = config
        self.synthesis = DCGANSynthesis(config)


class DCGANDiscriminator(Discriminator):
    """Each convolution halves the size; all but the first are followed by batch norm, all by leaky ReLU.

    A conditional one has one output per class and is asked for the image's own (Mescheder et al. 2018).
    """

    config: DCGANConfig

    def __init__(self, config: DCGANConfig):
        super().__init__()
        self.config = config
        self.weights = nn.ParameterDict(
            {str(res): SPREAD * torch.randn(config.nf(res // 2), config.channels_at(res), KERNEL, KERNEL)
             for res in reversed(config.resolutions) if res > 4}
        )  # fmt: skip
        self.bias = nn.Parameter(torch.zeros(config.nf(config.resolution // 2)))
        self.norms = nn.ModuleDict({str(res): BatchNorm(config.nf(res)) for res in reversed(config.resolutions[:-2])})
        inputs = config.nf(4) * config.base[0] * config.base[1]
        self.dense = nn.Parameter(SPREAD * torch.randn(max(config.num_classes, 1), inputs))

    def outputs(
        self, images: Tensor, c: Tensor | None = None, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        (x,) = deque(self.features(images, stage, dtype), maxlen=1)  # the last
        scores = x.float().flatten(1) @ self.dense.T
        if not self.config.num_classes:
            return scores[:, 0], scores[:, 1:]
        return (scores * class_weights(c, self.config.num_classes)).sum(dim=1), scores[:, :0]

    def features(
        self, images: Tensor, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> Iterator[Tensor]:
        """What comes out of each convolution, [N,C,H/2,W/2] down to the base."""
        x = images.to(dtype, memory_format=torch.channels_last)
        for res in reversed(self.config.resolutions[1:]):
            weight = for_convolutions(self.weights[str(res)], dtype)
            x = F.conv2d(x, weight, stride=2, padding=KERNEL // 2)
            half = str(res // 2)
            x = self.norms[half](x) if half in self.norms else x + self.bias[:, None, None].to(dtype)
            x = F.leaky_relu(x, 0.2)
            yield x


FAMILY = Family("dcgan", DCGANConfig, DCGANGenerator, DCGANDiscriminator)
