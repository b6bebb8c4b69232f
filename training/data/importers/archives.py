"""Sources: images in a zip or a tar file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import IO

from torch_utils.errors import UserError
from torch_utils.text import printable
from torch_utils.untrusted import ZIP_ERRORS, excess
from training.data.archive import files_of_zip, require_distinct, size_limit
from training.data.importers.source import Source, listed, unchanged
from training.data.labels import find_manifest

KEPT_FREE = 1 << 30  # bytes of the disk that unpacking leaves free
# RecursionError, for headers upon headers, is a RuntimeError.
TAR_ERRORS = (tarfile.TarError, *ZIP_ERRORS, LookupError, TypeError)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def open_zip(path: Path) -> Source:
    """The images of a zip file, sorted by name. Raises UserError if it is damaged or contains no images."""
    try:
        files = files_of_zip(path)
        intact = unchanged(path)
        return listed("zip", path, files.names, files.read, files.size, lambda name: intact(), files.close)
    except ZIP_ERRORS as error:
        raise UserError(f"Cannot open {path} as a zip file: {error}") from error


def open_tar(path: Path) -> Source:
    """The images of a tar file, sorted by name; a compressed one is unpacked once into a nameless temporary file.

    Raises UserError if it is damaged or contains no images.
    """
    file: IO[bytes] = path.open("rb")
    try:
        file = uncompressed(file)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            found = [(m.name, m.offset_data, m.size) for m in archive if m.isreg() and not m.issparse()]
    except TAR_ERRORS as error:
        file.close()
        raise UserError(f"Cannot open {path} as a tar file: {error}") from error
    lock, intact = threading.Lock(), unchanged(path)
    require_distinct(path, [name for name, _, _ in found])
    members = {name: (offset, size) for name, offset, size in found}

    def read(name: str) -> bytes:
        offset, size = members[name]
        fault = excess("it", size, size_limit(name))
        if fault:
            raise OSError(fault)
        with lock:  # all threads share one file position
            file.seek(offset)
            return file.read(size)

    try:
        return listed("tar", path, members, read, lambda name: members[name][1], lambda name: intact(), file.close)
    except OSError as error:
        raise UserError(f"Cannot read {printable(find_manifest(members) or '')} in {path}: {error}") from error


def uncompressed(file: IO[bytes]) -> IO[bytes]:
    """`file` itself, or its content unpacked, because a compressed stream cannot be read in any order."""
    magic = file.read(6)
    file.seek(0)
    for signature, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open)):
        if magic.startswith(signature):
            unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
            with file, opener(file) as stream:
                while block := stream.read(1 << 20):
                    unpacked.write(block)
                    _check_unpacked(unpacked)
            unpacked.seek(0)
            return unpacked
    return file


def _check_unpacked(file: IO[bytes]) -> None:
    """Raises OSError when the unpacked content exceeds the limit, or would fill the disk."""
    size = file.tell()
    fault = excess("unpacked, it", size, "unpacked_gib")
    if fault:
        raise OSError(fault)
    if size % (64 << 20) < 1 << 20 and shutil.disk_usage(tempfile.gettempdir()).free < KEPT_FREE:
        raise OSError(f"unpacking it fills {tempfile.gettempdir()}; unpack it elsewhere, and give the folder")
