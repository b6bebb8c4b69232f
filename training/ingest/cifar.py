"""CIFAR-10, the Python and the binary version, packed or unpacked; its pickles are read without running code."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from torch_utils.errors import UserError
from training.ingest.source import Source

BATCH = re.compile(r"data_batch_[1-5](\.bin)?")
META = re.compile(r"batches\.meta(\.txt)?")
ROW = 1 + 3 * 32 * 32
# All that an array in a pickle needs. numpy moved its modules in version 2; files of either time are met.
ALLOWED = {
    (module, name)
    for names, modules in {
        ("_reconstruct",): ("numpy.core.multiarray", "numpy._core.multiarray"),
        ("ndarray", "dtype"): ("numpy",),
        ("encode",): ("_codecs",),
    }.items()
    for module in modules
    for name in names
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return super().find_class(module, name)


def is_cifar(path: Path) -> bool:
    """A folder with CIFAR batches in it, or an archive named as CIFAR-10 is."""
    if path.is_dir():
        return any(BATCH.fullmatch(child.name) for child in path.iterdir())
    return bool(re.fullmatch(r"cifar-?10[-_](python|binary).*\.(tar|tgz|tar\.gz)", path.name, re.IGNORECASE))


def open_cifar(path: Path) -> Source:
    """The 50,000 training pictures with labels. Raises UserError if the files are damaged or hold anything else."""
    try:
        files = _folder(path) if path.is_dir() else _archive(path)
        batches = [_batch(name, files[name]) for name in sorted(files) if BATCH.fullmatch(name)]
        class_names = next((_class_names(name, files[name]) for name in files if META.fullmatch(name)), ())
        pixels = np.concatenate([batch[0] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = [int(label) for batch in batches for label in batch[1]]
        if len(labels) != len(pixels):
            raise ValueError(f"{len(labels)} labels for {len(pixels)} pictures")
    except (OSError, EOFError, tarfile.TarError, pickle.UnpicklingError, zlib.error, *_MALFORMED) as error:
        raise UserError(f"cannot read {path} as CIFAR-10 ({error}): fetch it again") from error
    names = [f"train/{index:05d}" for index in range(len(pixels))]
    return Source("CIFAR-10", path, names, pixels.__getitem__, labels=labels, class_names=class_names)


# What a pickle that is no CIFAR batch, or not a sound one, can lead to.
_MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, MemoryError)


def _folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if _wanted(file.name)}


def _archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        wanted = [m for m in archive if m.isreg() and _wanted(PurePosixPath(m.name).name)]
        return {PurePosixPath(m.name).name: archive.extractfile(m).read() for m in wanted}  # type: ignore[union-attr]


def _wanted(name: str) -> bool:
    return bool(BATCH.fullmatch(name) or META.fullmatch(name))


def _batch(name: str, content: bytes) -> tuple[np.ndarray, Any]:
    """Pixels uint8 [N,3072], channels first, and N labels."""
    if name.endswith(".bin"):
        rows = np.frombuffer(content, np.uint8).reshape(-1, ROW)
        return rows[:, 1:], rows[:, 0]
    batch = _unpickle(content)
    pixels = np.asarray(batch["data"])
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"{name} holds no pictures")
    return pixels, batch["labels"]


def _class_names(name: str, content: bytes) -> tuple[str, ...]:
    if name.endswith(".txt"):
        return tuple(content.decode("ascii").split())
    return tuple(str(word) for word in _unpickle(content)["label_names"])


def _unpickle(content: bytes) -> Any:
    return _Reader(io.BytesIO(content), encoding="latin1").load()
