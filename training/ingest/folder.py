"""Pictures in a folder and everything below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from torch_utils.errors import UserError
from training.ingest.source import Source, find_manifest, is_picture


def open_folder(root: Path) -> Source:
    """All pictures below `root`, sorted by relative name; links to folders are followed, each folder once.

    Raises UserError if there are none.
    """
    files = sorted(_walk(root, "", frozenset()))
    names = [name for name in files if is_picture(name)]
    if not names:
        raise UserError(f"no pictures in {root} ({len(files)} other files): check --source")
    manifest = find_manifest(files)
    return Source(
        kind="folder",
        path=root,
        names=names,
        read=lambda index: (root / names[index]).read_bytes(),
        manifest=(manifest, (root / manifest).read_bytes()) if manifest else None,
        other_files=len(files) - len(names) - bool(manifest),
    )


def _walk(root: Path, below: str, above: frozenset[str]) -> Iterator[str]:
    """Relative names, with forward slashes, of all files under root/below. `above`: the real folders we are in."""
    real = os.path.realpath(root / below)
    if real in above:  # a link to a folder that contains it
        return
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        raise UserError(f"cannot list {root / below}: {error.strerror}") from error
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            yield from _walk(root, name, above | {real})
        else:
            yield name
