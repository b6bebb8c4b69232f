"""The files in and below a folder, as all readers of images see them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from torch_utils.errors import UserError

MAX_DEPTH, MAX_LINKS = 100, 10_000  # levels of folders, and links to folders that are followed


def files_below(root: Path) -> list[str]:
    """Relative names, with forward slashes, of all that is not a folder, in no order. Links to folders are followed.

    Raises UserError for a folder that cannot be listed, because its images would be lost, and for a tree without end.
    """
    return list(_walk(root, "", frozenset(), count()))


def _walk(root: Path, below: str, above: frozenset[str], links: Iterator[int]) -> Iterator[str]:
    """above: the real paths of the folders that contain it     links: counts links to folders, which can multiply"""
    real = os.path.realpath(root / below)
    if real in above:  # a link to a folder that contains it
        return
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        raise UserError(
            f"Cannot list {root / below}: {error.strerror}; make it readable, or move it out of {root}"
        ) from error
    if len(above) >= MAX_DEPTH:
        raise UserError(f"{root} has more than {MAX_DEPTH} levels of folders: give the folder with the images")
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            if entry.is_symlink() and next(links) >= MAX_LINKS:
                raise UserError(f"{root} has more than {MAX_LINKS:,} links to folders: give the folder with the images")
            yield from _walk(root, name, above | {real}, links)
        else:
            yield name
