"""`stylegan directions apply` and `sheet`: images moved along directions, as tables, contact sheets and films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan.cli.options import (
    BATCH,
    SourceOptions,
    about_network,
    check_tool,
    projecting,
    say_unused,
    standing_in,
    tool,
)
from stylegan.editing.film_files import check_film, frames_and_seconds, write_film
from stylegan.editing.settings import SEARCH, MoveSettings, check_count
from stylegan.latents.notation import DIRECTIONS, LATENTS, RenderingOptions
from torch_utils.cli import require
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.output import FILES, GRID, destination, grid_shape, replaces, writing_to
from torch_utils.settings import Flag, setting
from torch_utils.text import as_stem, counted, say

if TYPE_CHECKING:
    import numpy as np

    from stylegan.editing.directions import Directions, Moves
    from stylegan.latents.latents import Latents
    from stylegan.latents.render import Project, View

SAVED = f"moved{LATENTS}"

Layers = Sequence[int] | None
"""Those to move; None for those of each direction."""


@dataclass(frozen=True)
class MoveRequest:
    """The settings that `apply` and `sheet` share: images that are moved along directions."""

    rendering: RenderingOptions = RenderingOptions()
    start: SourceOptions = SourceOptions()
    move: MoveSettings = MoveSettings()
    outdir: str = setting("", Flag("--outdir", "Where to put the images.", FILES, metavar="DIR"))
    batch: int | None = setting(None, BATCH)

    @property
    def folder(self) -> Path:
        return Path(self.outdir)


@dataclass(frozen=True)
class Apply(MoveRequest):
    """The settings of `apply`."""

    name: str = setting("", Flag(
        "--name", "Which of the file's directions, by name or number: smile or smile,age, a row for each; or how far "
        "along each, one after another: smile:1.5,age:-1.", SEARCH, metavar="NAMES", is_list=True))  # fmt: skip
    captions: bool = setting(False, Flag("--captions", f"Text at the edges of {GRID}.", FILES))
    cells: bool = setting(False, Flag("--cells", "Also a file for each image.", FILES))
    save_latents: bool = setting(False, Flag("--save-latents", f"Also {SAVED}, their latents.", FILES))
    film: str = setting("", Flag(
        "--film", "Also a film there and back, such as smile.mp4 or .webp, in --outdir.", FILES,
        metavar="NAME"))  # fmt: skip
    frames: int = setting(60, Flag("--frames", "Length of the film.", FILES))
    fps: float = setting(30.0, Flag("--fps", "Frames a second.", FILES))


@dataclass(frozen=True)
class Sheet(MoveRequest):
    """The settings of `sheet`."""

    count: int = setting(10, Flag("--count", "How many directions, from the first.", SEARCH))


@tool(Apply)
def apply(request: Apply, dry_run: bool) -> None:
    """Move images along directions: a row for each, a column for each strength; strength 0 is the image itself.

    The images are seeds, latent files or photographs, which are projected first.

    \b
      directions.py apply --network runs/00001-faces-faces64 --directions smile.direction.safetensors
                          --seeds 0-3,eva.jpg --strengths -3:3:7 --outdir out
      directions.py apply --network runs/00001-faces-faces64 --directions faces.direction.safetensors
                          --seeds 0-3 --name smile:1.5,age:-1 --film both.mp4 --outdir out
    """
    check(request, "--name pc0 --seeds 0-5")
    check_film_length(request)
    view, found = opened_for(request)
    if len(found) > 1 and not request.name:
        raise UserError(f"{request.move.directions} holds {', '.join(found.names)}; choose one with --name, or several")
    moves = moves_for(request, found)
    layers = layers_for(request, moves.found, view)
    # First without any projection, so that every mistake is reported before one.
    starts = gathered(request, view, standing_in)
    say_unused(view, request.rendering, request.start.seeds, starts)
    if request.film:
        columns, rows = grid_shape("auto", len(starts)) or (1, 1)
        config, stage = view.snapshot.config, view.snapshot.stage
        height, width = config.size(stage.resolution)
        check_film(request.folder / request.film, request.fps, config.channels, (height * rows, width * columns))
    files = applied_files(request, starts, moves, layers)
    if dry_run:
        say(plan(request, view, len(starts) * len(moves.rows) * len(moves.columns), files))
        return
    latents = gathered(request, view, projecting(request.start.num_steps, request.batch))
    write_applied(request, view, latents, moves, layers)
    say(f"{', '.join(moves.found.names)}: {files}")


@tool(Sheet)
def sheet(request: Sheet, dry_run: bool) -> None:
    """Show the effect of each direction, to find names for them: sheet-NAME.png for each image, a row per direction."""
    check(request, "--seeds 3")
    check_count(request.count)
    from stylegan.editing.directions import listed
    from stylegan.latents.latents import distinct

    view, found = opened_for(request)
    found = found[: request.count]
    layers = layers_for(request, found, view)
    starts = gathered(request, view, standing_in)
    say_unused(view, request.rendering, request.start.seeds, starts)
    names = [f"sheet-{name}.png" for name in distinct(list(map(as_stem, starts.names)))]
    files = str(request.folder / names[0]) + (f" ... {names[-1]}" if len(names) > 1 else "")
    files += replaces((request.folder / name for name in names), request.start.seeds)
    if dry_run:
        say(plan(request, view, len(starts) * len(found) * len(request.move.strengths), files))
        return
    latents = gathered(request, view, projecting(request.start.num_steps, request.batch))
    write_sheets(request, view, latents, found, layers, names)
    say("\n".join(listed(found)))
    say(f"{counted(len(latents), 'sheet')}: {files}")


# What both begin with


def check(request: MoveRequest, example: str) -> None:
    """Raises UserError for settings that are missing, or cannot work with any network. example: of --seeds and more"""
    require(f"--network runs/00000-faces --directions pca{DIRECTIONS} {example} --outdir out",
            network=request.rendering.network, directions=request.move.directions, seeds=request.start.seeds,
            outdir=request.outdir)  # fmt: skip
    check_tool(request.batch, request.start.num_steps, request.folder)


def check_film_length(request: Apply) -> None:
    """Raises UserError for settings of a film without a film, and for a film of a single frame."""
    plain = Apply()
    if not request.film and (request.frames, request.fps) != (plain.frames, plain.fps):
        raise UserError("--frames and --fps are for --film; add it, or leave them out")
    if request.film and request.frames < 2:
        raise UserError(f"--frames must be at least 2, got {request.frames}; 60 is usual")


def opened_for(request: MoveRequest) -> tuple[View, Directions]:
    """The network, and the directions of the file. Raises UserError if they do not fit together."""
    from stylegan.editing.directions import load_directions
    from stylegan.latents.render import opened

    view = opened(request.rendering, request.start.force, request.batch)
    return view, load_directions(Path(request.move.directions), view.snapshot, request.start.force)


def moves_for(request: Apply, found: Directions) -> Moves:
    """Which of the directions to move along, and how far. Raises UserError for names and strengths that cannot be."""
    from stylegan.editing.directions import moves_of, one_by_one

    strengths = request.move.strengths
    return moves_of(found, request.name, strengths) if request.name else one_by_one(found, strengths)


def layers_for(request: MoveRequest, found: Directions, view: View) -> Layers:
    """The layers of --layers. Raises UserError for layers that the network does not have."""
    from stylegan.editing.directions import layers_to_move

    if request.move.layers is None:
        return None
    return layers_to_move(found, request.move.layers, view.snapshot.config, view.snapshot.stage.resolution)


def gathered(request: MoveRequest, view: View, project: Project) -> Latents:
    """The latents to start from. Raises UserError as `render.gather` does."""
    from stylegan.latents.render import gather

    start = request.start
    return gather(
        start.seeds, view, start.classes, project=project, force=start.force, each_class=start.each_class
    )  # fmt: skip


def plan(request: MoveRequest, view: View, count: int, files: str) -> str:
    """The text of --dry-run for so many images."""
    start = request.start
    lines = about_network(request.rendering.network, view, count, start.seeds, start.num_steps)
    return "\n".join([*lines, f"Files:      {files}"])


# The files


def applied_files(request: Apply, latents: Latents, moves: Moves, layers: Layers) -> str:
    """The files of `write_applied`, and how many they replace. Raises UserError as `Moves.of` does."""
    folder = request.folder
    cells = moves.of(latents, layers)
    files, written = [f"{folder / GRID} ({len(moves.columns)}x{len(moves.rows) * len(latents)})"], [GRID]
    if request.cells:
        written += [f"{name}.png" for name in cells.names]
        files.append(f"{counted(len(cells), 'cell')} as {folder / written[1]}" + " ..." * (len(cells) > 1))
    more = [SAVED] * request.save_latents
    files += [str(folder / name) for name in more]
    if request.film:
        more.append(request.film)
        film = folder / request.film
        files.append(f"{film} ({frames_and_seconds(film, request.frames, request.fps)})")
    return ", ".join(files) + replaces((folder / name for name in [*written, *more]), request.start.seeds)


def write_applied(request: Apply, view: View, latents: Latents, moves: Moves, layers: Layers) -> None:
    """Write the table of the moves of the latents, and the other files. Raises UserError if they cannot be written."""
    from stylegan.editing.films import draw_each, draw_moved, through
    from stylegan.latents.latents import save_latents
    from torch_utils.images import encode
    from torch_utils.progress import Progress

    folder, batch = request.folder, view.batch(request.batch)
    cells = moves.of(latents, layers)
    film = through(moves.turns, request.frames) if request.film else []
    count = len(cells) + len(film) * len(latents)
    with writing_to(folder), destination(folder) as add, Progress("Drawing", count) as bar:
        images = draw_each(cells, view, batch, bar)
        table = laid_out(images, moves.row_names(latents.names), moves.columns, request.captions)
        write_atomically(folder / GRID, encode(table, "png"))
        if request.cells:
            for name, image in zip(cells.names, images, strict=True):
                add(f"{name}.png", encode(image, "png"))
        if request.save_latents:
            save_latents(folder / SAVED, cells, view.snapshot)
        if film:
            frames = draw_moved(latents, moves.found, film, layers, view, batch, bar)
            write_film(folder / request.film, frames, request.fps)


def write_sheets(
    request: Sheet, view: View, latents: Latents, found: Directions, layers: Layers, names: Sequence[str]
) -> None:  # fmt: skip
    """Write a table for each of the latents, with a row for each direction. Raises UserError if that fails."""
    from stylegan.editing.directions import one_by_one
    from stylegan.editing.films import draw_each
    from torch_utils.images import encode
    from torch_utils.progress import Progress

    folder, moves = request.folder, one_by_one(found, request.move.strengths)
    # The name of each direction, with its share if that is known.
    rows = [
        name if share != share else f"{name}  {share:.1%}"
        for name, share in zip(found.names, found.shares.tolist(), strict=True)
    ]
    count = len(latents) * len(found) * len(moves.columns)
    with writing_to(folder), destination(folder) as add, Progress("Drawing", count) as bar:
        for i, name in enumerate(names):
            images = draw_each(moves.of(latents[i : i + 1], layers), view, view.batch(request.batch), bar)
            add(name, encode(laid_out(images, rows, moves.columns, True), "png"))


def laid_out(images: np.ndarray, rows: Sequence[str], columns: Sequence[str], with_text: bool) -> np.ndarray:
    """A table of images uint8 [N,H,W,C], row by row, as one image [H',W',C']."""
    from torch_utils.images import captioned, grid

    if with_text:
        return captioned(list(images), rows, columns)
    return grid(images, len(columns))
