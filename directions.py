"""Find directions in the space of latents, and go along them. `python directions.py --help` lists the commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.directions.requests import SAVED, Apply, Channels, Conditional, Find, Sheet
from stylegan.directions.settings import Labels, check_labels, check_search
from stylegan.kernels import ops_option
from stylegan.start import DIRECTIONS
from stylegan.view import View
from torch_utils.cli import Command, Group, require, require_batch, settings_options
from torch_utils.errors import UserError
from torch_utils.output import FILES, GRID
from torch_utils.settings import Flag, replaced, setting
from training.lesson import Lesson

if TYPE_CHECKING:
    from stylegan.directions.file import Directions
    from stylegan.directions.search import Teller
    from stylegan.latent_file import Latents
    from stylegan.painter import Painter


WIDE = {"max_content_width": 110}


@dataclass(frozen=True)
class Learn:
    """`learn`, as typed."""

    lesson: Lesson = Lesson()
    dest: str = setting("", Flag("--dest", "The file to write (*.attributes.safetensors).", FILES, metavar="FILE"))


@click.group(cls=Group, context_settings=WIDE)
def main() -> None:
    """Directions in which pictures change in one respect: find them, look at them, go along them.

    \b
      directions.py find --network runs/00001-faces-faces64 --method pca --dest pca.direction.safetensors
      directions.py sheet --network runs/00001-faces-faces64 --directions pca.direction.safetensors --seeds 3
                          --outdir out
      directions.py apply --network runs/00001-faces-faces64 --directions pca.direction.safetensors --name pc0
                          --seeds 0-5 --strengths -3:3:7 --outdir out
    """


def command(config: type) -> Any:
    """A sub-command with the settings of `config`."""
    options = [*settings_options(config), ops_option()]
    return main.command(config.__name__.lower(), cls=Command, params=options, context_settings=WIDE)


@command(Find)
def find(typed: dict[str, Any]) -> None:
    """Find directions, and write them to a file."""
    request = replaced(Find(), typed)
    search, labels = request.search, request.search.labels
    require(f"--network runs/00000-faces --method pca --dest pca{DIRECTIONS}", network=request.view.network,
            dest=request.dest)  # fmt: skip
    check_search(search)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan.directions import search as searches
    from stylegan.directions.boundaries import require_sklearn

    dest, painter = ready(request.dest), opened(request.view, request.batch)
    if search.method == "labels":
        require_sklearn()
        known = searches.labelled(labels, painter, teller_of(labels, painter), request.batch)
        found = searches.from_labels(search, known, painter, click.echo)
    else:
        found = searches.unsupervised(search, painter.snapshot, painter.snapshot.G.synthesis.grown[0])
    written(dest, found, painter)


@command(Channels)
def channels(typed: dict[str, Any]) -> None:
    """List the style channels that go most with an attribute, and write each as a direction (StyleSpace)."""
    request = replaced(Channels(), typed)
    require(f"--network runs/00000-faces --labels smile/ --dest smile{DIRECTIONS}", network=request.view.network,
            dest=request.dest)  # fmt: skip
    check_labels(request.labels)
    from stylegan.directions import search as searches

    dest, painter = ready(request.dest), opened(request.view, request.batch)
    teller = teller_of(request.labels, painter)
    if teller is not None:  # before looking at thousands of pictures
        searches.require_one_attribute([str(attribute) for attribute in request.labels.attributes] or teller.names)
    known = searches.labelled(request.labels, painter, teller, request.batch)
    found, effects = searches.channels(known, painter, request.count)
    for number, (name, effect) in enumerate(zip(found.names, effects, strict=True)):
        click.echo(f"{number:3}  {name:24} {effect:+.2f} standard deviations with {known.names[0]}")
    written(dest, found, painter)


@command(Learn)
def learn(typed: dict[str, Any]) -> None:
    """Teach a classifier the attributes of a labelled data set, for `find --method labels --labels FILE`.

    \b
      directions.py learn --data faces.zip --table faces.csv --attributes 'smile>0.5,gender=male,yaw'
                          --dest faces.attributes.safetensors
    """
    request = replaced(Learn(), typed)
    lesson = request.lesson
    require("--data faces.zip --table faces.csv --dest faces.attributes.safetensors", data=lesson.data,
            table=lesson.table, dest=request.dest)  # fmt: skip
    from stylegan.directions.attribute_table import read_csv
    from stylegan.directions.search import worth
    from torch_utils.device import pick_device
    from training import attributes, classifier
    from training.archive import Archive

    dest = ready(request.dest, classifier.SUFFIX)
    archive = Archive.open(lesson.data)
    table = read_csv(Path(lesson.table), lesson.key, lesson.attributes)
    judge = attributes.learn(archive, table, lesson, pick_device(lesson.device))
    classifier.save_judge(dest, judge)
    for name, accuracy in zip(judge.scope.names, judge.scope.accuracy, strict=True):
        click.echo(f"{name:16} {worth(accuracy)}")
    click.echo(f"{lesson.held_out} of {len(archive)} pictures were held out: {dest}")


@command(Apply)
def apply(typed: dict[str, Any]) -> None:
    """Move pictures along a direction: a row for each, a column for each strength; strength 0 is the picture itself."""
    request = replaced(Apply(), typed)
    require(f"--network runs/00000-faces --directions pca{DIRECTIONS} --name pc0 --seeds 0-5 --outdir out",
            network=request.view.network, directions=request.walk.directions, seeds=request.start.seeds,
            outdir=request.outdir)  # fmt: skip
    from stylegan.directions.walks import along, drawn, film, there_and_back
    from stylegan.latent_file import save_latents
    from torch_utils.film import check_film, write_film
    from torch_utils.images import encode
    from torch_utils.progress import Progress
    from torch_utils.writing import destination, write_whole, writing_to

    painter, latents, found, layers = start_of(request)
    if len(found) > 1 and not request.name:
        raise UserError(f"{request.walk.directions} holds {', '.join(found.names)}; choose one with --name")
    direction = found.named(request.name or 0)
    folder, strengths = Path(request.outdir), request.walk.strengths
    if request.film:
        if request.frames < 2:
            raise UserError(f"--frames {request.frames} make no film; use 60 or so")
        check_film(folder / request.film, request.fps, painter.snapshot.config.channels)
    ways = along(latents, direction, strengths, layers)
    there = there_and_back(strengths, request.frames) if request.film else []
    count = len(ways) + len(there) * len(latents)
    with writing_to(folder), destination(folder) as add, Progress("Drawing", count) as bar:
        pixels = drawn(ways, painter, request.batch, bar)
        table = laid_out(pixels, latents.names, strengths, request.captions)
        write_whole(folder / GRID, encode(table, "png"))
        if request.cells:
            for name, picture in zip(ways.names, pixels, strict=True):
                add(f"{name}.png", encode(picture, "png"))
        if request.save_latents:
            save_latents(folder / SAVED, ways, painter.snapshot)
        if there:
            frames = film(latents, direction, there, layers, painter, request.batch, bar)
            write_film(folder / request.film, frames, request.fps)
    click.echo(f"{direction.names[0]}: {folder / GRID} ({len(strengths)}x{len(latents)})")


@command(Sheet)
def sheet(typed: dict[str, Any]) -> None:
    """Draw what each direction does, to find names for them: sheet-NAME.png for each picture, a row per direction."""
    request = replaced(Sheet(), typed)
    require(f"--network runs/00000-faces --directions pca{DIRECTIONS} --seeds 3 --outdir out",
            network=request.view.network, directions=request.walk.directions, seeds=request.start.seeds,
            outdir=request.outdir)  # fmt: skip
    from stylegan.directions.walks import along, drawn
    from stylegan.points import distinct
    from torch_utils.images import encode
    from torch_utils.progress import Progress
    from torch_utils.writing import destination, writing_to

    painter, latents, found, layers = start_of(request)
    if request.count < 1:
        raise UserError(f"--count {request.count} is no number of directions; use 1 or more")
    found, strengths, folder = found[: request.count], request.walk.strengths, Path(request.outdir)
    with (
        writing_to(folder),
        destination(folder) as add,
        Progress("Drawing", len(latents) * len(found) * len(strengths)) as bar,
    ):
        for i, name in enumerate(distinct(latents.names)):
            pixels = drawn(along(latents[i : i + 1], found, strengths, layers), painter, request.batch, bar)
            add(f"sheet-{name}.png", encode(laid_out(pixels, found.names, strengths, True), "png"))
    click.echo(f"{len(found)} directions of {request.walk.directions}: {folder / f'sheet-{latents.names[0]}.png'}"
               + (" ..." if len(latents) > 1 else ""))  # fmt: skip


@command(Conditional)
def conditional(typed: dict[str, Any]) -> None:
    """Take out of a direction what it shares with others, so that these stay as they are."""
    request = replaced(Conditional(), typed)
    require(f"--network runs/00000-faces --directions smile{DIRECTIONS} --name smile --without gender --dest NAME",
            network=request.view.network, directions=request.directions, name=request.name, without=request.without,
            dest=request.dest)  # fmt: skip
    from stylegan.directions.file import load_directions
    from stylegan.directions.search import projected_out

    dest, painter = ready(request.dest), opened(request.view)
    found = load_directions(Path(request.directions), painter.snapshot, request.force)
    others = [name.strip() for name in request.without.split(",")]
    written(dest, projected_out(found, request.name, others, painter.snapshot, request.classes), painter)


@main.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """List the directions in a file."""
    from stylegan.directions.file import load_directions
    from stylegan.directions.search import listed

    click.echo("\n".join(listed(load_directions(file, None))))


def opened(view: View, batch: int = 1) -> Painter:
    """Raises UserError for a network that cannot be opened, and for a batch of nothing."""
    from stylegan.painter import open_painter

    require_batch(batch)
    return open_painter(view)


def ready(dest: str, suffix: str = DIRECTIONS) -> Path:
    """Where to write. Raises UserError, before any work, for a name of another kind, and if there is no such folder."""
    path = Path(dest).expanduser()
    if not path.name.endswith(suffix):
        raise UserError(f"--dest {path}: the name must end in {suffix}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} to")
    return path


def written(dest: Path, found: Directions, painter: Painter) -> None:
    from stylegan.directions.file import save_directions

    save_directions(dest, found, painter.snapshot)
    click.echo(f"{len(found)} directions, {found.method}: {dest}")


def teller_of(labels: Labels, painter: Painter) -> Teller | None:
    """The classifier, where --labels names one."""
    if not labels.labels.endswith(".safetensors"):
        return None
    from stylegan.directions.search import Teller
    from training.classifier import load_judge

    judge = load_judge(Path(labels.labels))
    return Teller(judge.scope.names, judge.scope.quantities, judge.values)


def start_of(request: Apply | Sheet) -> tuple[Painter, Latents, Directions, list[int] | None]:
    """The network, what to start from, the file's directions, and the layers to move, None as each says."""
    start, walk = request.start, request.walk
    from stylegan.directions.file import load_directions
    from stylegan.points import gather
    from stylegan.projection.project_photos import projecting
    from stylegan.styles import layers_of

    painter = opened(request.view, request.batch)
    found = load_directions(Path(walk.directions), painter.snapshot, start.force)
    config = painter.snapshot.config
    layers = layers_of(walk.layers, config, painter.snapshot.G.synthesis.grown[0]) if walk.layers else None
    latents = gather(start.seeds, painter, start.classes, project=projecting(c=start.classes), force=start.force)
    return painter, latents, found, layers


def laid_out(pixels: Any, rows: Sequence[str], strengths: Sequence[float], captions: bool) -> Any:
    """A table of pictures, uint8 [H,W,C]."""
    from torch_utils.captions import captioned
    from torch_utils.images import grid

    if captions:
        return captioned(pixels, rows, [f"{strength:+.3g}" if strength else "0" for strength in strengths])
    return grid(pixels, len(strengths))


if __name__ == "__main__":
    main()
