"""Sources: images in a zip or a tar file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

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


OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...]
OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))
ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
BLOCK = 1 << 20  # bytes that are unpacked at a time


def uncompressed(file: IO[bytes], before: int = 0) -> IO[bytes]:
    """`file` itself, or its content unpacked, because a compressed stream cannot be read in any order.

    before: bytes that were unpacked from other files of the same source
    Raises one of TAR_ERRORS if it is damaged or cut, or larger than the limit.
    """
    magic = file.read(6)
    file.seek(0)
    opener = next((opener for signature, opener in OPENERS if magic.startswith(signature)), None)
    if opener is None and not magic.startswith(ZLIB):
        return file
    with file, contextlib.ExitStack() as stack:
        unpacked = stack.enter_context(tempfile.TemporaryFile())
        for block in _inflated(file) if opener is None else _blocks(opener(file)):
            unpacked.write(block)
            _check_unpacked(before + unpacked.tell())
        unpacked.seek(0)
        stack.pop_all()  # the caller closes it
    return unpacked


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while block := stream.read(BLOCK):
            yield block


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a zlib stream."""
    inflater = zlib.decompressobj()
    while not inflater.eof:
        packed = inflater.unconsumed_tail or file.read(BLOCK)
        block = inflater.decompress(packed, BLOCK)
        if not packed and not block:
            raise EOFError("the compressed stream ends too early")
        yield block


def _check_unpacked(size: int) -> None:
    """Raises OSError when the unpacked content exceeds the limit, or would fill the disk."""
    fault = excess("unpacked, it", size, "unpacked_gib")
    if fault:
        raise OSError(fault)
    if size % (64 << 20) < BLOCK and shutil.disk_usage(tempfile.gettempdir()).free < KEPT_FREE:
        raise OSError(f"unpacking it fills {tempfile.gettempdir()}; unpack it elsewhere, and give the folder")
