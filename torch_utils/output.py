"""Where pictures go, as it is typed: the folder, the kind of file, the grid. `writing.py` does it.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting

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
        raise UserError(f"--grid {grid[0]}x{grid[1]} holds {grid[0] * grid[1]} pictures, not {count}; make it larger")
    return grid


def in_words(output: Output, names: Sequence[str]) -> str:
    """The files that `write_pictures` makes: "out/seed0000.png ... seed0035.png, out/grid.png (6x6)"."""
    what = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    files = f"{output.folder / ZIP} ({what})" if output.format == "zip" else str(output.folder / what)
    shape = cells(output.grid, len(names))
    return files + (f", {output.folder / GRID} ({shape[0]}x{shape[1]})" if shape else "")
