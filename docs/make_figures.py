"""Remakes the images of the pages, those of the README with the commands that it shows next to them.

python docs/make_figures.py --network faces64 --data faces.zip --table faces.csv --photo eva.jpg \\
  --run runs/00000-faces-faces64 --dcgan-run runs/00000-mnist-dcgan-mnist \\
  --dcgan-faces-run runs/00001-faces-dcgan-faces64
"""

from __future__ import annotations

import os
import runpy
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stylegan.editing.film_files import webp_frame, write_webp
from torch_utils.cli import Command, settings_options
from torch_utils.errors import UserError
from torch_utils.files import atomic_write
from torch_utils.images import captioned
from torch_utils.output import require_folder
from torch_utils.settings import Flag, replaced, setting

ROOT = Path(__file__).resolve().parents[1]
NETWORK, DATA, TABLE, PHOTO, RUN = "faces64", "faces.zip", "faces.csv", "eva.jpg", "runs/00000-faces-faces64"
DCGAN_RUN, DCGAN_FACES_RUN = "runs/00000-mnist-dcgan-mnist", "runs/00001-faces-dcgan-faces64"
"""The names that the README uses for what this script is given."""
MAX_BYTES = 3_000_000
QUALITY, FRAME_MS, LAST_FRAME_MS, MAX_FRAMES = 82, 150, 3000, 48

Images = list[Image.Image]


@dataclass(frozen=True)
class Figure:
    """One file of docs/figures.

    commands: as the README shows them, run in the work folder
    more: commands that the README leaves out, run after these
    draw: makes one image, or the frames of a film, from the work folder after the commands have run
    needs: which of the given files it cannot be made without
    zoom: factor by which the image is enlarged
    """

    name: str
    commands: tuple[str, ...]
    draw: Callable[[Path], Images]
    needs: tuple[str, ...] = ()
    zoom: int = 1
    more: tuple[str, ...] = ()


def single(file: str) -> Callable[[Path], Images]:
    """Returns a function that opens an image of the work folder."""
    return lambda work: [Image.open(work / file)]


def film(file: str) -> Callable[[Path], Images]:
    """Returns a function that reads up to MAX_FRAMES evenly spaced frames of a film, including the last one."""

    def frames(work: Path) -> Images:
        with Image.open(work / file) as source:
            count: int = getattr(source, "n_frames", 1)
            chosen = np.unique(np.linspace(0, count - 1, MAX_FRAMES).astype(int))
            return [_frame(source, int(number)) for number in chosen]

    return frames


def _frame(source: Image.Image, number: int) -> Image.Image:
    source.seek(number)
    return source.convert("RGB")


def below(*files: str) -> Callable[[Path], Images]:
    """Returns a function that puts images of the work folder one below the other."""

    return lambda work: [on_paper([work / file for file in files], right=0, down=1, gap=0)]


def first_and_last(run: str) -> Callable[[Path], Images]:
    """Returns a function that puts the first grid of generated images of a run beside the last one."""

    def beside(work: Path) -> Images:
        last = max((work / run).glob("fakes[0-9]*.png"))
        return [on_paper([work / run / "fakes_init.png", last], right=1, down=0, gap=16)]

    return beside


def on_paper(files: Sequence[Path], right: int, down: int, gap: int) -> Image.Image:
    """Images on white, each `right` of the one before it or `down` from it (0 or 1), with a gap in between."""
    places, images, (x, y) = [], [Image.open(file).convert("RGB") for file in files], (0, 0)
    for image in images:
        places.append((x, y))
        x, y = x + right * (image.width + gap), y + down * (image.height + gap)
    size = [max(at[axis] + image.size[axis] for at, image in zip(places, images, strict=True)) for axis in (0, 1)]
    paper = Image.new("RGB", (size[0], size[1]), "white")
    for at, image in zip(places, images, strict=True):
        paper.paste(image, at)
    return paper


def projections(work: Path) -> Images:
    """Returns the photograph and its projections in one image, with captions."""
    target, in_w, _ = thirds(work / "out/w/eva.png")
    _, tuned, _ = thirds(work / "out/pti/eva.png")
    in_plus = next((work / "out/plus").glob("*.png"))
    cells = [target, in_w, np.asarray(Image.open(in_plus).convert("RGB")), tuned]
    return [Image.fromarray(captioned(cells, [""], ["photograph", "W", "W+", "tuned (PTI)"]))]


