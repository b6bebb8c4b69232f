"""Where pictures go, as it is typed: the folder, the kind of file, the grid. `writing.py` does it.

One rule for all tools: a file of the same name is replaced, and the line that names what is written says so; but never
one that the results are made from.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting
from torch_utils.text import counted

FILES = "Files"
ZIP, GRID = "images.zip", "grid.png"
Format = Literal["png", "jpg", "webp", "npy", "zip"]
Grid = tuple[int, int] | Literal["auto"]


def parse_grid(text: str) -> Grid:
    """ "6x4" -> 6 columns and 4 rows. Raises UserError if it is anything else but "auto"."""
    if text == "auto":
        return "auto"
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.strip().lower())
    if match is None:
        raise UserError(f"'{text}' is no grid; write COLUMNSxROWS, as in 6x4")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Output:
    """The files a tool makes of its pictures. grid: columns and rows, "auto" for about square, None for none."""

    outdir: str = setting("", Flag("--outdir", "Where to put the pictures.", FILES, metavar="DIR"))
    format: Format = setting("png", Flag("--format", "Kind of the files; zip is one images.zip of PNGs.", FILES))
    grid: Grid | None = setting(None, Flag(
        "--grid", "Also write grid.png; about square if no size is given.", FILES,
        parse=parse_grid, metavar="[COLSxROWS]", alone="auto"))  # fmt: skip

    @property
    def folder(self) -> Path:
        return Path(self.outdir)

    @property
    def kind(self) -> Literal["png", "jpg", "webp", "npy"]:
        """Of the single pictures, those inside a zip included."""
        return "png" if self.format == "zip" else self.format

    def names(self, stems: Iterable[str]) -> list[str]:
        """File names: seed0001 -> seed0001.png."""
        return [f"{stem}.{self.kind}" for stem in stems]


def check_output(output: Output, count: int, channels: int) -> None:
    """Raises UserError unless `count` pictures of `channels` can be written so. Writes nothing."""
    if output.kind == "jpg" and channels == 4:
        raise UserError("--format jpg holds no alpha channel, and this network makes one; use png or webp")
    cells(output.grid, count)


def cells(grid: Grid | None, count: int) -> tuple[int, int] | None:
    """Columns and rows of the grid. Raises UserError if the pictures do not fit in."""
    if grid == "auto":
        columns = math.ceil(math.sqrt(count))
        return columns, math.ceil(count / columns)
    if grid and grid[0] * grid[1] < count:
        holds = counted(grid[0] * grid[1], "picture")
        raise UserError(f"--grid {grid[0]}x{grid[1]} holds {holds}, not {count}; make it larger")
    return grid


def in_words(output: Output, names: Sequence[str], more: Sequence[str] = (), sources: Iterable[object] = ()) -> str:
    """The files that `write_pictures` makes, and `more`: "out/seed0000.png ... seed0035.png, out/grid.png (6x6)".

    With what they replace, see `replaces`, so to be asked for before they are written.
    """
    folder, shape = output.folder, cells(output.grid, len(names))
    what = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    files = [f"{folder / ZIP} ({what})" if output.format == "zip" else str(folder / what)]
    if shape:
        files.append(f"{folder / GRID} ({shape[0]}x{shape[1]})")
    made = [ZIP] if output.format == "zip" else names
    every = [folder / name for name in [*made, *[GRID] * bool(shape), *more]]
    return ", ".join([*files, *(str(folder / name) for name in more)]) + replaces(every, sources)


def replaces(paths: Iterable[Path], sources: Iterable[object] = ()) -> str:
    """What to add to words that name these files before they are written: "" if none is there yet.

    Raises UserError if one is among `sources`, of which only paths count.
    """
    there = [path for path in paths if path.exists()]
    taken = {source.resolve() for source in sources if isinstance(source, Path)}
    for path in there:
        if path.resolve() in taken:
            raise UserError(f"{path} is what the results are made from, and would be replaced; write them elsewhere")
    return f"; replaces {counted(len(there), 'older file')}" if there else ""


def require_folder(folder: Path, flag: str = "--outdir") -> None:
    """Raises UserError, before any work, unless files can be written to a folder, which need not be there yet.

    Leaves nothing behind. Whether it can be is tried out, as no permission tells it of /proc.
    """
    there, missing = folder, None
    try:
        while not there.exists():
            there, missing = there.parent, there
        if not there.is_dir():
            raise UserError(f"cannot write to {folder}: {there} is a file; name a folder with {flag}")
        if missing is not None:
            missing.mkdir()
            missing.rmdir()
        else:
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = "no file can be made there" if there == folder else f"no folder can be made in {there}"
        raise UserError(f"cannot write to {folder}: {why}; name another folder with {flag}") from error
