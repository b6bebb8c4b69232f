"""Make pictures with a trained network. `python generate.py --help` explains the options."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from stylegan.kernels import ops_option, with_kernels
from torch_utils.cli import Command, Option, Parsed, parse_seeds, settings_options, under
from torch_utils.errors import UserError
from torch_utils.settings import Flag, replaced, setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from stylegan.snapshot import Snapshot

WHAT, FILES = "Pictures", "Files"
NoiseMode = Literal["const", "random", "none"]
Format = Literal["png", "jpg", "webp", "npy", "zip"]
Grid = tuple[int, int] | Literal["auto"]


def parse_classes(text: str) -> list[int]:
    """ "0-9,3" -> [0, 1, ... 9, 3]. Raises UserError if it is anything else."""
    try:
        return parse_seeds(text)
    except UserError:
        raise UserError(f"'{text}' is not a class or a list of classes; write it as in 3 or 0-9") from None


def parse_grid(text: str) -> Grid:
    """ "6x4" -> 6 columns and 4 rows. Raises UserError if it is anything else but "auto"."""
    if text == "auto":
        return "auto"
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.strip().lower())
    if match is None:
        raise UserError(f"'{text}' is no grid; write COLUMNSxROWS, as in 6x4")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    network: str = setting("", Flag(
        "--network", "Snapshot (.safetensors), published network (.pkl), folder of a run, URL, or name.", WHAT,
        metavar="MODEL"))  # fmt: skip
    seeds: Sequence[int] = setting((), Flag("--seeds", "Which pictures, as in 0-35,40.", WHAT, parse=parse_seeds))
    trunc: float | None = setting(
        None, Flag("--trunc", "Truncation psi: 1 for all variety, less for better pictures.  [0.7; ProGAN: 1]", WHAT)
    )
    trunc_cutoff: int | None = setting(None, Flag("--trunc-cutoff", "Truncate only the first N layers.", WHAT))
    classes: Sequence[int] = setting((), Flag(
        "--class", "Class, for conditional networks. Of a list as in 0-9, seed S gets number S, counted round.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    noise_mode: NoiseMode = setting(
        "const", Flag("--noise-mode", "Fine detail: the network's own, drawn from the seed, or none.", WHAT)
    )
    resolution: int | None = setting(None, Flag("--resolution", "Draw at a lower resolution of the network.", WHAT))
    alpha: float | None = setting(None, Flag("--alpha", "Weight of the newest resolution, 0 to 1.", WHAT))
    outdir: str = setting("", Flag("--outdir", "Where to put the pictures.", FILES, metavar="DIR"))
    format: Format = setting("png", Flag("--format", "Kind of the files; zip is one images.zip of PNGs.", FILES))
    batch: int = setting(8, Flag("--batch", "Pictures in work at once. Does not change them."))
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda or cuda:1."))


@dataclass(frozen=True)
class Job:
    """A request that has been checked against the network. c: class of each picture [N], or None."""

    snapshot: Snapshot
    request: Request
    psi: float
    c: Tensor | None
    names: list[str]
    grid: tuple[int, int] | None


OPTIONS = [
    *settings_options(Request),
    ops_option(),
    under(FILES, Option(["--grid"], is_flag=False, flag_value="auto", type=Parsed("grid", parse_grid),
                        metavar="[COLSxROWS]", help="Also write grid.png; about square if no size is given.")),
    under(FILES, Option(["-n", "--dry-run"], is_flag=True, help="Print what would be made and stop.")),
]  # fmt: skip


@click.command(cls=Command, params=OPTIONS, context_settings={"max_content_width": 110})
def main(typed: dict[str, Any], grid: Grid | None, dry_run: bool) -> None:
    """Make the picture of each seed: seed 17 is the same picture whatever the batch, on every machine.

    \b
      generate.py --network runs/00000-mnist-digits32 --seeds 0-35 --class 0-9 --outdir out --grid
      generate.py --network karras2019stylegan-ffhq-1024x1024.pkl --seeds 17 --trunc 0.5 --outdir out
      generate.py --network ffhq1024.safetensors --seeds 0-9999 --format zip --outdir out
    """
    request = replaced(Request(), typed)
    for flag, value in (("--network", request.network), ("--seeds", request.seeds), ("--outdir", request.outdir)):
        if not value:
            raise UserError(f"{flag} is missing; for example: --network runs/00000-faces --seeds 0-35 --outdir out")
    job = prepare(request, grid)
    click.echo(describe(job) if dry_run else draw(job))


def prepare(request: Request, grid: Grid | None) -> Job:
    """Open the network and check the request against it. Raises UserError for what cannot be; writes nothing."""
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    import stylegan
    from torch_utils.device import keep_freed_memory, pick_device

    check_numbers(request)
    keep_freed_memory()
    snapshot = stylegan.load(request.network, with_kernels(pick_device(request.device)))
    G, config = snapshot.G, snapshot.config
    if request.format == "jpg" and config.channels == 4:
        raise UserError("--format jpg holds no alpha channel, and this network makes one; use png or webp")
    if request.trunc_cutoff is not None and not 0 <= request.trunc_cutoff <= G.num_ws:
        raise UserError(f"--trunc-cutoff {request.trunc_cutoff}: this network has {G.num_ws} layers to truncate")
    psi = G.default_psi if request.trunc is None else request.trunc
    if config.family == "progan" and psi != 1:
        raise UserError(f"ProGAN has no w to truncate: leave out --trunc {psi:g}")
    G.synthesis.grown = growth(request, snapshot)
    c = classes(request, config.num_classes)
    suffix = "png" if request.format == "zip" else request.format
    names = [f"seed{seed:04d}.{suffix}" for seed in request.seeds]
    return Job(snapshot, request, psi, c, names, cells(grid, len(names)))


def check_numbers(request: Request) -> None:
    """Raises UserError for numbers that no network could serve."""
    seed, times = Counter(request.seeds).most_common(1)[0]
    if times > 1:
        raise UserError(f"seed {seed} is named {times} times; name each seed once")
    if request.batch < 1:
        raise UserError(f"--batch {request.batch} is no number of pictures; use 1 or more")
    if request.trunc is not None and not math.isfinite(request.trunc):
        raise UserError(f"--trunc {request.trunc} is no number; 0.7 is usual")


def growth(request: Request, snapshot: Snapshot) -> tuple[int, float]:
    """Resolution and alpha to draw at. Raises UserError for what the network has not grown to."""
    resolution = request.resolution or snapshot.resolution
    trained = [r for r in snapshot.config.resolutions if r <= snapshot.resolution]
    if resolution not in trained:
        raise UserError(f"--resolution {resolution}: this network draws at {', '.join(map(str, trained))}")
    if request.alpha is not None and not 0 <= request.alpha <= 1:
        raise UserError(f"--alpha {request.alpha:g} is not from 0 to 1")
    alpha = snapshot.alpha if resolution == snapshot.resolution else 1.0
    return resolution, alpha if request.alpha is None else request.alpha


def classes(request: Request, num_classes: int) -> Tensor | None:
    """The class of each picture, by its seed. Raises UserError unless the network has what is asked for."""
    import torch

    asked = request.classes  # by seed and not by place in the list, so that a seed stays the same picture
    if asked and not num_classes:
        raise UserError("--class: this network is unconditional, it has no classes; leave the option out")
    if num_classes and not (asked and max(asked) < num_classes):
        raise UserError(f"this network has {num_classes} classes; choose with --class, 0 to {num_classes - 1}")
    return torch.tensor([asked[seed % len(asked)] for seed in request.seeds]) if asked else None


def cells(grid: Grid | None, count: int) -> tuple[int, int] | None:
    """Columns and rows of the grid. Raises UserError if the pictures do not fit in."""
    if grid == "auto":
        columns = math.ceil(math.sqrt(count))
        return columns, math.ceil(count / columns)
    if grid and grid[0] * grid[1] < count:
        raise UserError(f"--grid {grid[0]}x{grid[1]} holds {grid[0] * grid[1]} pictures, not {count}; make it larger")
    return grid


def describe(job: Job) -> str:
    """What would be made, in a few lines."""
    request, snapshot = job.request, job.snapshot
    resolution, alpha = snapshot.G.synthesis.grown
    height, width = snapshot.config.size(resolution)
    mode = {1: "grey", 3: "RGB", 4: "RGBA"}[snapshot.config.channels]
    fading = f", of which the last step at {alpha:.2f}" if alpha < 1 else ""
    return "\n".join([
        f"Network:    {request.network}: {snapshot.config.family}, {snapshot.kimg:g} kimg of {snapshot.data}",
        f"Pictures:   {len(request.seeds)} of {width}x{height}, {mode}{fading}",
        f"Truncation: {job.psi:g}" + ("" if request.trunc_cutoff is None else f" in {request.trunc_cutoff} layers"),
        f"Classes:    {'none' if job.c is None else ', '.join(map(str, sorted(set(job.c.tolist()))))}",
        f"Files:      {written(job)}",
    ])  # fmt: skip


def written(job: Job) -> str:
    """The files of a job, in words."""
    outdir, names = Path(job.request.outdir), job.names
    what = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    files = f"{outdir / 'images.zip'} ({what})" if job.request.format == "zip" else str(outdir / what)
    return files + (f", {outdir / 'grid.png'} ({job.grid[0]}x{job.grid[1]})" if job.grid else "")


def draw(job: Job) -> str:
    """Make the pictures and write them; says where they are. Raises UserError where they cannot be written."""
    from torch_utils.images import destination, encode, grid
    from torch_utils.progress import Progress

    request = job.request
    kind: Any = "png" if request.format == "zip" else request.format
    kept: list[np.ndarray] = []
    try:
        with (
            destination(Path(request.outdir), "images.zip" if request.format == "zip" else "") as add,
            Progress("Drawing", len(request.seeds)) as bar,
            ThreadPoolExecutor() as encoders,
        ):
            for names, pixels in batches(job):
                for name, content in zip(names, encoders.map(encode, pixels, repeat(kind)), strict=False):
                    add(name, content)
                bar.advance(len(names))
                if job.grid:
                    kept.extend(pixels)
            if job.grid:
                Path(request.outdir, "grid.png").write_bytes(encode(grid(kept, *job.grid), "png"))
    except OSError as error:
        raise UserError(f"cannot write to {request.outdir}: {error.strerror or error}") from error
    return f"{len(request.seeds)} pictures: {written(job)}"


def batches(job: Job) -> Iterator[tuple[list[str], np.ndarray]]:
    """File names and pictures, uint8 [N,H,W,C], --batch at a time."""
    from torch_utils.images import to_uint8

    G, request = job.snapshot.G, job.request
    for start in range(0, len(request.seeds), request.batch):
        part = slice(start, start + request.batch)
        c = None if job.c is None else job.c[part]
        images = G.render(request.seeds[part], job.psi, request.trunc_cutoff, c, request.noise_mode, request.batch)
        yield job.names[part], to_uint8(images)


if __name__ == "__main__":
    main()
