"""Sources: CIFAR-10, the Python and the binary version, packed or unpacked. Its pickles run no code."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stylegan.checkpoints.unpickle import parse_pickle
from torch_utils.errors import UserError
from torch_utils.text import printable
from torch_utils.untrusted import read_plain
from training.data.importers.archives import TAR_ERRORS, uncompressed
from training.data.importers.source import Source
from training.data.labels import MAX_CLASSES

BATCH = re.compile(r"data_batch_[1-5](\.bin)?")
META = re.compile(r"batches\.meta(\.txt)?")
ROW = 1 + 3 * 32 * 32
MAX_BATCH_BYTES, MAX_FILES = 64 << 20, 20  # twice what CIFAR-10 has


def is_cifar(path: Path) -> bool:
    """Whether a folder has CIFAR batches in it, or an archive is named like CIFAR-10."""
    if path.is_dir():
        return any(BATCH.fullmatch(child.name) for child in path.iterdir())
    return bool(re.fullmatch(r"cifar-?10[-_](python|binary).*\.(tar|tgz|tar\.gz)", path.name, re.IGNORECASE))


def open_cifar(path: Path) -> Source:
    """The 50,000 training images with labels. Raises UserError if the files are damaged or contain anything else."""
    try:
        files = _folder(path) if path.is_dir() else _archive(path)
        batches = [_batch(name, files[name]) for name in sorted(files) if BATCH.fullmatch(name)]
        class_names = next((_class_names(name, files[name]) for name in files if META.fullmatch(name)), ())
        pixels = np.concatenate([batch[0] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = [int(label) for batch in batches for label in batch[1]]
        if len(labels) != len(pixels):
            raise ValueError(f"{len(labels)} labels for {len(pixels)} images")
    except (*TAR_ERRORS, UserError, AttributeError, MemoryError) as error:
        raise UserError(f"Cannot read {path} as CIFAR-10 ({error}): download it again") from error
    if not all(0 <= label < MAX_CLASSES for label in labels):
        raise UserError(f"Cannot read {path} as CIFAR-10 (its labels are not class numbers): download it again")
    names = [f"train/{index:05d}" for index in range(len(pixels))]
    return Source("CIFAR-10", path, names, pixels.__getitem__, labels=labels, class_names=class_names)


def _folder(path: Path) -> dict[str, bytes]:
    return {file.name: read_plain(file, "picture_mib") for file in sorted(path.iterdir()) if _wanted(file.name)}


def _archive(path: Path) -> dict[str, bytes]:
    with path.open("rb") as packed, uncompressed(packed) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        wanted = [m for m in archive if m.isreg() and _wanted(PurePosixPath(m.name).name)]
        if any(m.size > MAX_BATCH_BYTES for m in wanted) or len(wanted) > MAX_FILES:
            raise ValueError("its files are larger than those of CIFAR-10")
        return {PurePosixPath(m.name).name: archive.extractfile(m).read() for m in wanted}  # type: ignore[union-attr]


def _wanted(name: str) -> bool:
    return bool(BATCH.fullmatch(name) or META.fullmatch(name))


def _batch(name: str, content: bytes) -> tuple[np.ndarray, Any]:
    """Pixels uint8 [N,3072], channels first, and N labels."""
    if name.endswith(".bin"):
        rows = np.frombuffer(content, np.uint8).reshape(-1, ROW)
        return rows[:, 1:], rows[:, 0]
    batch = _unpickle(content)
    pixels = batch["data"].data
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"{name} does not contain images")
    return pixels, batch["labels"]


def _class_names(name: str, content: bytes) -> tuple[str, ...]:
    if name.endswith(".txt"):
        return tuple(content.decode("ascii").split())
    return tuple(printable(word) for word in _unpickle(content)["label_names"] if isinstance(word, str))


def _unpickle(content: bytes) -> Any:
    found = parse_pickle(content)
    if not isinstance(found, dict):
        raise ValueError("it does not contain a dict")
    return found
