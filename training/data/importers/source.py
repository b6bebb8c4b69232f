"""Sources: images in a fixed order, wherever they are stored. `inspect.open_source` picks the reader for a path.

Here are the readers of folders and of LMDBs; zip and tar files, IDX and CIFAR-10 have modules of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

import numpy as np

from torch_utils.errors import UserError, in_words
from torch_utils.text import is_image, printable
from torch_utils.untrusted import read_plain
from training.data.archive import MANIFEST, size_limit

MAX_DEPTH, MAX_LINKS = 100, 10_000  # levels of folders, and links to folders that are followed


@dataclass(frozen=True)
class Source:
    """Images in a fixed order. `read(i)`: the encoded file, or uint8 pixels [H,W] or [H,W,C]; safe in threads.

    labels: class numbers, if the source itself has them, as IDX and CIFAR files do
    manifest: name and content of its `dataset.json`     other_files: how many files in it are not images
    """

    kind: str
    path: Path
    names: Sequence[str]
    read: Callable[[int], bytes | np.ndarray]
    close: Callable[[], None] = lambda: None
    labels: Sequence[int] | None = None
    class_names: tuple[str, ...] = ()
    manifest: tuple[str, bytes] | None = None
    other_files: int = 0

    def title(self, index: int) -> str:
        """The name of an image, safe to print: file names are bytes and can contain anything."""
        return printable(self.names[index].encode("utf-8", "backslashreplace").decode())


def listed(
    kind: str,
    path: Path,
    files: Collection[str],
    read: Callable[[str], bytes],
    close: Callable[[], None] = lambda: None,
) -> Source:
    """The images among named files, sorted by name. read: the content of one. Raises UserError if there are none."""
    names = sorted(filter(is_image, files))
    if not names:
        raise UserError(f"There are no images in {path} ({len(files)} other files): check --source")
    manifest = find_manifest(files)
    content = (manifest, read(manifest)) if manifest else None
    others = len(files) - len(names) - bool(manifest)
    return Source(kind, path, names, lambda i: read(names[i]), close, manifest=content, other_files=others)


def find_manifest(names: Iterable[str]) -> str | None:
    """The `dataset.json` nearest to the root."""
    found = [name for name in names if PurePosixPath(name).name == MANIFEST]
    return min(found, key=lambda name: (name.count("/"), name), default=None)


# Folders


def open_folder(root: Path) -> Source:
    """All images below `root`, sorted by relative name. Links to folders are followed, up to a limit.

    Raises UserError if there are no images, or if the tree does not end.
    """
    files = list(_walk(root, "", frozenset(), count()))
    try:
        return listed("folder", root, files, lambda name: read_plain(root / name, size_limit(name)))
    except OSError as error:
        raise UserError(f"Cannot read {root / (find_manifest(files) or '')}: {in_words(error)}") from error


def _walk(root: Path, below: str, above: frozenset[str], links: Iterator[int]) -> Iterator[str]:
    """Relative names, with forward slashes, of all files under root/below.

    above: the real paths of the folders that contain it     links: counts links to folders, which can multiply
    """
    real = os.path.realpath(root / below)
    if real in above:  # a link to a folder that contains it
        return
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        raise UserError(f"Cannot list {root / below}: {in_words(error)}") from error
    if len(above) >= MAX_DEPTH:
        raise UserError(f"{root} has more than {MAX_DEPTH} levels of folders: check --source")
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            if entry.is_symlink() and next(links) >= MAX_LINKS:
                raise UserError(f"{root} has more than {MAX_LINKS:,} links to folders: check --source")
            yield from _walk(root, name, above | {real}, links)
        else:
            yield name


# LMDB, as LSUN ships its images: every value is an encoded image


def open_lmdb(path: Path) -> Source:
    """All values of the database in order of their keys. Raises UserError without the `lmdb` package or on damage."""
    try:
        import lmdb
    except ImportError as error:
        raise UserError(f"{path} is an LMDB, and the package that reads it is missing: pip install lmdb") from error
    try:
        database = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir())
        with database.begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise UserError(f"Cannot open {path} as an LMDB: {error}") from error

    def read(index: int) -> bytes:
        with database.begin() as transaction:
            return bytes(transaction.get(keys[index]) or b"")

    if not keys:
        raise UserError(f"The LMDB {path} is empty: check --source")
    names = [key.decode() if key.isascii() else key.hex() for key in keys]
    return Source(kind="LMDB", path=path, names=names, read=read, close=database.close)
