"""Sources: images in a fixed order, wherever they are stored. `inspect.open_source` picks the reader for a path.

Here are the readers of folders and of LMDBs; zip and tar files, IDX and CIFAR-10 have modules of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torch_utils.errors import UserError, in_words
from torch_utils.text import is_image, no_images, other_files, plain_paths, printable
from torch_utils.untrusted import read_plain
from training.data.archive import advice_for, size_limit
from training.data.labels import find_manifest
from training.data.walk import files_below

IMAGES_ARE = "images are files named *.png, *.jpg, *.webp, *.tif and the like; rename or convert the others"


@dataclass(frozen=True)
class Source:
    """Images in a fixed order. `read(i)`: the encoded file, or uint8 pixels [H,W] or [H,W,C]; safe in threads.

    names: plain paths, see `torch_utils.text`
    labels: class numbers, if the source itself has them, as IDX and CIFAR files do     label_fault: why they are none
    manifest: name and content of its `dataset.json`     others: what else is in it, in a few words
    size: bytes of the encoded file, known before it is read
    is_there: whether an image is where it was when the source was opened
    """

    kind: str
    path: Path
    names: Sequence[str]
    read: Callable[[int], bytes | np.ndarray]
    close: Callable[[], None] = lambda: None
    labels: Sequence[int] | None = None
    class_names: tuple[str, ...] = ()
    label_fault: str = ""
    manifest: tuple[str, bytes] | None = None
    others: str = ""
    size: Callable[[int], int] = lambda index: 0
    is_there: Callable[[int], bool] = lambda index: True

    def title(self, index: int) -> str:
        """The name of an image, safe to print: file names are bytes and can contain anything."""
        return printable(self.names[index].encode("utf-8", "backslashreplace").decode())


def listed(
    kind: str,
    path: Path,
    files: Collection[str],
    read: Callable[[str], bytes],
    size: Callable[[str], int],
    is_there: Callable[[str], bool],
    close: Callable[[], None] = lambda: None,
) -> Source:
    """The images among named files, sorted by name. read: the content of one; the others as in `Source`.

    Raises UserError if there are none.
    """
    written = plain_paths(files)
    names = sorted(filter(is_image, written))
    if not names:
        cure = advice_for(written) or IMAGES_ARE
        raise UserError(no_images(path, files, cure))
    manifest = find_manifest(written)
    content = (manifest, read(written[manifest])) if manifest else None
    return Source(
        kind, path, names, lambda i: read(written[names[i]]), close, manifest=content,
        others=other_files(name for name in written if name != manifest),
        size=lambda i: size(written[names[i]]), is_there=lambda i: is_there(written[names[i]]),
    )  # fmt: skip


# Folders


def open_folder(root: Path) -> Source:
    """All images below `root`, sorted by relative name. Links to folders are followed, up to a limit.

    Raises UserError if there are no images, if a folder cannot be listed, or if the tree does not end.
    """
    files = files_below(root)

    def read(name: str) -> bytes:
        return read_plain(root / name, size_limit(name))

    try:
        return listed(
            "folder", root, files, read, lambda name: os.stat(root / name).st_size,
            lambda name: os.path.lexists(root / name),
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"Cannot read {root / (find_manifest(files) or '')}: {in_words(error)}") from error


def unchanged(path: Path) -> Callable[[], bool]:
    """Tells whether a file is still the one that it is now."""

    def state() -> tuple[int, ...]:
        try:
            found = path.stat()
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    now = state()
    return lambda: state() == now


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
