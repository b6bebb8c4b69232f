"""Where a command writes its images: options for folder, format and grid, checks, and writing itself.

All commands follow one rule: an existing file of the same name is replaced, and the line that names the files says so.
A file that the results are made from is never replaced.

`--help` imports this file for its options, so the functions that write import numpy and `torch_utils.images` late.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch_utils.errors import UserError, explained, in_words
from torch_utils.files import atomic_write, write_atomically
from torch_utils.progress import Progress
from torch_utils.settings import Flag, setting
from torch_utils.text import counted

if TYPE_CHECKING:
    import numpy as np

FILES = "Files"
ZIP, GRID = "images.zip", "grid.png"
Format = Literal["png", "jpg", "webp", "npy", "zip"]
Grid = tuple[int, int] | Literal["auto"]


def parse_grid(text: str) -> Grid:
    """Read "6x4" as 6 columns and 4 rows, and "auto" as it is. Raises UserError for other text."""
    if text == "auto":
        return "auto"
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.strip().lower())
    if match is None:
        raise UserError(f"Invalid grid '{text}': expected COLUMNSxROWS, for example 6x4")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Output:
    """The image files that a command writes.

    grid: columns and rows of grid.png, "auto" for a roughly square one, None for no grid.
    """

    outdir: str = setting("", Flag("--outdir", "Where to put the images.", FILES, metavar="DIR"))
    format: Format = setting("png", Flag("--format", "File format; zip is one images.zip of PNGs.", FILES))
    grid: Grid | None = setting(None, Flag(
        "--grid", "Also write grid.png; roughly square if no size is given.", FILES,
        parse=parse_grid, metavar="[COLSxROWS]", bare="auto"))  # fmt: skip

    @property
    def folder(self) -> Path:
        return Path(self.outdir)

    @property
    def kind(self) -> Literal["png", "jpg", "webp", "npy"]:
        """Format of the single images, also of those inside a zip."""
        return "png" if self.format == "zip" else self.format

    def names(self, stems: Iterable[str]) -> list[str]:
        """File names: seed0001 -> seed0001.png."""
        return [f"{stem}.{self.kind}" for stem in stems]


# Checks before any work is done


def check_output(output: Output, count: int, channels: int) -> None:
    """Raises UserError unless `count` images with so many channels can be written this way. Writes nothing."""
    if output.kind == "jpg" and channels == 4:
        raise UserError("--format jpg cannot store the alpha channel of this network's images; use png or webp")
    grid_shape(output.grid, count)


def grid_shape(grid: Grid | None, count: int) -> tuple[int, int] | None:
    """Columns and rows of the grid for `count` images. Raises UserError if the images do not fit."""
    if grid == "auto":
        columns = math.ceil(math.sqrt(count))
        return columns, math.ceil(count / columns)
    if grid and grid[0] * grid[1] < count:
        raise UserError(
            f"--grid {grid[0]}x{grid[1]} has room for {counted(grid[0] * grid[1], 'image')}, not {count}; "
            "choose a larger grid"
        )
    return grid


def planned_files(
    output: Output, names: Sequence[str], more: Sequence[str] = (), sources: Iterable[object] = ()
) -> str:
    """Name the files of `write_images`, and `more`: "out/seed0000.png ... seed0035.png, out/grid.png (6x6)".

    Call it before they are written: it also tells how many files they replace, and raises UserError as `replaces` does.
    """
    folder, shape = output.folder, grid_shape(output.grid, len(names))
    what = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    files = [f"{folder / ZIP} ({what})" if output.format == "zip" else str(folder / what)]
    if shape:
        files.append(f"{folder / GRID} ({shape[0]}x{shape[1]})")
    written = [ZIP] if output.format == "zip" else names
    every = [folder / name for name in [*written, *[GRID] * bool(shape), *more]]
    return ", ".join([*files, *(str(folder / name) for name in more)]) + replaces(every, sources)


def replaces(paths: Iterable[Path], sources: Iterable[object] = ()) -> str:
    """Tell how many of the files to be written exist already: "; replaces 2 older files", or "" if none does.

    sources: what the results are made from; only its paths count. Raises UserError if one of them would be replaced.
    """
    existing = [path for path in paths if path.exists()]
    inputs = {source.resolve() for source in sources if isinstance(source, Path)}
    for path in existing:
        if path.resolve() in inputs:
            raise UserError(f"{path} is one of the inputs and would be replaced; write the results elsewhere")
    return f"; replaces {counted(len(existing), 'older file')}" if existing else ""


def require_folder(folder: Path, flag: str = "--outdir") -> None:
    """Raises UserError unless files can be written to a folder, which need not exist yet. Leaves nothing behind.

    It tries to write, because permission bits say nothing about file systems such as /proc.
    """
    existing, missing = folder, None
    try:
        while not existing.exists():
            existing, missing = existing.parent, existing
        if not existing.is_dir():
            raise UserError(f"cannot write to {folder}: {existing} is a file; name a folder with {flag}")
        if missing is not None:
            missing.mkdir()
            missing.rmdir()
        else:
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = "files cannot be created there" if existing == folder else f"cannot create a folder in {existing}"
        raise UserError(f"cannot write to {folder}: {why}; name another folder with {flag}") from error


# Images, one file each or all in a zip file


def write_images(output: Output, names: Sequence[str], batches: Iterable[np.ndarray]) -> None:
    """Write one image for each of `names` from batches, uint8 [N,H,W,C], and show the progress.

    Raises UserError if they cannot be written or do not fit into the grid.
    """
    # Not at the top, because --help should not wait for them.
    from concurrent.futures import ThreadPoolExecutor

    from torch_utils.images import encode, grid

    shape = grid_shape(output.grid, len(names))
    kept: list[np.ndarray] = []
    rest = iter(names)
    with (
        writing_to(output.folder),
        destination(output.folder, ZIP if output.format == "zip" else "") as add,
        Progress("Drawing", len(names)) as bar,
        ThreadPoolExecutor() as encoders,
    ):
        for images in batches:
            # The contents come first: at their end, zip has not yet taken the next name.
            for content, name in zip(encoders.map(encode, images, repeat(output.kind)), rest, strict=False):
                add(name, content)
            bar.advance(len(images))
            if shape:
                kept.extend(images)
        if shape:
            write_atomically(output.folder / GRID, encode(grid(kept, *shape), "png"))


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError that names the folder, or the file elsewhere that it is about."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, (str, bytes)):
            here, there = Path(os.path.abspath(folder)), Path(os.path.abspath(os.fsdecode(error.filename)))
            if not there.is_relative_to(here) and not here.is_relative_to(there):
                raise UserError(explained(error)) from error
        raise UserError(f"cannot write to {folder}: {in_words(error)}") from error


@contextmanager
def destination(folder: Path, archive: str = "") -> Iterator[Callable[[str, bytes], object]]:
    """Yield a function that stores content under a name, in `folder` or in a zip file called `archive` in it.

    Files in the folder are complete or absent. The zip file appears when it is complete; an older one is removed at
    once, so that it is never taken for the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not archive:
        yield lambda name, content: write_atomically(folder / name, content, durable=False)
        return
    (folder / archive).unlink(missing_ok=True)
    from zipfile import ZipFile, ZipInfo

    with atomic_write(folder / archive) as scratch, ZipFile(scratch, "w") as file:
        yield lambda name, content: file.writestr(ZipInfo(name), content)  # without dates: same images, same bytes
