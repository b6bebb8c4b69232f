"""Pictures in a zip or a tar file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO

from torch_utils.errors import UserError
from training.ingest.source import Source, find_manifest, is_picture

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def open_zip(path: Path) -> Source:
    """The pictures of a zip file, sorted by name. Raises UserError if it is damaged or has none."""
    try:
        archive = zipfile.ZipFile(path)
        files = sorted(member.filename for member in archive.infolist() if not member.is_dir())
        manifest = find_manifest(files)
        content = (manifest, archive.read(manifest)) if manifest else None
    except (zipfile.BadZipFile, OSError, RuntimeError, zlib.error) as error:
        raise UserError(f"cannot open {path} as a zip file: {error}") from error
    names = [name for name in files if is_picture(name)]
    _require(names, path, len(files))
    lock = threading.Lock()

    def read(index: int) -> bytes:
        with lock:  # ZipFile counts its open members without one
            return archive.read(names[index])

    return Source(
        kind="zip",
        path=path,
        names=names,
        read=read,
        close=archive.close,
        manifest=content,
        other_files=len(files) - len(names) - bool(manifest),
    )


def open_tar(path: Path) -> Source:
    """The pictures of a tar file, sorted by name; a compressed one is unpacked once into a nameless temporary file.

    Raises UserError if it is damaged or has none.
    """
    file: IO[bytes] = path.open("rb")
    try:
        file = _uncompressed(file)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = {m.name: (m.offset_data, m.size) for m in archive if m.isreg() and not m.issparse()}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        file.close()
        raise UserError(f"cannot open {path} as a tar file: {error}") from error
    lock = threading.Lock()

    def read(name: str) -> bytes:
        offset, size = members[name]
        with lock:  # one file position for all threads
            file.seek(offset)
            return file.read(size)

    names = sorted(name for name in members if is_picture(name))
    _require(names, path, len(members))
    manifest = find_manifest(list(members))
    return Source(
        kind="tar",
        path=path,
        names=names,
        read=lambda index: read(names[index]),
        close=file.close,
        manifest=(manifest, read(manifest)) if manifest else None,
        other_files=len(members) - len(names) - bool(manifest),
    )


def _uncompressed(file: IO[bytes]) -> IO[bytes]:
    """`file` itself, or its content unpacked: a compressed stream cannot be read in any order."""
    magic = file.read(6)
    file.seek(0)
    for signature, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open)):
        if magic.startswith(signature):
            unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
            with file, opener(file) as stream:
                shutil.copyfileobj(stream, unpacked, 1 << 20)
            unpacked.seek(0)
            return unpacked
    return file


def _require(names: list[str], path: Path, files: int) -> None:
    if not names:
        raise UserError(f"no pictures in {path} ({files} other files): check --source")
