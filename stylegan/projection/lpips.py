"""LPIPS v0.1 in plain PyTorch: how far two pictures are apart to a trained eye (Zhang et al. 2018).

A picture goes through the convolutions of an ImageNet classifier. At five depths the feature vectors are brought to
unit length and their channels weighted; LPIPS is the squared distance of what comes out, averaged over the places of
each depth and summed over depths (equation 1). The weights come from `lpips_weights.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST, LARGEST = 64, 256
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for [-1, 1]
_EPS = 1e-10


@dataclass(frozen=True)
class Conv:
    """A convolution and its ReLU. pool: kernel of a max pooling by 2 before it, 0 for none. tap: is it looked at?"""

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    tap: bool = False


NETS: dict[str, tuple[Conv, ...]] = {
    # Simonyan and Zisserman 2015, table 1, column D, up to the last convolution.
    "lpips-vgg16": (
        Conv(3, 64), Conv(64, 64, tap=True),
        Conv(64, 128, pool=2), Conv(128, 128, tap=True),
        Conv(128, 256, pool=2), Conv(256, 256), Conv(256, 256, tap=True),
        Conv(256, 512, pool=2), Conv(512, 512), Conv(512, 512, tap=True),
        Conv(512, 512, pool=2), Conv(512, 512), Conv(512, 512, tap=True),
    ),
    # Krizhevsky 2014, "One weird trick", in one column.
    "lpips-alex": (
        Conv(3, 64, 11, 4, 2, tap=True), Conv(64, 192, 5, 1, 2, pool=3, tap=True),
        Conv(192, 384, pool=3, tap=True), Conv(384, 256, tap=True), Conv(256, 256, tap=True),
    ),
}  # fmt: skip


def shapes(net: str) -> dict[str, tuple[int, ...]]:
    """What weights a net of `NETS` has: name -> shape. `lin` are the channels' weights at each tap."""
    found: dict[str, tuple[int, ...]] = {}
    for i, conv in enumerate(NETS[net]):
        found |= {
            f"conv{i}.weight": (conv.outputs, conv.inputs, conv.kernel, conv.kernel),
            f"conv{i}.bias": (conv.outputs,),
        }
    taps = (conv for conv in NETS[net] if conv.tap)
    return found | {f"lin{i}": (conv.outputs,) for i, conv in enumerate(taps)}


def layer_sizes(net: str, height: int, width: int) -> Iterator[tuple[Conv, int, int]]:
    """Each convolution, and the size of what it makes of a picture."""
    h, w = fitted_size(height, width)
    for conv in NETS[net]:
        if conv.pool:
            h, w = ((side - conv.pool) // 2 + 1 for side in (h, w))
        h, w = ((side + 2 * conv.padding - conv.kernel) // conv.stride + 1 for side in (h, w))
        yield conv, h, w


def embed(net: str, weights: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """images [N,1, 3 or 4,H,W] in [-1, 1] -> for each tap [N,C,h,w], whose squared differences make LPIPS.

    Grey becomes RGB, alpha is left out. Of other sizes than it is made for, LPIPS says little, and below 32 pixels
    nothing: pictures with a side shorter than 64 are enlarged by the least whole factor that gives it 64 (bilinear),
    and where the shorter side has a whole multiple of 256 pixels, they are reduced to 256 by averaging. Feature maps
    are in the dtype of the convolutions' weights.
    """
    return [
        unit(x) * weights[f"lin{tap}"].sqrt()[:, None, None] for tap, x in enumerate(feature_maps(net, weights, images))
    ]


def feature_maps(net: str, weights: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """What `embed` makes comparable: the feature maps [N,C,h,w] at each tap, in the dtype of the weights."""
    shift, scale = (torch.tensor(v, device=images.device)[:, None, None] for v in (_SHIFT, _SCALE))
    x = (_fitted(_rgb(images)) - shift) / scale
    x = x.to(weights["conv0.weight"].dtype, memory_format=torch.channels_last)
    taps: list[Tensor] = []
    for i, conv in enumerate(NETS[net]):
        if conv.pool:
            x = F.max_pool2d(x, conv.pool, 2)
        x = F.conv2d(x, weights[f"conv{i}.weight"], weights[f"conv{i}.bias"], conv.stride, conv.padding).relu()
        if conv.tap:
            taps.append(x)
    return taps


def unit(x: Tensor, length: float = 1.0) -> Tensor:
    """Each feature vector at this length, float32. [N,C,h,w]. To be differentiated once."""
    scaled: Tensor = _Unit.apply(x, length)
    return scaled


class _Unit(torch.autograd.Function):
    """With u = length x / |x|, dx = (length / |x|) (du - u (u, du) / length^2): a third of the passes that the
    derivatives of its parts would take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: float) -> Tensor:
        by = length / (torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32) + _EPS)
        u = x * by
        ctx.save_for_backward(u, by)
        ctx.length = length
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, du: Tensor) -> tuple[Tensor, None]:
        u, by = ctx.saved_tensors
        along = (u * du).sum(dim=1, keepdim=True) / ctx.length**2
        return torch.addcmul(du, u, along, value=-1).mul_(by), None


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]


def fitted_size(height: int, width: int) -> tuple[int, int]:
    """The size at which a picture is looked at; see `embed`."""
    shorter = min(height, width)
    if shorter < SMALLEST:
        factor = -(-SMALLEST // shorter)
        return height * factor, width * factor
    if shorter > LARGEST and shorter % LARGEST == 0:
        return height * LARGEST // shorter, width * LARGEST // shorter
    return height, width


def _fitted(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    size = fitted_size(height, width)
    if size[0] > height:
        return F.interpolate(images, scale_factor=size[0] // height, mode="bilinear", align_corners=False)
    if size[0] < height:
        return F.avg_pool2d(images, height // size[0])
    return images
