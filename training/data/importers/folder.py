"""Pictures in a folder and everything below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from torch_utils.errors import UserError
from torch_utils.untrusted import read_plain
from training.data.importers.source import Source, find_manifest, is_picture

DEEPEST, MOST_LINKS = 100, 10_000  # levels of folders, and links to folders that are followed


def open_folder(root: Path) -> Source:
    """All pictures below `root`, sorted by relative name; links to folders are followed, if not without end.

    Raises UserError if there are none.
    """
    files = sorted(_walk(root, "", frozenset(), count()))
    names = [name for name in files if is_picture(name)]
    if not names:
        raise UserError(f"no pictures in {root} ({len(files)} other files): check --source")
    manifest = find_manifest(files)
    return Source(
        kind="folder",
        path=root,
        names=names,
        read=lambda index: read_plain(root / names[index], "picture_mib"),
        manifest=(manifest, _read_manifest(root / manifest)) if manifest else None,
        other_files=len(files) - len(names) - bool(manifest),
    )


def _read_manifest(path: Path) -> bytes:
    try:
        return read_plain(path, "table_mib")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _walk(root: Path, below: str, above: frozenset[str], links: Iterator[int]) -> Iterator[str]:
    """Relative names, with forward slashes, of all files under root/below. above: the real folders we are in.

    links: counts those to folders, which may multiply. Raises UserError for a tree without end.
    """
    real = os.path.realpath(root / below)
    if real in above:  # a link to a folder that contains it
        return
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        raise UserError(f"cannot list {root / below}: {error.strerror}") from error
    if len(above) >= DEEPEST:
        raise UserError(f"{root} has folders within folders without end: check --source")
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            if entry.is_symlink() and next(links) >= MOST_LINKS:
                raise UserError(f"{root} has more than {MOST_LINKS:,} links to folders: check --source")
            yield from _walk(root, name, above | {real}, links)
        else:
            yield name
