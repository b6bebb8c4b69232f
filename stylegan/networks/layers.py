"""Layers of StyleGAN and ProGAN. They take plain numbers, not configs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.bias_act import bias_act
from ops.conv2d import conv2d
from stylegan.networks.config import Stage

SQRT2 = math.sqrt(2)


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale each feature vector (dimension 1) to unit mean square. x: [N,C,...] (ProGAN, section 4.2)."""
    return x * (x.float().square().mean(dim=1, keepdim=True) + eps).rsqrt().to(x.dtype)


def minibatch_stddev(x: Tensor, group: int = 4, features: int = 1, eps: float = 1e-8) -> Tensor:
    """Append the standard deviation over a group of samples. x: [N,C,H,W] -> [N,C+features,H,W] (ProGAN, section 3).

    Sample i belongs to group i mod (N / group), so that the members of a group lie N / group apart. The group size is
    the largest divisor of N up to `group` (the published code requires that min(group, N) divides N).
    """
    n, c, h, w = x.shape
    group = next(size for size in range(min(group, n), 0, -1) if n % size == 0)
    y = x.float().reshape(group, n // group, features, c // features, h, w)
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + eps).sqrt()  # torch.var is thirty times slower along this dimension
    y = y.mean(dim=(2, 3, 4), keepdim=True).squeeze(2)
    y = y.to(x.dtype).repeat(group, 1, h, w)
    return torch.cat([x, y], dim=1)


def faded(old: Tensor, new: Tensor, stage: Stage) -> Tensor:
    """What a network that is growing computes, from the way around its newest block and the way through it."""
    if stage.weight is None:
        return torch.lerp(old, new, stage.alpha)
    # In float32, as `lerp` computes with a number; it takes no weight of another dtype.
    return torch.lerp(old.float(), new.float(), stage.weight).to(new.dtype)


def for_convolutions(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a weight to the dtype and memory format of feature maps, so that convolutions need not copy it again."""
    return weight.to(dtype, memory_format=torch.channels_last)


class Foldable(nn.Module):
    """A layer that derives tensors from its weights, and can keep them. See `inference.folded`."""

    def effective(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The derived tensors, for feature maps of `dtype`."""
        raise NotImplementedError

    def packed(self, dtype: torch.dtype, batch: int) -> tuple[Tensor, ...]:
        """The same for `batch` images at a time; they need not be differentiable."""
        return self.effective(dtype)

    def fold(self, dtype: torch.dtype, batch: int | None) -> None:
        """Keep the derived tensors, packed if the batch size is known."""
        found = self.effective(dtype) if batch is None else self.packed(dtype, batch)
        kept = tuple(t.clone() for t in found)  # some are the weights themselves, which may learn
        setattr(self, "effective", lambda dtype: kept)  # noqa: B010


class EqualLinear(Foldable):
    """A dense layer with equalised learning rate (ProGAN, section 4.1). [N,in] -> [N,out].

    Weights have unit variance and are scaled by gain / sqrt(fan_in) in the forward pass. `lr_mul` slows learning down:
    weights start 1/lr_mul times larger and count lr_mul times less.
    """

    def __init__(self, in_features: int, out_features: int, gain: float = SQRT2, lr_mul: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.scale = gain / math.sqrt(in_features) * lr_mul
        self.lr_mul = lr_mul

    def effective(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weight [out,in], still without its scale, and scaled bias [out]."""
        return self.weight, self.bias if self.lr_mul == 1 else self.bias * self.lr_mul

    def forward(self, x: Tensor) -> Tensor:
        # Scale the rows, because the weight and its gradient are much larger.
        return self.of_scaled(x * self.scale)

    def of_scaled(self, x: Tensor) -> Tensor:
        """The same for rows that have been multiplied by `scale`, for example once for many layers."""
        return F.linear(x, *self.effective(x.dtype))


class EqualConv2d(Foldable):
    """A convolution with equalised learning rate and bias, padded to keep the size. [N,I,H,W] -> [N,O,H,W].

    Computes in the dtype of the input; the weights themselves stay float32.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, gain: float = SQRT2):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = gain / math.sqrt(in_channels * kernel**2)

    def effective(self, dtype: torch.dtype) -> tuple[Tensor]:
        """Scaled weight [O,I,k,k] in `dtype`."""
        return (for_convolutions(self.weight * self.scale, dtype),)

    def forward(self, x: Tensor, activation: str = "linear") -> Tensor:
        (weight,) = self.effective(x.dtype)
        if activation == "linear":  # the convolution adds the bias at no extra cost
            return F.conv2d(x, weight, self.bias.to(x.dtype), padding=weight.shape[-1] // 2)
        return bias_act(conv2d(x, weight, padding=weight.shape[-1] // 2), self.bias, activation)
