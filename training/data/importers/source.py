"""What every kind of source looks like to the rest of the dataset tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from torch_utils.text import printable

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".tga", ".tif"}
    | {".tiff", ".webp", ".pbm", ".pgm", ".pnm", ".ppm"}
)
MANIFEST = "dataset.json"


@dataclass(frozen=True)
class Source:
    """Pictures in a fixed order. `read(i)`: the encoded file, or uint8 pixels [H,W] or [H,W,C]; safe in threads.

    labels: the class numbers the source itself knows, as IDX and CIFAR files do   manifest: content of `dataset.json`
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
        """The name of a picture as it can be printed: file names are bytes, and may say anything."""
        return printable(self.names[index].encode("utf-8", "backslashreplace").decode())


def is_picture(name: str) -> bool:
    """Does the name promise a picture? Hidden files, and the twins that macOS writes into archives, do not."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def find_manifest(names: Sequence[str]) -> str | None:
    """The `dataset.json` nearest to the root."""
    found = [name for name in names if PurePosixPath(name).name == MANIFEST]
    return min(found, key=lambda name: (name.count("/"), name), default=None)
