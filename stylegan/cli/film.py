"""`stylegan film` (interpolate.py): films of latent walks from image to image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
from stylegan.editing.film_files import check_film, frames_and_seconds, too_fast, write_film
from stylegan.editing.settings import FilmSettings, check_frames
from stylegan.latents.notation import WHAT, Point, RenderingOptions
from torch_utils.cli import require
from torch_utils.errors import UserError
from torch_utils.output import FILES, parse_grid, replaces
from torch_utils.settings import Flag, setting
from torch_utils.text import Class, parse_classes, say

if TYPE_CHECKING:
    import numpy as np

    from stylegan.latents.latents import Latents
    from stylegan.latents.render import Project
    from torch_utils.progress import Progress


@dataclass(frozen=True)
class Request:
    """The settings of `film`."""

    rendering: RenderingOptions = RenderingOptions()
    seeds: Sequence[Point] = setting((), Flag(
        "--seeds", "Keyframes: seeds as in 0-3,12, latent files, photographs, folders of either.", WHAT,
        parse=read_points))  # fmt: skip
    classes: Sequence[Class] = setting((), Flag(
        "--class", "For conditional networks: class of seeds and photographs, or one for each as in 3,1,4.", WHAT,
        parse=parse_classes, metavar="CLASSES"))  # fmt: skip
    num_steps: int = setting(500, STEPS)
    force: bool = setting(False, FORCE)
    film: FilmSettings = FilmSettings()
    grid: tuple[int, int] = setting((1, 1), Flag(
        "--grid", "Several films side by side, which get the keyframes in order.", WHAT,
        parse=parse_grid, metavar="COLSxROWS", typed="1x1"))  # fmt: skip
    out: str = setting("", Flag(
        "--out", "film.mp4, .gif, .webp or .apng; without an ending a folder of frames.", FILES,
        metavar="FILE"))  # fmt: skip
    fps: float = setting(30.0, Flag("--fps", "Frames a second.", FILES))
    batch: int | None = setting(None, BATCH)


@tool(Request)
def main(request: Request, dry_run: bool) -> None:
    """Make a film that goes from image to image: at each keyframe it shows the image of generate.py.

    \b
      interpolate.py --network runs/00001-faces-faces64 --seeds 0-5 --path cubic --loop --out faces.mp4
      interpolate.py --network runs/00000-mnist-digits32 --seeds 1,1,1 --class 3,8,0 --space z --out digits.gif
      interpolate.py --network ffhq1024.safetensors --seeds 0-3 --grid 2x2 --psi-sweep 0:1 --frames 120 --out psi.webp
    """
    check(request)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan.editing.films import draw_frames, samples_per_segment, times_of
    from stylegan.editing.walk import plan_walks, untruncated
    from stylegan.latents.render import gather, opened
    from torch_utils.progress import Progress

    view = untruncated(opened(request.rendering, request.force, request.batch), request.film)
    out, film, (columns, rows) = Path(request.out), request.film, request.grid
    config, stage = view.snapshot.config, view.snapshot.stage
    height, width = config.size(stage.resolution)
    check_film(out, request.fps, config.channels, (height * rows, width * columns))

    def keyframes(project: Project) -> Latents:
        return gather(request.seeds, view, request.classes, project=project, force=request.force, each=True)

    if slow := too_fast(out, request.fps):
        say(slow, err=True)
    keys = keyframes(standing_in)  # so that every mistake is reported before a projection
    walks = plan_walks(keys, columns * rows, view, film)
    if film.psi_sweep is None:
        say_unused(view, request.rendering, request.seeds, keys)
    segments = walks[0].segments
    count = segments * film.frames + (not film.closed)
    sweep = "" if film.psi_sweep is None else ", psi {:g} to {:g}".format(*film.psi_sweep)
    about = f"{frames_and_seconds(out, count, request.fps)}{sweep}: {out}{replaces([out], request.seeds)}"
    if dry_run:
        images = count * len(walks)
        lines = about_network(request.rendering.network, view, images, request.seeds, request.num_steps)
        say("\n".join([*lines, f"Film:       {about}"]))
        return
    walks = plan_walks(keyframes(projecting(request.num_steps, request.batch)), columns * rows, view, film)
    measured = (segments * samples_per_segment(film) + 1) * len(walks) if film.even else 0
    batch = view.batch(request.batch)
    with Progress("Drawing", count * len(walks) + measured) as bar:
        times = times_of(walks, view, film, batch, bar.advance)
        parts = draw_frames(walks, times, view, batch)
        write_film(out, frames(parts, request.grid, bar), request.fps)
    say(about)


def check(request: Request) -> None:
    """Raises UserError for settings that cannot work with any network."""
    require("--network runs/00000-faces --seeds 0-5 --out film.mp4", network=request.rendering.network,
            seeds=request.seeds, out=request.out)  # fmt: skip
    check_frames(request.film)
    if request.film.psi_sweep is not None and request.rendering.trunc is not None:
        raise UserError("--psi-sweep sets the truncation of each frame; leave out --trunc")
    if not isinstance(request.grid, tuple):
        raise UserError("--grid auto is not possible here; give COLUMNSxROWS, for example 2x2")
    check_tool(request.batch, request.num_steps, Path(request.out).parent, "--out")


def frames(parts: Iterator[list[np.ndarray]], shape: tuple[int, int], bar: Progress) -> Iterator[np.ndarray]:
    """Yield each frame, uint8 [H,W,C], from the images uint8 [n,h,w,C] of each cell for some frames at a time."""
    from torch_utils.images import grid

    for cells in parts:
        for images in zip(*cells, strict=True):
            yield grid(images, *shape)
            bar.advance(len(images))


if __name__ == "__main__":
    main()
