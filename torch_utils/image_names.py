"""Which files are images, to judge by their names. `images.py` decodes them; this module imports nothing slow."""

from __future__ import annotations

from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends like that of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_image(name: str) -> bool:
    """Whether a file in a folder or an archive counts as an image: by its suffix, and unless it is hidden.

    name: relative, with forward slashes. macOS adds hidden files with image suffixes to folders and archives.
    """
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
    return not hidden and has_image_suffix(name)