def thirds(file: Path) -> list[np.ndarray]:
    """Splits an image of `project.py` into target, result and difference."""
    return np.split(np.asarray(Image.open(file).convert("RGB")), 3, axis=1)


FIGURES = (
    Figure("faces", (
        "python generate.py --network faces64 --seeds 0-31 --outdir out/faces --grid 8x4",
    ), single("out/faces/grid.png"), zoom=2),
    Figure("growth", (), film(f"{RUN}/growth.webp"), (RUN,)),  # made by train.py, which takes hours: used as it is
    Figure("mixing", (
        "python style_mixing.py --network faces64 --rows 25,43,57,10 --cols 49,5,12,7,53,58 --styles middle"
        " --outdir out/mixed",
    ), single("out/mixed/grid.png"), zoom=2),
    Figure("interpolation", (
        "python interpolate.py --network faces64 --seeds 0-17 --grid 6x1 --path cubic --loop --frames 16"
        " --out out/walk.webp",
    ), film("out/walk.webp"), zoom=2),
    Figure("projection", (
        "python project.py --network faces64 --target eva.jpg --outdir out/w",
        "python project.py --network faces64 --target eva.jpg --space w+ --pti --outdir out/pti",
    ), projections, (PHOTO,), more=(
        "python generate.py --network faces64 --seeds out/pti/eva.latent.safetensors --outdir out/plus",
    )),
    Figure("attributes", (
        "python directions.py learn --data faces.zip --table faces.csv --attributes 'smile>0.5,glasses!=NoGlasses'"
        " --dest faces.attributes.safetensors",
        "python directions.py find --network faces64 --method labels --labels faces.attributes.safetensors"
        " --dest faces.direction.safetensors",
        "python directions.py apply --network faces64 --directions faces.direction.safetensors --name smile"
        " --seeds 3,25 --strengths -3:3:7 --captions --outdir out/smile",
        "python directions.py apply --network faces64 --directions faces.direction.safetensors"
        " --name glasses --seeds 30,37 --strengths -3:3:7 --captions --outdir out/glasses",
    ), below("out/smile/grid.png", "out/glasses/grid.png"), (DATA, TABLE)),
    Figure("digits", (
        "python generate.py --network digits32 --seeds 0-59 --class 0-9 --outdir out/digits --grid 20x3",
    ), single("out/digits/grid.png")),
    Figure("fashion", (
        "python generate.py --network fashion32 --seeds 0-59 --class 0-9 --outdir out/fashion --grid 20x3",
    ), single("out/fashion/grid.png")),
    Figure("dcgan", (), first_and_last(DCGAN_RUN), (DCGAN_RUN,)),
    Figure("dcgan-faces", (), first_and_last(DCGAN_FACES_RUN), (DCGAN_FACES_RUN,)),
    Figure("dcgan-growth", (), film(f"{DCGAN_RUN}/growth.webp"), (DCGAN_RUN,)),
)  # fmt: skip


def flag(spelling: str, text: str) -> Flag:
    return Flag(spelling, text, "Options", parse=Path, metavar="PATH")


@dataclass(frozen=True)
class Request:
    """What the figures are made of, and where."""

    network: str = setting(NETWORK, Flag(
        "--network", "Network of faces: a snapshot, a run directory, or a name.", "Options"))  # fmt: skip
    data: Path | None = setting(None, flag("--data", "Its training images, as packed by dataset_tool.py."))
    table: Path | None = setting(None, flag("--table", "CSV that describes them: file, smile, glasses."))
    photo: Path | None = setting(None, flag("--photo", "A photograph to project."))
    run: Path | None = setting(None, flag("--run", "The run whose growth is shown."))
    dcgan_run: Path | None = setting(None, flag("--dcgan-run", "A run of --cfg dcgan-mnist."))
    dcgan_faces_run: Path | None = setting(None, flag("--dcgan-faces-run", "A run of --cfg dcgan-faces64."))
    outdir: Path = setting(Path("docs/figures"), flag("--outdir", "Folder for the images."))
    work: Path = setting(Path("out/figures"), flag("--work", "Where the commands run."))
    only: str = setting("", Flag("--only", "Names of figures, such as faces,mixing.  [all]", "Options"))

    @property
    def given(self) -> dict[str, Path | None]:
        """The files by the names that the README uses for them."""
        return {DATA: self.data, TABLE: self.table, PHOTO: self.photo, RUN: self.run, DCGAN_RUN: self.dcgan_run,
                DCGAN_FACES_RUN: self.dcgan_faces_run}  # fmt: skip


