"""Pictures on the way along directions: tables of them, contact sheets, and films."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stylegan.editing.directions import Directions, load_directions, moved
from stylegan.editing.search import captions
from stylegan.editing.settings import SAVED, Apply, Sheet, Walking
from stylegan.latents.latents import Latents, joined, save_latents
from stylegan.latents.render import Painter, in_words, open_painter
from stylegan.latents.sources import Project, distinct, gather
from stylegan.latents.styles import layers_of
from stylegan.projection import project_photos
from torch_utils.files import write_atomically
from torch_utils.images import captioned, encode, grid, to_uint8
from torch_utils.output import GRID, destination, replaces, writing_to
from torch_utils.progress import Progress
from torch_utils.text import counted
from torch_utils.video import write_film


def along(
    latents: Latents, directions: Directions, strengths: Sequence[float], layers: Sequence[int] | None = None
) -> Latents:
    """Each of the latents moved along each of the directions by each of the strengths, which change fastest.

    Raises UserError as `moved` does.
    """
    ways = [
        moved(latents[i : i + 1], directions[k : k + 1], strength, layers)
        for i in range(len(latents)) for k in range(len(directions)) for strength in strengths
    ]  # fmt: skip
    every = joined(ways)
    return replace(every, names=tuple(distinct(every.names)))


def drawn(latents: Latents, painter: Painter, batch: int, bar: Progress) -> np.ndarray:
    """A picture for each, uint8 [N,H,W,C]."""
    parts = []
    for start in range(0, len(latents), batch):
        parts.append(to_uint8(painter.draw(latents[start : start + batch], batch)))
        bar.advance(len(parts[-1]))
    return np.concatenate(parts)


def there_and_back(strengths: Sequence[float], frames: int) -> list[float]:
    """From the least of the strengths to the greatest and back, slower at the ends, so that a film can go round."""
    low, high = min(strengths), max(strengths)
    return [low + (high - low) * (1 - math.cos(2 * math.pi * i / frames)) / 2 for i in range(frames)]


def film(
    latents: Latents, direction: Directions, strengths: Sequence[float], layers: Sequence[int] | None,
    painter: Painter, batch: int, bar: Progress,
) -> Iterator[np.ndarray]:  # fmt: skip
    """A frame for each strength, uint8 [H,W,C], with all of the latents side by side."""
    for strength in strengths:
        yield grid(drawn(moved(latents, direction, strength, layers), painter, batch, bar))


# The pictures of `directions.py apply` and `sheet`: what they start from, their files, and the tables in these


Layers = Sequence[int] | None
"""Those to move; None as each direction says."""


def opened_for(request: Walking) -> tuple[Painter, Directions, Layers]:
    """The network, the file's directions, and the layers to move. Raises UserError for what does not fit together."""
    walk, force = request.walk, request.start.force
    painter = open_painter(request.view, force)
    found = load_directions(Path(walk.directions), painter.snapshot, force)
    config = painter.snapshot.config
    layers = layers_of(walk.layers, config, painter.snapshot.G.synthesis.grown[0]) if walk.layers else None
    return painter, found, layers


def gathered(request: Walking, painter: Painter, project: Project) -> Latents:
    """The pictures to start from. Raises UserError as `gather` does."""
    start = request.start
    return gather(start.seeds, painter, start.classes, project=project, force=start.force)


def plan(request: Walking, painter: Painter, count: int, files: str) -> str:
    """What --dry-run says of so many pictures."""
    photos = project_photos.in_words(request.start.seeds, painter, request.start.num_steps)
    return "\n".join([*in_words(painter, count), *photos, f"Files:      {files}"])


def apply_in_words(request: Apply, latents: Latents, direction: Directions, layers: Layers) -> str:
    """The files that `write_applied` makes, and how many they replace. Raises UserError as `along` does."""
    folder, strengths = Path(request.outdir), request.walk.strengths
    ways = along(latents, direction, strengths, layers)
    files, made = [f"{folder / GRID} ({len(strengths)}x{len(latents)})"], [GRID]
    if request.cells:
        made += [f"{name}.png" for name in ways.names]
        files.append(f"{counted(len(ways), 'cell')} as {folder / made[1]}" + " ..." * (len(ways) > 1))
    more = [SAVED] * request.save_latents + [request.film] * bool(request.film)
    files += [str(folder / name) for name in more]
    return ", ".join(files) + replaces((folder / name for name in [*made, *more]), request.start.seeds)


def write_applied(request: Apply, painter: Painter, latents: Latents, direction: Directions, layers: Layers) -> None:
    """A table with a row for each of the latents and a column for each strength, and what else is asked for.

    Raises UserError where it cannot be written.
    """
    folder, strengths = Path(request.outdir), request.walk.strengths
    ways = along(latents, direction, strengths, layers)
    there = there_and_back(strengths, request.frames) if request.film else []
    count = len(ways) + len(there) * len(latents)
    with writing_to(folder), destination(folder) as add, Progress("Drawing", count) as bar:
        pixels = drawn(ways, painter, request.batch, bar)
        table = laid_out(pixels, latents.names, strengths, request.captions)
        write_atomically(folder / GRID, encode(table, "png"))
        if request.cells:
            for name, picture in zip(ways.names, pixels, strict=True):
                add(f"{name}.png", encode(picture, "png"))
        if request.save_latents:
            save_latents(folder / SAVED, ways, painter.snapshot)
        if there:
            frames = film(latents, direction, there, layers, painter, request.batch, bar)
            write_film(folder / request.film, frames, request.fps)


def sheets_in_words(request: Sheet, latents: Latents) -> str:
    """The files that `write_sheets` makes, and how many they replace."""
    folder, names = Path(request.outdir), sheets_of(latents)
    files = str(folder / names[0]) + (f" ... {names[-1]}" if len(names) > 1 else "")
    return files + replaces((folder / name for name in names), request.start.seeds)


def sheets_of(latents: Latents) -> list[str]:
    return [f"sheet-{name}.png" for name in distinct(latents.names)]


def write_sheets(request: Sheet, painter: Painter, latents: Latents, found: Directions, layers: Layers) -> None:
    """For each of the latents a table with a row for each direction. Raises UserError where it cannot be written."""
    folder, strengths = Path(request.outdir), request.walk.strengths
    count = len(latents) * len(found) * len(strengths)
    with writing_to(folder), destination(folder) as add, Progress("Drawing", count) as bar:
        for i, name in enumerate(sheets_of(latents)):
            pixels = drawn(along(latents[i : i + 1], found, strengths, layers), painter, request.batch, bar)
            add(name, encode(laid_out(pixels, captions(found), strengths, True), "png"))


def laid_out(pixels: np.ndarray, rows: Sequence[str], strengths: Sequence[float], words: bool) -> np.ndarray:
    """A table of pictures uint8 [N,H,W,C], row by row, as one [H',W',C']."""
    if words:
        return captioned(list(pixels), rows, [f"{strength:+.3g}" if strength else "0" for strength in strengths])
    return grid(pixels, len(strengths))
