"""Writes pictures as an `Output` says: single files or one zip, and a grid of them all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np

from torch_utils.errors import UserError
from torch_utils.images import encode, grid
from torch_utils.output import GRID, ZIP, Output, cells
from torch_utils.progress import Progress


def write_pictures(output: Output, names: Sequence[str], batches: Iterable[np.ndarray]) -> None:
    """Write a picture for each of `names`, from uint8 [N,H,W,C] at a time, and say how far it has come.

    Raises UserError where they cannot be written, and for a grid that they do not fit in.
    """
    shape = cells(output.grid, len(names))
    kept: list[np.ndarray] = []
    rest = iter(names)
    with (
        writing_to(output.folder),
        destination(output.folder, ZIP if output.format == "zip" else "") as add,
        Progress("Drawing", len(names)) as bar,
        ThreadPoolExecutor() as encoders,
    ):
        for pixels in batches:
            # The contents first: when they end, zip has not yet taken the name that comes after.
            for content, name in zip(encoders.map(encode, pixels, repeat(output.kind)), rest, strict=False):
                add(name, content)
            bar.advance(len(pixels))
            if shape:
                kept.extend(pixels)
        if shape:
            write_whole(output.folder / GRID, encode(grid(kept, *shape), "png"))


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """A failure to write in here becomes a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def destination(folder: Path, archive: str = "") -> Iterator[Callable[[str, bytes], object]]:
    """A function that keeps a file's content under a name: in `folder`, or in a zip of that name in it.

    The zip appears when it is whole; an older one is removed at once, so that it is never taken for the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not archive:
        yield lambda name, content: (folder / name).write_bytes(content)
        return
    (folder / archive).unlink(missing_ok=True)
    scratch = folder / f".{archive}.{os.getpid()}.tmp"
    try:
        with ZipFile(scratch, "w") as file:
            yield lambda name, content: file.writestr(ZipInfo(name), content)  # no dates: same pictures, same bytes
        scratch.replace(folder / archive)
    finally:
        scratch.unlink(missing_ok=True)
