"""Mix the styles of pictures. `python style_mixing.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from stylegan.cli.options import (
    FORCE,
    STEPS,
    WHAT,
    RenderingOptions,
    about_network,
    about_photographs,
    check_steps,
    opened,
    tool_options,
)
from stylegan.latents.notation import LATENTS, Point, Styles, layer_ranges, layers_of, parse_points, parse_styles
from torch_utils.cli import Command, require, require_batch
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.output import FILES, GRID, destination, replaces, require_folder, writing_to
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import counted, parse_classes

if TYPE_CHECKING:
    import numpy as np

    from stylegan.latents.latents import Latents
    from stylegan.latents.render import View
    from stylegan.latents.sources import Project

SAVED = f"mixed{LATENTS}"
Classes = Sequence[int]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    rendering: RenderingOptions = RenderingOptions()
    rows: Sequence[Point] = setting((), Flag(
        "--rows", "The pictures at the left: seeds as in 85,100-103, latent files, photographs.", WHAT,
        parse=parse_points))  # fmt: skip
    cols: Sequence[Point] = setting((), Flag(
        "--cols", "The pictures at the top, whose styles the cells get.", WHAT, parse=parse_points))  # fmt: skip
    styles: Styles = setting(("coarse",), Flag(
        "--styles", "Which layers come from the top: 0-6, or coarse (4x4, 8x8), middle (16x16, 32x32), fine (64x64 and "
        "up).", WHAT, parse=parse_styles))  # fmt: skip
    classes: Classes = setting((), Flag(
        "--class", "For conditional networks: the class of all seeds and photographs.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    row_classes: Classes = setting((), Flag(
        "--row-class", "That of the rows, or one for each as in 3,1,4.", WHAT,
        parse=parse_classes, metavar="CLASSES"))  # fmt: skip
    col_classes: Classes = setting((), Flag(
        "--col-class", "The same for the columns.", WHAT, parse=parse_classes, metavar="CLASSES"))  # fmt: skip
    num_steps: int = setting(500, STEPS)
    force: bool = setting(False, FORCE)
    outdir: str = setting("", Flag("--outdir", f"Where to put {GRID}, the matrix.", FILES, metavar="DIR"))
    cells: bool = setting(False, Flag("--cells", "Also a file for each cell: row85-col55.png.", FILES))
    format: Literal["png", "jpg", "webp", "npy"] = setting("png", Flag("--format", "Kind of the cells' files.", FILES))
    save_latents: bool = setting(False, Flag("--save-latents", f"Also {SAVED}, the latents of the cells.", FILES))
    batch: int = setting(8, Flag("--batch", "Pictures in work at once. Does not change them."))


@click.command(cls=Command, params=tool_options(Request), context_settings={"max_content_width": 110})
def main(typed: dict[str, Any], dry_run: bool) -> None:
    """Make the style-mixing matrix: each cell is the picture at its left with some styles of the one at its top.

    \b
      style_mixing.py --network runs/00001-faces-faces64 --rows 85,100,75 --cols 55,821 --styles 0-3 --outdir out
      style_mixing.py --network ffhq1024.safetensors --rows eva.latent.safetensors --cols 0-7 --styles fine --outdir out
    """
    request = replaced(Request(), typed)
    check(request)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan.projection import project_photos

    view = opened(request.rendering, request.force)
    config, resolution = view.config, view.stage.resolution
    layers = layers_of(request.styles, config, resolution)
    if request.cells and request.format == "jpg" and config.channels == 4:
        raise UserError("--format jpg holds no alpha channel, and this network makes one; use png or webp")
    # Both sides at first without any projection, so that what cannot be is said before one.
    rows, cols = sides(request, view, project_photos.standing_in)
    files = in_words(request, rows, cols)
    if dry_run:
        photos = about_photographs([*request.rows, *request.cols], view, request.num_steps)
        about = [f"Styles:     layers {layer_ranges(layers)} of {config.num_ws}", f"Files:      {files}"]
        click.echo("\n".join(about_network(request.rendering.network, view, len(rows) * len(cols)) + photos + about))
        return
    rows, cols = sides(request, view, project_photos.projecting(request.num_steps, request.batch))
    write_matrix(request, view, rows, cols, layers)
    click.echo(f"{len(rows)}x{len(cols)} mixed in layers {layer_ranges(layers)}: {files}")


def check(request: Request) -> None:
    """Raises UserError for what no network could serve."""
    require("--network runs/00000-faces --rows 85,100 --cols 55,821 --outdir out",
            network=request.rendering.network, rows=request.rows, cols=request.cols, outdir=request.outdir)  # fmt: skip
    require_batch(request.batch)
    if request.format != "png" and not request.cells:
        raise UserError(f"--format {request.format} is for the files of the cells; add --cells, or leave it out")
    check_steps(request.num_steps)
    require_folder(Path(request.outdir))


def sides(request: Request, view: View, project: Project) -> tuple[Latents, Latents]:
    """Rows and columns. Raises UserError for what cannot be opened, and for classes that do not fit."""
    from stylegan.latents.sources import gather

    apart = request.row_classes or request.col_classes
    rows, cols = (
        gather(points, view, own or request.classes, project=project, force=request.force, each=True,
               flag=flag if apart else "--class")
        for points, own, flag in (
            (request.rows, request.row_classes, "--row-class"), (request.cols, request.col_classes, "--col-class")
        )
    )  # fmt: skip
    return rows, cols


def in_words(request: Request, rows: Latents, cols: Latents) -> str:
    """The files that are made, and how many they replace."""
    from stylegan.latents.mixing import names_of, pairs_of

    folder, made = Path(request.outdir), [GRID]
    files = [f"{folder / GRID} ({len(cols) + 1}x{len(rows) + 1})"]
    if request.cells:
        made += [f"{name}.{request.format}" for name in names_of(rows, cols, pairs_of(rows, cols))]
        files.append(f"{counted(len(made) - 1, 'cell')} as {folder / f'row*-col*.{request.format}'}")
    if request.save_latents:
        made.append(SAVED)
        files.append(str(folder / SAVED))
    return ", ".join(files) + replaces((folder / name for name in made), [*request.rows, *request.cols])


def write_matrix(request: Request, view: View, rows: Latents, cols: Latents, layers: Sequence[int]) -> None:
    """Draw it and write the files. Raises UserError where they cannot be written."""

    from stylegan.latents.latents import save_latents
    from stylegan.latents.mixing import mixed, pairs_of
    from torch_utils.images import encode, grid, to_uint8
    from torch_utils.output import Progress

    folder, pairs = Path(request.outdir), pairs_of(rows, cols)
    with (
        writing_to(folder),
        destination(folder) as add,
        Progress("Drawing", len(rows) + len(cols) + len(pairs)) as bar,
    ):
        left, top = (to_uint8(view.draw(sources, request.batch)) for sources in (rows, cols))
        bar.advance(len(rows) + len(cols))
        cells: list[np.ndarray] = []
        for start in range(0, len(pairs), request.batch):
            part = mixed(rows, cols, layers, pairs[start : start + request.batch])
            pixels = to_uint8(view.draw(part, request.batch))
            for name, picture in zip(part.names, pixels, strict=True):
                if request.cells:
                    add(f"{name}.{request.format}", encode(picture, request.format))
            cells.extend(pixels)
            bar.advance(len(pixels))
        write_atomically(folder / GRID, encode(grid(list(in_matrix(left, top, cells)), len(cols) + 1), "png"))
        if request.save_latents:
            save_latents(folder / SAVED, mixed(rows, cols, layers, pairs), view.snapshot)


def in_matrix(left: np.ndarray, top: np.ndarray, cells: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Row by row, the sources on the edges, and nothing in the corner. Pictures are uint8 [H,W,C]."""
    yield top[0] * 0
    yield from top
    for row, source in enumerate(left):
        yield source
        yield from cells[row * len(top) : (row + 1) * len(top)]


if __name__ == "__main__":
    main()
