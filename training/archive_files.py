"""Where the bytes of an archive are: a zip or a folder, behind the same three names."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image

from torch_utils.limits import read_plain
from torch_utils.zips import ZIP_ERRORS, read_member

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".pgm", ".ppm"})

# What Pillow, zipfile and json are known to raise on damaged files.
BROKEN = (*ZIP_ERRORS, SyntaxError, TypeError, LookupError, MemoryError, AssertionError, Image.DecompressionBombError)


def is_image(name: str) -> bool:
    """Whether a member counts as a picture: by its suffix, and not hidden."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


class Files(Protocol):
    """Named bytes, read from several threads at once."""

    names: list[str]

    def read(self, name: str) -> bytes: ...

    def fingerprints(self) -> list[tuple[str, int, int]]:
        """Per file: its name and two numbers that change with its content, found without reading it."""


class Zip:
    """Files of a zip; fingerprints are CRC and size."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self._lock = threading.Lock()  # ZipFile counts its open members without one
        self.names = [m.filename for m in self._zip.infolist() if not m.is_dir()]

    def read(self, name: str) -> bytes:
        with self._lock:
            return read_member(self._zip, name, "picture_mib" if is_image(name) else "table_mib")

    def fingerprints(self) -> list[tuple[str, int, int]]:
        return [(m.filename, m.CRC, m.file_size) for m in self._zip.infolist()]


class Folder:
    """Files under a folder; fingerprints, of pictures and labels only, are size and modification time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        found = [Path(root) / name for root, _, files in os.walk(path) for name in files]
        self.names = [file.relative_to(path).as_posix() for file in found if file.is_file()]  # a pipe has no end

    def read(self, name: str) -> bytes:
        return read_plain(self._path / name, "picture_mib" if is_image(name) else "table_mib")

    def fingerprints(self) -> list[tuple[str, int, int]]:
        kept = [name for name in self.names if is_image(name) or name.endswith(".json")]
        stats = [(name, (self._path / name).stat()) for name in kept]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
