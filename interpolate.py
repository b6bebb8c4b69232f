"""Films and pictures from one picture to the next. `python interpolate.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.films.course import Course, check_course
from stylegan.kernels import ops_option
from stylegan.start import Point, parse_points
from stylegan.view import WHAT, View
from torch_utils.cli import Command, Option, require, require_batch, settings_options, under
from torch_utils.errors import UserError
from torch_utils.output import FILES, parse_grid
from torch_utils.ranges import parse_classes
from torch_utils.settings import Flag, replaced, setting

if TYPE_CHECKING:
    import numpy as np

    from stylegan.latent_file import Latents
    from torch_utils.progress import Progress


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    view: View = View()
    seeds: Sequence[Point] = setting((), Flag(
        "--seeds", "Keyframes: seeds as in 0-3,12, latent files, photographs.", WHAT, parse=parse_points))  # fmt: skip
    classes: Sequence[int] = setting((), Flag(
        "--class", "For conditional networks: class of the seeds, or one for each as in 3,1,4.", WHAT,
        parse=parse_classes, metavar="CLASSES"))  # fmt: skip
    force: bool = setting(False, Flag("--force", "Take latents that belong to another network.", WHAT))
    course: Course = Course()
    grid: tuple[int, int] = setting((1, 1), Flag(
        "--grid", "Several films side by side: the keyframes are dealt out in order.", WHAT,
        parse=parse_grid, metavar="COLSxROWS"))  # fmt: skip
    out: str = setting("", Flag(
        "--out", "film.mp4, .gif, .webp or .apng; without an ending a folder of frames.", FILES,
        metavar="FILE"))  # fmt: skip
    fps: float = setting(30.0, Flag("--fps", "Frames a second.", FILES))
    batch: int = setting(8, Flag("--batch", "Pictures in work at once. Does not change them."))


OPTIONS = [
    *settings_options(Request),
    ops_option(),
    under(FILES, Option(["-n", "--dry-run"], is_flag=True, help="Print what would be made and stop.")),
]


@click.command(cls=Command, params=OPTIONS, context_settings={"max_content_width": 110})
def main(typed: dict[str, Any], dry_run: bool) -> None:
    """Make a film that goes from picture to picture: at each keyframe it shows what generate.py makes of it.

    \b
      interpolate.py --network runs/00001-faces-faces64 --seeds 0-5 --path cubic --loop --out faces.mp4
      interpolate.py --network runs/00000-mnist-digits32 --seeds 1,1,1 --class 3,8,0 --space z --out digits.gif
      interpolate.py --network ffhq1024.safetensors --seeds 0-3 --grid 2x2 --psi-sweep 0:1 --frames 120 --out psi.webp
    """
    request = replaced(Request(), typed)
    check(request)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan import painter as painters
    from stylegan.films.journey import drawn, plan, samples_of, times_of, untruncated
    from stylegan.points import gather, stand_ins
    from stylegan.projection.project_photos import projecting
    from torch_utils.film import check_film, write_film
    from torch_utils.progress import Progress

    painter = untruncated(painters.open_painter(request.view), request.course)
    out, course, (columns, rows) = Path(request.out), request.course, request.grid
    check_film(out, request.fps, painter.snapshot.config.channels)
    project = stand_ins if dry_run else projecting(c=request.classes)
    keys = gather(request.seeds, painter, request.classes, project=project, force=request.force, each=True)
    journeys = [plan(part, painter, course) for part in dealt(keys, columns * rows, course)]
    segments = journeys[0].segments
    count = segments * course.frames + (not course.closed)
    sweep = "" if course.psi_sweep is None else ", psi {:g} to {:g}".format(*course.psi_sweep)
    about = f"{count} frames, {count / request.fps:.1f} s{sweep}: {out}"
    if dry_run:
        click.echo("\n".join([*painters.in_words(painter, count * len(journeys)), f"Film:       {about}"]))
        return
    measured = (segments * samples_of(course) + 1) * len(journeys) if course.even else 0
    with Progress("Drawing", count * len(journeys) + measured) as bar:
        times = times_of(journeys, painter, course, request.batch, bar.advance)
        parts = drawn(journeys, times, painter, request.batch)
        write_film(out, frames(parts, request.grid, bar), request.fps)
    click.echo(about)


def check(request: Request) -> None:
    """Raises UserError for what no network could serve."""
    require("--network runs/00000-faces --seeds 0-5 --out film.mp4", network=request.view.network, seeds=request.seeds,
            out=request.out)  # fmt: skip
    require_batch(request.batch)
    if not isinstance(request.grid, tuple):
        raise UserError("--grid needs a size here; write COLUMNSxROWS, as in 2x2")


def dealt(keys: Latents, cells: int, course: Course) -> list[Latents]:
    """As many keyframes for each cell of the grid, in order. Raises UserError if that does not come out even."""
    each, left = divmod(len(keys), cells)
    if left or not each:
        raise UserError(f"{len(keys)} keyframes cannot be dealt out to {cells} films in equal numbers; use a multiple "
                        f"of {cells}")  # fmt: skip
    check_course(course, each)
    return [keys[start : start + each] for start in range(0, len(keys), each)]


def frames(parts: Iterator[list[Any]], shape: tuple[int, int], bar: Progress) -> Iterator[np.ndarray]:
    """Each frame, uint8 [H,W,C], from pictures of each cell, some frames at a time."""
    from torch_utils.images import grid, to_uint8

    for cells in parts:
        pixels = [to_uint8(pictures) for pictures in cells]
        for pictures in zip(*pixels, strict=True):
            yield grid(pictures, *shape)
            bar.advance(len(pictures))


if __name__ == "__main__":
    main()
