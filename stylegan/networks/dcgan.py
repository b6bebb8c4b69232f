"""DCGAN (Radford, Metz, Chintala 2016): strided and transposed convolutions with batch norm, for 28 to 64 pixels.

    z [N,100] and class -> dense [1024,4,4] -> up [512,8,8] -> up [256,16,16] -> up [128,32,32] -> up [3,64,64]

There is no growth, no w and no styles (figure 1). The discriminator is the mirror image, with leaky ReLU.

Batch norm makes a training image depend on the other images of its micro-batch. It also keeps running averages, with
which images are generated after training. Nothing else in these networks changes in a forward pass, and these averages
change only in training mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.networks.arguments import require_ws
from stylegan.networks.base import Discriminator, Family, GeneratorWithoutW, Noise, Synthesis
from stylegan.networks.config import WIDEST, Cost, LayerInfo, NetworkConfig, Stage
from stylegan.networks.layers import Foldable, for_convolutions
from torch_utils.errors import UserError

KERNEL = 5  # side of all kernels
SPREAD = 0.02  # standard deviation of fresh weights (section 4)
SMALLEST, LARGEST = 8, 128  # nominal resolutions; the paper stops at 64


@dataclass(frozen=True)
class DCGANConfig(NetworkConfig):
    """The defaults are those of the paper for 64x64: 1024, 512, 256 and 128 feature maps."""

    family: str = "dcgan"
    resolution: int = 64
    z_dim: int = 100

    fmap_base: int = 4096
    fmap_max: int = 1024

    TITLE: ClassVar[str] = "DCGAN"
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **NetworkConfig.LIMITS, "resolution": (SMALLEST, LARGEST), "fmap_base": (1, 1 << 30), "fmap_max": (1, WIDEST),
    }  # fmt: skip

    @property
    def stages(self) -> tuple[int, ...]:
        """Only the full size, as the network does not grow."""
        return (self.resolution,)

    @cached_property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The dense layer and the transposed convolutions, all with the same row: z and the class."""
        return tuple(LayerInfo(row=0, resolution=res) for res in self.resolutions)

    @property
    def ws_dim(self) -> int:
        return self.z_dim + self.num_classes

    def nf(self, resolution: int) -> int:
        return max(1, min(self.fmap_base // resolution, self.fmap_max))

    def channels_at(self, resolution: int) -> int:
        """Number of feature maps at a resolution; at the highest, that of the image's channels."""
        return self.channels if resolution == self.resolution else self.nf(resolution)

    def generator_cost(self, resolution: int) -> Cost:
        height, width = self.size(self.resolution)
        cost = self._cost(self.ws_dim)
        return Cost(cost.gflop, cost.activations + self.channels * height * width)

    def discriminator_cost(self, resolution: int) -> Cost:
        return self._cost(max(self.num_classes, 1))

    def _cost(self, dense: int) -> Cost:
        """The cost at full size, without the image. dense: how many numbers the dense layer connects with the base"""
        gflop, activations = 2 * dense * self.nf(4) * self.base[0] * self.base[1] / 1e9, 0
        for res in self.resolutions[:-1]:
            height, width = self.size(res)
            gflop += 2 * KERNEL**2 * height * width * self.nf(res) * self.channels_at(2 * res) / 1e9
            activations += self.nf(res) * height * width
        return Cost(gflop, activations)

    def check(self) -> None:
        if not SMALLEST <= self.resolution <= LARGEST:
            raise UserError(f"--resolution must be from {SMALLEST} to {LARGEST} with DCGAN, got {self.resolution}")


def _kernels(config: DCGANConfig, resolutions: Sequence[int]) -> nn.ParameterDict:
    """Fresh weights of the convolutions between each resolution and half of it: [feature maps below,maps above,5,5]."""
    return nn.ParameterDict({
        str(res): SPREAD * torch.randn(config.nf(res // 2), config.channels_at(res), KERNEL, KERNEL)
        for res in resolutions
    })  # fmt: skip


class BatchNorm(nn.Module):
    """Batch normalisation [N,C,H,W] -> the same shape and dtype, by running averages in eval mode."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(1 + SPREAD * torch.randn(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        averages = self.get_buffer("mean"), self.get_buffer("variance")
        mean, variance = (average.clone() for average in averages)
        y = F.batch_norm(x.float(), mean, variance, self.weight, self.bias, self.training)
        if self.training:
            # A step that diverges is not taken, but its averages would remain, so leave out what is not finite.
            for average, new in zip(averages, (mean, variance), strict=True):
                average.copy_(torch.where(new.isfinite(), new, average))
        return y.to(x.dtype)


class DCGANSynthesis(Synthesis, Foldable):
    """z and class -> images. Each layer is followed by batch norm and ReLU, except the last, which has tanh."""

    def __init__(self, config: DCGANConfig):
        super().__init__()
        self.config = config
        height, width = config.base
        self.dense = nn.Parameter(SPREAD * torch.randn(config.ws_dim, config.nf(4) * height * width))
        self.weights = _kernels(config, config.resolutions[1:])
        self.norms = nn.ModuleDict({str(res): BatchNorm(config.nf(res)) for res in config.resolutions[:-1]})
        self.bias = nn.Parameter(torch.zeros(config.channels))

    def forward(
        self, ws: Tensor, stage: Stage | None = None, noise: Noise = "const", dtype: torch.dtype = torch.float32,
        edits: Sequence[Tensor] = (),
    ) -> Tensor:  # fmt: skip
        """See `Synthesis.forward`. There is only one stage, no noise, and no style to edit."""
        require_ws(ws, self.config)
        x = (ws[:, 0] @ self.dense).unflatten(1, (-1, *self.config.base))
        x = x.to(dtype, memory_format=torch.channels_last)
        for norm, kernel in zip(self.norms.values(), self.effective(dtype), strict=True):
            x = F.conv_transpose2d(F.relu(norm(x)), kernel, stride=2, padding=KERNEL // 2, output_padding=1)
        return torch.tanh(x.float() + self.bias[:, None, None])

    def effective(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The weights [I,O,5,5] of the convolutions, from coarse to fine."""
        return tuple(for_convolutions(self.weights[str(res)], dtype) for res in self.config.resolutions[1:])


class DCGANGenerator(GeneratorWithoutW):
    """The synthesis network, with z and the one-hot class as its input."""

    config: DCGANConfig

    def __init__(self, config: DCGANConfig):
        super().__init__()
        self.config = config
        self.synthesis = DCGANSynthesis(config)


class DCGANDiscriminator(Discriminator):
    """Each convolution halves the size and is followed by batch norm (except the first) and leaky ReLU."""

    config: DCGANConfig

    def __init__(self, config: DCGANConfig):
        super().__init__()
        self.config = config
        self.weights = _kernels(config, config.resolutions[:0:-1])
        self.bias = nn.Parameter(torch.zeros(config.nf(config.resolution // 2)))
        self.norms = nn.ModuleDict({str(res): BatchNorm(config.nf(res)) for res in reversed(config.resolutions[:-2])})
        inputs = config.nf(4) * config.base[0] * config.base[1]
        self.dense = nn.Parameter(SPREAD * torch.randn(self.num_outputs, inputs))

    def head(self, x: Tensor) -> Tensor:
        return x.float().flatten(1) @ self.dense.T

    def features(
        self, images: Tensor, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> Iterator[Tensor]:
        """Yields the outputs of the convolutions: [N,C,H/2,W/2] down to [N,C,h,w] of the base."""
        x = images.to(dtype, memory_format=torch.channels_last)
        for res in reversed(self.config.resolutions[1:]):
            x = F.conv2d(x, for_convolutions(self.weights[str(res)], dtype), stride=2, padding=KERNEL // 2)
            half = str(res // 2)
            x = self.norms[half](x) if half in self.norms else x + self.bias[:, None, None].to(dtype)
            x = F.leaky_relu(x, 0.2)
            yield x


FAMILY = Family("dcgan", DCGANConfig, DCGANGenerator, DCGANDiscriminator)
