"""Latents and directions of other tools, in and out: arrays in .npy, .npz and .pt files.

Read are the w or ws of projectors (`projected_w.npz` of StyleGAN2-ADA, tensors of encoders, the result of a projector
in PyTorch), the boundaries of InterFaceGAN, and the components of GANSpace. Opening such a file runs no code from it.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.directions import Directions, in_w, load_directions, save_directions, scales_of
from stylegan.editing.pca_sefa import covariance
from stylegan.editing.search import sample_w
from stylegan.editing.settings import SAMPLES_FOR_SCALES
from stylegan.latents.latents import MAX_NAME, Latents, load_latents, save_latents
from stylegan.latents.notation import DIRECTIONS, LATENTS
from stylegan.networks.arguments import floats_of, ws_of
from stylegan.networks.base import require_w
from torch_utils.checkpoint import read_torch
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.text import counted, printable, shortened
from torch_utils.untrusted import ZIP_ERRORS, read_member, read_plain

ARRAYS = (".npy", ".npz", ".pt")  # suffixes of what is written
LATENT_KEYS = ("w", "ws", "wp", "w_plus", "latent", "latents", "latent_code", "projected_w")
DIRECTION_KEYS = ("lat_comp", "boundary", "direction", "directions", "vectors")
SHARES_KEY = "var_ratio"
_UNREADABLE = (*ZIP_ERRORS, MemoryError, SyntaxError, TypeError, LookupError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Found:
    """An array in a file, and where: "w [1, 18, 512] of float32". rest: the other arrays, by name"""

    array: Tensor
    where: str
    rest: Mapping[str, Any]


def exchange(source: Path, dest: Path, snapshot: Snapshot) -> str:
    """Write the latents or directions of one kind of file as another, and say what they are.

    dest: a latent file, a file of directions, or, if the source is one of the two, one of ARRAYS
    Raises UserError for a file of another kind, and for what does not fit the network.
    """
    require_w(snapshot.G)
    name = source.name.lower()
    if dest.suffix.lower() in ARRAYS and name.endswith((LATENTS, DIRECTIONS)):
        array, said = _latents_out(source, snapshot) if name.endswith(LATENTS) else _directions_out(source, snapshot)
        write_atomically(dest, _encoded(array, dest.suffix.lower(), "w" if name.endswith(LATENTS) else "direction"))
        return f"{said}, written as {list(array.shape)} of float32"
    if dest.name.endswith(LATENTS):
        latents, said = latents_in(source, snapshot)
        save_latents(dest, latents, snapshot)
    elif dest.name.endswith(DIRECTIONS):
        directions, said = directions_in(source, snapshot)
        save_directions(dest, directions, snapshot)
    else:
        raise UserError(f"--dest must end in {LATENTS} or {DIRECTIONS}, or, for what is in such a file, in "
                        f"{', '.join(ARRAYS)}; got {dest.name}")  # fmt: skip
    return said


# In


def latents_in(path: Path, snapshot: Snapshot) -> tuple[Latents, str]:
    """The latents in a file of another tool, and a line on how its array was read.

    [num_ws,w_dim] is read as one ws, as projectors write it; other [N,w_dim] as N w. Raises UserError for other shapes.
    """
    found = read_array(path, LATENT_KEYS)
    rows, dim = snapshot.config.num_ws, snapshot.config.ws_dim
    array = found.array[None] if list(found.array.shape) == [rows, dim] else found.array
    try:
        ws = ws_of(array, snapshot.config).contiguous()
    except UserError as error:
        raise UserError(f"{path}: {printable(found.where)} does not fit: {error}") from error
    if not len(ws):
        raise UserError(f"{path}: {printable(found.where)} is empty")
    stem = _stem(path)
    names = (stem,) if len(ws) == 1 else tuple(f"{stem}{i:04d}" for i in range(len(ws)))
    latents = Latents(ws, names, tuple(f"{path.name} {found.where}, {i}" for i in range(len(ws))))
    space = f"W+, a w for each of {rows} layers" if latents.plus else "W, one w for all layers"
    return latents, f"{printable(found.where)}, read as {counted(len(ws), 'latent')} in {space}"


def directions_in(path: Path, snapshot: Snapshot) -> tuple[Directions, str]:
    """The directions in a file of another tool, and a line on how its array was read: a row [w_dim] for each.

    Their length does not matter: strength 1 is a standard deviation of w, as for all directions. Raises UserError for
    arrays of other shapes, and for a direction without length.
    """
    found = read_array(path, DIRECTION_KEYS)
    config = snapshot.config
    vectors = found.array
    if vectors.ndim in (1, 2):
        vectors = vectors.reshape(-1, 1, vectors.shape[-1])
    if vectors.ndim != 3 or vectors.shape[1] not in (1, config.num_ws) or vectors.shape[2] != config.ws_dim:
        raise UserError(f"{path}: {printable(found.where)} does not fit: directions of this network are "
                        f"[K, {config.ws_dim}] or [K, {config.num_ws}, {config.ws_dim}]")  # fmt: skip
    if not len(vectors) or bool((vectors.norm(dim=(1, 2)) == 0).any()):
        raise UserError(f"{path}: {printable(found.where)} holds a direction without length")
    _, cov, _ = covariance(sample_w(snapshot, range(SAMPLES_FOR_SCALES), range(config.num_classes)))
    stem = _stem(path)
    names = [stem] if len(vectors) == 1 else [f"{stem}{i}" for i in range(len(vectors))]
    method = f"from {path.name}"
    shares = _shares(found.rest, len(vectors))
    directions = in_w(vectors[:, 0], names, range(config.num_ws), method, cov, shares)
    if vectors.shape[1] > 1:
        whole = vectors / vectors.norm(dim=(1, 2), keepdim=True) * vectors.shape[1] ** 0.5
        unknown = torch.full((len(whole),), torch.nan)
        directions = Directions(
            whole, tuple(names), directions.layers, scales_of(whole, cov), method, unknown, directions.shares
        )  # fmt: skip
    space = "W+" if vectors.shape[1] > 1 else "W"
    said = f"{printable(found.where)}, read as {counted(len(vectors), 'direction')} in {space}"
    if re.search(r"(?<!_w)_boundary\.npy$", path.name):
        said += " (but the boundaries that InterFaceGAN publishes are in z, unless their names end in _w_boundary)"
    return directions, said


def _shares(rest: Mapping[str, Any], count: int) -> Tensor | None:
    value = rest.get(SHARES_KEY)
    if not isinstance(value, np.ndarray) or value.shape != (count,) or value.dtype.kind != "f":
        return None
    return floats_of(value, SHARES_KEY)


def _stem(path: Path) -> str:
    """The name of a file without its suffix, safe for files, and without what InterFaceGAN adds."""
    name = path.name.partition(".")[0].removesuffix("_boundary")
    plain = "".join(c if c.isprintable() and c not in "/\\:" else "_" for c in name)[: MAX_NAME - 20]
    return plain if plain.strip(". ") else "latent"


# Reading arrays


def read_array(path: Path, keys: Sequence[str]) -> Found:
    """The array in an .npy, .npz or torch file; of several, the one with the first of `keys` that is there.

    The content decides what kind of file it is, not the name. Raises UserError for other files, for several arrays of
    other names, and for what is not finite floating-point numbers.
    """
    try:
        content = read_plain(path, "memory_gib")
        arrays = dict(_arrays_in(content))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except _UNREADABLE as error:
        reason = printable(shortened((str(error).splitlines() or [""])[0], 120)) or type(error).__name__
        raise UserError(f"{path} is not an .npy, .npz or .pt file of numbers ({reason}); give one, without objects of "
                        "other kinds in it") from error  # fmt: skip
    key = next((key for key in keys if key in arrays), next(iter(arrays)) if len(arrays) == 1 else None)
    if key is None:
        names = printable(shortened(", ".join(arrays), 200)) or "nothing"
        raise UserError(f"{path} holds {names}; expected one array, or one called {', '.join(keys)}")
    array = floats_of(arrays[key], f"{path}: the numbers {key}".strip())
    kind = str(arrays[key].dtype).removeprefix("torch.")
    where = f"{key} {list(array.shape)} of {kind}".strip()
    return Found(array, where, arrays)


def _arrays_in(content: bytes) -> Iterator[tuple[str, Any]]:
    """Yields the arrays and tensors in the content of a file by name; "" for a single one without a name."""
    if content.startswith(b"\x93NUMPY"):
        yield "", np.load(io.BytesIO(content), allow_pickle=False)
        return
    if content.startswith(b"PK\3\4"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            if members:
                for name in members:
                    array = np.load(io.BytesIO(read_member(archive, name, "memory_gib")), allow_pickle=False)
                    yield name.removesuffix(".npy"), array
                return
    yield from _tensors_in(read_torch(io.BytesIO(content), len(content)))


def _tensors_in(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The tensors in a torch file, in dicts of dicts too: a projector writes {photograph: {"latent": ...}}."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping) and depth < 2:
        for key, inner in value.items():
            yield from _tensors_in(inner, str(key), depth + 1)
    elif isinstance(value, (list, tuple)) and len(value) == 1:
        yield from _tensors_in(value[0], name, depth + 1)


# Out


def _latents_out(path: Path, snapshot: Snapshot) -> tuple[Tensor, str]:
    latents = load_latents(path, snapshot)
    if latents.styles:
        raise UserError(f"{path} changes styles, which other tools do not know; move along directions in w instead")
    left_out = "; noise maps and names are left out" if latents.noise else "; names are left out"
    return latents.ws.float(), f"{counted(len(latents), 'latent')}{left_out}"


def _directions_out(path: Path, snapshot: Snapshot) -> tuple[Tensor, str]:
    found = load_directions(path, snapshot)
    if found.styles:
        raise UserError(f"{path} edits styles, which other tools do not know; give directions in w")
    vectors = found.vectors[:, 0] if found.vectors.shape[1] == 1 else found.vectors
    names = printable(shortened(", ".join(found.names), 200))
    return vectors.float(), f"{counted(len(found), 'direction')} of length 1 ({names}); scales are left out"


def _encoded(array: Tensor, suffix: str, key: str) -> bytes:
    content = io.BytesIO()
    if suffix == ".npy":
        np.save(content, array.numpy())
    elif suffix == ".npz" and key == "w":
        np.savez(content, w=array.numpy())
    elif suffix == ".npz":
        np.savez(content, direction=array.numpy())
    else:
        torch.save(array.clone(), content)
    return content.getvalue()
