"""Films and pictures from one picture to the next. `python interpolate.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli.options import tool_options
from stylegan.editing.film_options import Course, require_frames
from stylegan.latents.start import FORCE, STEPS, Point, check_steps, parse_points
from stylegan.latents.view import WHAT, View
from torch_utils.cli import Command, require, require_batch
from torch_utils.errors import UserError
from torch_utils.output import FILES, parse_grid, replaces, require_folder
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import counted, parse_classes

if TYPE_CHECKING:
    import numpy as np

    from stylegan.editing.films import Journey
    from stylegan.latents.sources import Project
    from torch_utils.progress import Progress


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    view: View = View()
    seeds: Sequence[Point] = setting((), Flag(
        "--seeds", "Keyframes: seeds as in 0-3,12, latent files, photographs.", WHAT, parse=parse_points))  # fmt: skip
    classes: Sequence[int] = setting((), Flag(
        "--class", "For conditional networks: class of seeds and photographs, or one for each as in 3,1,4.", WHAT,
        parse=parse_classes, metavar="CLASSES"))  # fmt: skip
    num_steps: int = setting(500, STEPS)
    force: bool = setting(False, FORCE)
    course: Course = Course()
    grid: tuple[int, int] = setting((1, 1), Flag(
        "--grid", "Several films side by side: the keyframes are dealt out in order.", WHAT,
        parse=parse_grid, metavar="COLSxROWS", typed="1x1"))  # fmt: skip
    out: str = setting("", Flag(
        "--out", "film.mp4, .gif, .webp or .apng; without an ending a folder of frames.", FILES,
        metavar="FILE"))  # fmt: skip
    fps: float = setting(30.0, Flag("--fps", "Frames a second.", FILES))
    batch: int = setting(8, Flag("--batch", "Pictures in work at once. Does not change them."))


@click.command(cls=Command, params=tool_options(Request), context_settings={"max_content_width": 110})
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
    from stylegan.editing.films import drawn, planned, samples_of, times_of, untruncated
    from stylegan.latents import render as painters
    from stylegan.latents.sources import gather
    from stylegan.projection import project_photos
    from torch_utils.progress import Progress
    from torch_utils.video import check_film, write_film

    painter = untruncated(painters.open_painter(request.view, request.force), request.course)
    out, course, (columns, rows) = Path(request.out), request.course, request.grid
    check_film(out, request.fps, painter.snapshot.config.channels)

    def journeys_by(project: Project) -> list[Journey]:
        keys = gather(request.seeds, painter, request.classes, project=project, force=request.force, each=True)
        return planned(keys, columns * rows, painter, course)

    journeys = journeys_by(project_photos.standing_in)  # so that what cannot be is said before any projection
    segments = journeys[0].segments
    count = segments * course.frames + (not course.closed)
    sweep = "" if course.psi_sweep is None else ", psi {:g} to {:g}".format(*course.psi_sweep)
    about = f"{counted(count, 'frame')}, {count / request.fps:.1f} s{sweep}: {out}{replaces([out], request.seeds)}"
    if dry_run:
        photos = project_photos.in_words(request.seeds, painter, request.num_steps)
        click.echo("\n".join([*painters.in_words(painter, count * len(journeys)), *photos, f"Film:       {about}"]))
        return
    journeys = journeys_by(project_photos.projecting(request.num_steps, request.batch))
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
    require_frames(request.course)
    check_steps(request.num_steps)
    if not isinstance(request.grid, tuple):
        raise UserError("--grid needs a size here; write COLUMNSxROWS, as in 2x2")
    require_folder(Path(request.out).parent, "--out")


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
