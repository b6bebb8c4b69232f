"""Mix the styles of images: a matrix of rows and columns. `stylegan mix --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stylegan.cli.options import (
    BATCH,
    FORCE,
    STEPS,
    about_network,
    check_tool,
    projecting,
    read_points,
    say_unused,
    standing_in,
    tool,
)
from stylegan.latents.notation import (
    LATENTS,
    WHAT,
    Point,
    RenderingOptions,
    Styles,
    layer_ranges,
    layers_of,
    parse_styles,
)
from torch_utils.cli import require
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.output import FILES, GRID, destination, replaces, writing_to
from torch_utils.settings import Flag, setting
from torch_utils.text import Class, counted, parse_classes, say

if TYPE_CHECKING:
    import numpy as np

    from stylegan.latents.latents import Latents
    from stylegan.latents.render import Project, View

SAVED = f"mixed{LATENTS}"
Classes = Sequence[Class]


@dataclass(frozen=True)
class Request:
    """The command line."""

    rendering: RenderingOptions = RenderingOptions()
    rows: Sequence[Point] = setting((), Flag(
        "--rows", "The images on the left: seeds as in 85,100-103, latent files, photographs, folders of"
        " either.", WHAT, parse=read_points))  # fmt: skip
    cols: Sequence[Point] = setting((), Flag(
        "--cols", "The images at the top, whose styles the cells get.", WHAT, parse=read_points))  # fmt: skip
    styles: Styles = setting(("coarse",), Flag(
        "--styles", "Which layers come from the top: 0-6, or coarse (4x4, 8x8), middle (16x16, 32x32), fine (64x64 and "
        "up).", WHAT, parse=parse_styles))  # fmt: skip
    classes: Classes = setting((), Flag(
        "--class", "For conditional networks: the class of all seeds and photographs.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    row_classes: Classes = setting((), Flag(
        "--row-class", "The class of the rows, or one for each as in 3,1,4.", WHAT,
        parse=parse_classes, metavar="CLASSES"))  # fmt: skip
    col_classes: Classes = setting((), Flag(
        "--col-class", "The same for the columns.", WHAT, parse=parse_classes, metavar="CLASSES"))  # fmt: skip
    num_steps: int = setting(500, STEPS)
    force: bool = setting(False, FORCE)
    outdir: str = setting("", Flag("--outdir", f"Where to put {GRID}, the matrix.", FILES, metavar="DIR"))
    cells: bool = setting(False, Flag("--cells", "Also write a file for each cell: row85-col55.png.", FILES))
    format: Literal["png", "jpg", "webp", "npy"] = setting("png", Flag("--format", "File format of the cells.", FILES))
    save_latents: bool = setting(False, Flag("--save-latents", f"Also write {SAVED}, the latents of the cells.", FILES))
    batch: int | None = setting(None, BATCH)


@tool(Request)
def main(request: Request, dry_run: bool) -> None:
    """Generate the style-mixing matrix: each cell is the image on its left with some styles of the image above it.

    \b
      style_mixing.py --network runs/00001-faces-faces64 --rows 85,100,75 --cols 55,821 --styles 0-3 --outdir out
      style_mixing.py --network ffhq1024.safetensors --rows eva.latent.safetensors --cols 0-7 --styles fine --outdir out
    """
    check(request)
    # Not at the top, because --help should not wait for torch.
    from stylegan.latents.render import gather, opened

    view = opened(request.rendering, request.force, request.batch)
    config = view.snapshot.config
    layers = layers_of(request.styles, config, view.snapshot.stage.resolution)
    if request.cells and request.format == "jpg" and config.channels == 4:
        raise UserError("--format jpg cannot store the alpha channel of this network's images; use png or webp")

    def sides(project: Project) -> Iterator[Latents]:
        """The rows, then the columns. Raises UserError for files and classes that cannot be used."""
        apart = request.row_classes or request.col_classes
        for points, classes, flag in (
            (request.rows, request.row_classes, "--row-class"), (request.cols, request.col_classes, "--col-class"),
        ):  # fmt: skip
            yield gather(
                points, view, classes or request.classes, project=project, force=request.force, each=True,
                flag=flag if apart else "--class",
            )  # fmt: skip

    rows, cols = sides(standing_in)  # so that every mistake is reported before any projection
    points = [*request.rows, *request.cols]
    say_unused(view, request.rendering, points, rows, cols)
    files = planned(request, rows, cols)
    if dry_run:
        lines = about_network(request.rendering.network, view, len(rows) * len(cols), points, request.num_steps)
        lines += [f"Styles:     layers {layer_ranges(layers)} of {config.num_ws}", f"Files:      {files}"]
        say("\n".join(lines))
        return
    rows, cols = sides(projecting(request.num_steps, request.batch))
    write_matrix(request, view, rows, cols, layers)
    say(f"{len(rows)}x{len(cols)} mixed in layers {layer_ranges(layers)}: {files}")


def check(request: Request) -> None:
    """Raises UserError for options that are missing or invalid for any network."""
    require("--network runs/00000-faces --rows 85,100 --cols 55,821 --outdir out",
            network=request.rendering.network, rows=request.rows, cols=request.cols, outdir=request.outdir)  # fmt: skip
    if request.format != "png" and not request.cells:
        raise UserError(f"--format {request.format} is the format of the cells; add --cells, or leave it out")
    check_tool(request.batch, request.num_steps, Path(request.outdir))


def planned(request: Request, rows: Latents, cols: Latents) -> str:
    """The files that will be written, and how many older ones they replace."""
    from stylegan.latents.latents import mixed_names, pairs_of

    folder, names = Path(request.outdir), [GRID]
    files = [f"{folder / GRID} ({len(cols) + 1}x{len(rows) + 1})"]
    if request.cells:
        names += [f"{name}.{request.format}" for name in mixed_names(rows, cols, pairs_of(rows, cols))]
        files.append(f"{counted(len(names) - 1, 'cell')} as {folder / f'row*-col*.{request.format}'}")
    if request.save_latents:
        names.append(SAVED)
        files.append(str(folder / SAVED))
    return ", ".join(files) + replaces((folder / name for name in names), [*request.rows, *request.cols])


def write_matrix(request: Request, view: View, rows: Latents, cols: Latents, layers: Sequence[int]) -> None:
    """Generate the matrix and write all files. Raises UserError if they cannot be written."""
    from stylegan.latents.latents import mixed, pairs_of, save_latents
    from torch_utils.images import encode, grid
    from torch_utils.progress import Progress

    folder, pairs, batch = Path(request.outdir), pairs_of(rows, cols), view.batch(request.batch)
    with (
        writing_to(folder),
        destination(folder) as add,
        Progress("Drawing", len(rows) + len(cols) + len(pairs)) as bar,
    ):
        left, top = (view.pixels(sources, batch) for sources in (rows, cols))
        bar.advance(len(rows) + len(cols))
        cells: list[np.ndarray] = []
        for start in range(0, len(pairs), batch):
            part = mixed(rows, cols, layers, pairs[start : start + batch])
            images = view.pixels(part, batch)
            for name, image in zip(part.names, images, strict=True):
                if request.cells:
                    add(f"{name}.{request.format}", encode(image, request.format))
            cells.extend(images)
            bar.advance(len(images))
        matrix = [top[0] * 0, *top]  # a black corner, the images of the columns, then each row after its own image
        for row, image in enumerate(left):
            matrix += [image, *cells[row * len(top) : (row + 1) * len(top)]]
        write_atomically(folder / GRID, encode(grid(matrix, len(cols) + 1), "png"))
        if request.save_latents:
            save_latents(folder / SAVED, mixed(rows, cols, layers, pairs), view.snapshot)


if __name__ == "__main__":
    main()