@click.command(cls=Command, params=settings_options(Request), context_settings={"max_content_width": 110})
def main(typed: dict[str, Any]) -> None:
    """Remake the images of the README and the pages. An image stays as it is if something that it needs is not given.

    On one CPU core this takes a quarter of an hour, most of it for training the classifier of smiles; from the second
    time on, some minutes.
    """
    request = replaced(Request(), typed)
    figures = chosen(request.only)
    work, outdir = request.work.resolve(), request.outdir.resolve()
    model = str(Path(request.network).resolve()) if Path(request.network).exists() else request.network
    for flag, folder in {"--work": work, "--outdir": outdir}.items():
        require_folder(folder, flag)
        folder.mkdir(parents=True, exist_ok=True)
    for name, where in request.given.items():
        put(work / name, where)
    os.chdir(work)
    for figure in figures:
        missing = [name for name in figure.needs if not request.given[name]]
        if missing:
            click.echo(f"{figure.name}: left as it is, because it needs {' and '.join(missing)}")
            continue
        for command in (*figure.commands, *figure.more):
            click.echo(f"$ {command}")
            if learned(command, work):
                click.echo("skipped: done before, with the same data")
                continue
            perform(command, model)
        path = outdir / f"{figure.name}.webp"
        write(path, [enlarged(frame, figure.zoom) for frame in figure.draw(work)])
        click.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    require_small(outdir)


def chosen(only: str) -> Sequence[Figure]:
    """Returns the figures that --only names. Raises UserError for an unknown name."""
    known = {figure.name: figure for figure in FIGURES}
    names = [name.strip() for name in only.split(",")] if only else list(known)
    for name in names:
        if name not in known:
            raise UserError(f"Unknown figure {name!r} in --only: choose from {', '.join(known)}")
    return [known[name] for name in names]


def put(link: Path, where: Path | None) -> None:
    """Link a given file to the name that the README uses for it. Raises UserError if the file does not exist."""
    if where is None:
        return
    if not where.exists():
        raise UserError(f"{where} does not exist")
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise UserError(f"{link} already exists: delete it, or choose another folder with --work")
    link.symlink_to(where.resolve())


def learned(command: str, work: Path) -> bool:
    """Says whether a command trains a classifier that exists already and is newer than its data.

    Training it takes longest and does not depend on the network.
    """
    words = shlex.split(command)
    if words[1:3] != ["directions.py", "learn"]:
        return False
    classifier = work / words[words.index("--dest") + 1]
    return classifier.exists() and classifier.stat().st_mtime > max(
        (work / name).stat().st_mtime for name in (DATA, TABLE)
    )


def perform(command: str, model: str) -> None:
    """Run a command of the README in this process, which saves starting another one. Exits if the command fails."""
    words = shlex.split(command)[1:]
    for place, word in enumerate(words[:-1]):
        if word == "--network" and words[place + 1] == NETWORK:
            words[place + 1] = model
    sys.argv = [str(ROOT / words[0]), *words[1:]]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


def enlarged(image: Image.Image, zoom: int) -> Image.Image:
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.LANCZOS) if zoom > 1 else image


def write(path: Path, frames: Images) -> None:
    """Write a small WebP file: an image, or a film that loops. A film of growth pauses on its last frame.

    The film has every frame: Pillow's own writer leaves out those that look like the one before.
    """
    with atomic_write(path) as scratch:
        if len(frames) == 1:
            frames[0].save(scratch, "WEBP", quality=QUALITY, method=6)
        else:
            options = {"quality": QUALITY - 20, "method": 6}
            durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS if path.stem.endswith("growth") else FRAME_MS]
            encoded = (webp_frame(np.asarray(frame.convert("RGB")), options) for frame in frames)
            write_webp(scratch, zip(encoded, durations, strict=True))


def require_small(outdir: Path) -> None:
    """Raises UserError if the images are too large for a repository."""
    total = sum(file.stat().st_size for file in outdir.glob("*.webp"))
    click.echo(f"together: {total / 1000:.0f} kB")
    if total > MAX_BYTES:
        raise UserError(
            f"The images take {total / 1e6:.1f} MB, but at most {MAX_BYTES / 1e6:g} MB are allowed: show less in one"
        )


if __name__ == "__main__":
    main()
