"""`stylegan directions apply` and `sheet`: images moved along directions, as tables, contact sheets and films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli.options import (
    BATCH,
    RenderingOptions,
    SourceOptions,
    about_network,
    about_photographs,
    check_steps,
    opened,
    tool_options,
)  # fmt: skip
from stylegan.editing.settings import HOW, WalkSettings
from stylegan.latents.notation import DIRECTIONS, LATENTS, layers_of
from torch_utils.cli import Command, require, require_batch
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.output import FILES, GRID, destination, replaces, require_folder, writing_to
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import counted

if TYPE_CHECKING:
    import numpy as np

    from stylegan.editing.directions import Directions
    from stylegan.latents.latents import Latents
    from stylegan.latents.render import View
    from stylegan.latents.sources import Project

SAVED = f"moved{LATENTS}"
OUTDIR = Flag("--outdir", "Where to put the images.", FILES, metavar="DIR")
WIDE = {"max_content_width": 110}

Layers = Sequence[int] | None
"""Those to move; None as each direction says."""


@dataclass(frozen=True)
class Walking:
    """What `apply` and `sheet` share: pictures that are moved along directions."""

    rendering: RenderingOptions = RenderingOptions()
    start: SourceOptions = SourceOptions()
    walk: WalkSettings = WalkSettings()
    outdir: str = setting("", OUTDIR)
    batch: int = setting(8, BATCH)


@dataclass(frozen=True)
class Apply(Walking):
    """`apply`, as typed."""

    name: str = setting("", Flag("--name", "Which of the file's directions: its name, or its number from 0.", HOW))
    captions: bool = setting(False, Flag("--captions", f"Words at the edges of {GRID}.", FILES))
    cells: bool = setting(False, Flag("--cells", "Also a file for each picture.", FILES))
    save_latents: bool = setting(False, Flag("--save-latents", f"Also {SAVED}, their latents.", FILES))
    film: str = setting("", Flag(
        "--film", "Also a film there and back, such as smile.mp4 or .webp, in --outdir.", FILES,
        metavar="NAME"))  # fmt: skip
    frames: int = setting(60, Flag("--frames", "Length of the film.", FILES))
    fps: float = setting(30.0, Flag("--fps", "Frames a second.", FILES))


@dataclass(frozen=True)
class Sheet(Walking):
    """`sheet`, as typed."""

    count: int = setting(10, Flag("--count", "Of how many directions, from the first.", HOW))


def check_apply(request: Apply) -> None:
    """Raises UserError for what no network could serve."""
    plain = Apply()
    if not request.film and (request.frames, request.fps) != (plain.frames, plain.fps):
        raise UserError("--frames and --fps are for --film; add it, or leave them out")
    if request.film and request.frames < 2:
        raise UserError(f"--frames {request.frames} make no film; use 60 or so")


def check_count(count: int) -> None:
    """Raises UserError for none."""
    if count < 1:
        raise UserError(f"--count {count} is no number of directions; use 1 or more")


def check_walking(request: Walking) -> None:
    """Raises UserError for what no network could serve."""
    require_batch(request.batch)
    check_steps(request.start.num_steps)
    require_folder(Path(request.outdir))


@click.command("apply", cls=Command, params=tool_options(Apply), context_settings=WIDE)
def apply(typed: dict[str, Any], dry_run: bool) -> None:
    """Move pictures along a direction: a row for each, a column for each strength; strength 0 is the picture itself.

    The pictures are seeds, latent files or photographs, which are projected first.

    \b
      directions.py apply --network runs/00001-faces-faces64 --directions smile.direction.safetensors
                          --seeds 0-3,eva.jpg --strengths -3:3:7 --outdir out
    """
    request = replaced(Apply(), typed)
    require(f"--network runs/00000-faces --directions pca{DIRECTIONS} --name pc0 --seeds 0-5 --outdir out",
            network=request.rendering.network, directions=request.walk.directions, seeds=request.start.seeds,
            outdir=request.outdir)  # fmt: skip
    check_apply(request)
    check_walking(request)
    from stylegan.projection.project_photos import projecting, standing_in
    from torch_utils.video import check_film

    view, found, layers = opened_for(request)
    if len(found) > 1 and not request.name:
        raise UserError(f"{request.walk.directions} holds {', '.join(found.names)}; choose one with --name")
    direction = found.named(request.name or 0)
    if request.film:
        check_film(Path(request.outdir, request.film), request.fps, view.config.channels)
    # At first without any projection, so that what cannot be is said before one.
    starts = gathered(request, view, standing_in)
    files = applied_files(request, starts, direction, layers)
    if dry_run:
        click.echo(plan(request, view, len(starts) * len(request.walk.strengths), files))
        return
    latents = gathered(request, view, projecting(request.start.num_steps, request.batch))
    write_applied(request, view, latents, direction, layers)
    click.echo(f"{direction.names[0]}: {files}")


@click.command("sheet", cls=Command, params=tool_options(Sheet), context_settings=WIDE)
def sheet(typed: dict[str, Any], dry_run: bool) -> None:
    """Draw what each direction does, to find names for them: sheet-NAME.png for each picture, a row per direction."""
    request = replaced(Sheet(), typed)
    require(f"--network runs/00000-faces --directions pca{DIRECTIONS} --seeds 3 --outdir out",
            network=request.rendering.network, directions=request.walk.directions, seeds=request.start.seeds,
            outdir=request.outdir)  # fmt: skip
    check_count(request.count)
    check_walking(request)
    from stylegan.editing.search import listed
    from stylegan.projection.project_photos import projecting, standing_in

    view, found, layers = opened_for(request)
    found = found[: request.count]
    starts = gathered(request, view, standing_in)
    files = sheet_files(request, starts)
    if dry_run:
        click.echo(plan(request, view, len(starts) * len(found) * len(request.walk.strengths), files))
        return
    latents = gathered(request, view, projecting(request.start.num_steps, request.batch))
    write_sheets(request, view, latents, found, layers)
    click.echo("\n".join(listed(found)))
    click.echo(f"{counted(len(latents), 'sheet')}: {files}")


def opened_for(request: Walking) -> tuple[View, Directions, Layers]:
    """The network, the file's directions, and the layers to move. Raises UserError for what does not fit together."""
    from stylegan.editing.directions import load_directions

    walk, force = request.walk, request.start.force
    view = opened(request.rendering, force)
    found = load_directions(Path(walk.directions), view.snapshot, force)
    layers = layers_of(walk.layers, view.config, view.stage.resolution) if walk.layers else None
    return view, found, layers


