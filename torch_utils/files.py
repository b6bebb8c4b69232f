"""Write files so that they are complete or absent, even after a power cut, and find the cache folders."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = "*.tmp"  # glob for scratch files of killed processes; only those of earlier versions do not begin with a dot
CACHE_VARIABLE = "STYLEGAN_CACHE"
_NOT_FOR_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR}


@contextmanager
def atomic_write(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a scratch path beside `path`; the file or folder written there becomes `path` when the block succeeds.

    durable: first wait until it is on the disk, so that it survives a power cut; not for thousands of small files

    If the block raises, the scratch file is removed and `path` stays as it was. An existing file at `path` is replaced;
    an existing folder only if it is empty. Several processes may write the same path: the last one wins.
    """
    # Random rather than the process id: ids can repeat among machines that share a disk. Names have at most 255 bytes.
    scratch = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield scratch
        if durable:
            put_in_place(scratch, path)
        else:
            os.replace(scratch, path)
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch)
        scratch.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a whole file with `atomic_write`."""
    with atomic_write(path, durable) as scratch:
        scratch.write_bytes(content)


def put_in_place(scratch: Path, path: Path) -> None:
    """Rename a finished file or folder to `path`, once its content is on the disk. Raises OSError if that fails."""
    if scratch.is_dir():
        for entry in scratch.rglob("*"):
            if entry.is_file():
                sync(entry)
        sync_folder(scratch)
    else:
        sync(scratch)  # otherwise a power cut could leave the new name on old or missing content
    os.replace(scratch, path)
    sync_folder(path.parent)


def sync(path: Path, forget: bool = False) -> None:
    """Wait until the content of a file is on the disk.

    forget: also drop it from the page cache where the system allows that, so that the next reader sees the disk's copy.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        if forget and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Does nothing where folders cannot be synced (Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(handle)


def cache_folder(kind: str) -> Path:
    """The cache folder for one kind of files ("models", "features", "data" ...), which may not exist yet.

    It is $STYLEGAN_CACHE/kind if that variable is set, otherwise stylegan/kind in the user's cache folder, which on
    Linux is $XDG_CACHE_HOME or ~/.cache. Everything in it can be deleted at any time.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / kind
    import platformdirs  # not at the top, because --help should not wait for it

    folder = platformdirs.user_cache_path("stylegan", appauthor=False) / kind
    former = Path(os.path.expanduser("~"), ".cache", "stylegan", kind)  # what earlier versions used on every system
    return former if former.is_dir() and not folder.is_dir() else folder