def gathered(request: Walking, view: View, project: Project) -> Latents:
    """The latents to start from. Raises UserError as `sources.gather` does."""
    from stylegan.latents.sources import gather

    start = request.start
    return gather(start.seeds, view, start.classes, project=project, force=start.force)


def plan(request: Walking, view: View, count: int, files: str) -> str:
    """What --dry-run says of so many images."""
    photos = about_photographs(request.start.seeds, view, request.start.num_steps)
    return "\n".join([*about_network(request.rendering.network, view, count), *photos, f"Files:      {files}"])


def applied_files(request: Apply, latents: Latents, direction: Directions, layers: Layers) -> str:
    """The files that `write_applied` writes, and how many they replace. Raises UserError as `walk.along` does."""
    from stylegan.editing.walk import along

    folder, strengths = Path(request.outdir), request.walk.strengths
    ways = along(latents, direction, strengths, layers)
    files, made = [f"{folder / GRID} ({len(strengths)}x{len(latents)})"], [GRID]
    if request.cells:
        made += [f"{name}.png" for name in ways.names]
        files.append(f"{counted(len(ways), 'cell')} as {folder / made[1]}" + " ..." * (len(ways) > 1))
    more = [SAVED] * request.save_latents + [request.film] * bool(request.film)
    files += [str(folder / name) for name in more]
    return ", ".join(files) + replaces((folder / name for name in [*made, *more]), request.start.seeds)


def write_applied(request: Apply, view: View, latents: Latents, direction: Directions, layers: Layers) -> None:
    """A table with a row for each of the latents and a column for each strength, and what else is asked for.

    Raises UserError where it cannot be written.
    """
    from stylegan.editing.walk import along, drawn, film, there_and_back
    from stylegan.latents.latents import save_latents
    from torch_utils.images import encode
    from torch_utils.output import Progress
    from torch_utils.video import write_film

    folder, strengths = Path(request.outdir), request.walk.strengths
    ways = along(latents, direction, strengths, layers)
    there = there_and_back(strengths, request.frames) if request.film else []
    count = len(ways) + len(there) * len(latents)
    with writing_to(folder), destination(folder) as add, Progress("Drawing", count) as bar:
        pixels = drawn(ways, view, request.batch, bar)
        table = laid_out(pixels, latents.names, strengths, request.captions)
        write_atomically(folder / GRID, encode(table, "png"))
        if request.cells:
            for name, image in zip(ways.names, pixels, strict=True):
                add(f"{name}.png", encode(image, "png"))
        if request.save_latents:
            save_latents(folder / SAVED, ways, view.snapshot)
        if there:
            frames = film(latents, direction, there, layers, view, request.batch, bar)
            write_film(folder / request.film, frames, request.fps)


def sheet_files(request: Sheet, latents: Latents) -> str:
    """The files that `write_sheets` writes, and how many they replace."""
    folder, names = Path(request.outdir), sheets_of(latents)
    files = str(folder / names[0]) + (f" ... {names[-1]}" if len(names) > 1 else "")
    return files + replaces((folder / name for name in names), request.start.seeds)


def sheets_of(latents: Latents) -> list[str]:
    from stylegan.latents.latents import distinct

    return [f"sheet-{name}.png" for name in distinct(latents.names)]


def write_sheets(request: Sheet, view: View, latents: Latents, found: Directions, layers: Layers) -> None:
    """For each of the latents a table with a row for each direction. Raises UserError where it cannot be written."""
    from stylegan.editing.search import captions
    from stylegan.editing.walk import along, drawn
    from torch_utils.images import encode
    from torch_utils.output import Progress

    folder, strengths = Path(request.outdir), request.walk.strengths
    count = len(latents) * len(found) * len(strengths)
    with writing_to(folder), destination(folder) as add, Progress("Drawing", count) as bar:
        for i, name in enumerate(sheets_of(latents)):
            pixels = drawn(along(latents[i : i + 1], found, strengths, layers), view, request.batch, bar)
            add(name, encode(laid_out(pixels, captions(found), strengths, True), "png"))


def laid_out(pixels: np.ndarray, rows: Sequence[str], strengths: Sequence[float], words: bool) -> np.ndarray:
    """A table of images uint8 [N,H,W,C], row by row, as one [H',W',C']."""
    from torch_utils.images import captioned, grid

    if words:
        return captioned(list(pixels), rows, [f"{strength:+.3g}" if strength else "0" for strength in strengths])
    return grid(pixels, len(strengths))
