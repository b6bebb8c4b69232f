"""Find directions in the space of latents, and go along them. `python directions.py --help` lists the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli.options import ops_option, tool_options
from stylegan.editing.settings import (
    Apply,
    Channels,
    Conditional,
    Find,
    Labels,
    Sheet,
    Walking,
    check_apply,
    check_count,
    check_labels,
    check_search,
    is_classifier,
)
from stylegan.latents.start import DIRECTIONS, check_steps
from stylegan.latents.view import Model, View
from torch_utils.cli import Command, Group, require, require_batch, settings_options
from torch_utils.errors import UserError
from torch_utils.output import replaces, require_folder
from torch_utils.settings import replaced
from torch_utils.text import counted
from training.attributes import SUFFIX, Learn

if TYPE_CHECKING:
    from stylegan.editing.directions import Directions
    from stylegan.editing.search import Teller
    from stylegan.latents.render import Painter


WIDE = {"max_content_width": 110}


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
    options = tool_options(config) if issubclass(config, Walking) else [*settings_options(config), ops_option()]
    return main.command(config.__name__.lower(), cls=Command, params=options, context_settings=WIDE)


@command(Find)
def find(typed: dict[str, Any]) -> None:
    """Find directions, and write them to a file."""
    request = replaced(Find(), typed)
    search, labels = request.search, request.search.labels
    require(f"--network runs/00000-faces --method pca --dest pca{DIRECTIONS}", network=request.model.network,
            dest=request.dest)  # fmt: skip
    check_search(search)
    dest = ready(request.dest)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan.editing import search as searches
    from stylegan.editing import search as words
    from stylegan.editing.boundaries import require_sklearn

    teller = None
    if search.method == "labels":
        require_sklearn()
        teller = teller_of(labels)
    painter = opened(request.model, request.batch)
    if search.method == "labels":
        known = searches.labelled(labels, painter, teller, request.batch)
        found = searches.from_labels(search, known, painter, click.echo)
    else:
        found = searches.unsupervised(search, painter.snapshot, painter.renderer.stage.resolution)
        click.echo("\n".join(words.listed(found)[1:]))
    written(dest, found, painter)


@command(Channels)
def channels(typed: dict[str, Any]) -> None:
    """List the style channels that go most with an attribute, and write each as a direction (StyleSpace).

    \b
      directions.py channels --network runs/00001-faces-faces64 --labels faces.attributes.safetensors
                             --attributes smile --dest smile.direction.safetensors
    """
    request = replaced(Channels(), typed)
    require(f"--network runs/00000-faces --labels smile/ --dest smile{DIRECTIONS}", network=request.model.network,
            dest=request.dest)  # fmt: skip
    check_labels(request.labels)
    check_count(request.count)
    dest = ready(request.dest)
    from stylegan.editing import search as searches

    teller = teller_of(request.labels)
    painter = opened(request.model, request.batch)
    searches.require_channels(painter, request.count)
    if teller is not None:  # before looking at many pictures
        searches.require_one_attribute([teller.names[k] for k in searches.told(request.labels, teller)])
    elif request.rank == "gradient":
        raise UserError("--rank gradient needs a classifier: --labels FILE, as `directions.py learn` makes it")
    if teller is not None and request.rank != "difference":
        found, effects = searches.by_gradient(request.labels, painter, teller, request.count, request.batch)
        unit = "in its score, for one standard deviation"
    else:
        known = searches.labelled(request.labels, painter, teller, request.batch)
        found, effects = searches.by_difference(known, painter, request.count)
        unit = f"standard deviations with {known.names[0]}"
    for number, (name, effect) in enumerate(zip(found.names, effects, strict=True)):
        click.echo(f"{number:3}  {name:24} {effect:+.2f} {unit}")
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
    dest, older = ready(request.dest, SUFFIX), replaces([Path(request.dest).expanduser()])
    from stylegan.editing.attribute_table import read_csv
    from stylegan.editing.search import worth
    from torch_utils.device import pick_device
    from training import attributes
    from training import attributes as classifier
    from training.data.archive import Archive

    archive = Archive.open(lesson.data)
    table = read_csv(Path(lesson.table), lesson.key, lesson.attributes)
    judge = attributes.learn(archive, table, lesson, pick_device(lesson.device))
    classifier.save_judge(dest, judge)
    for name, accuracy in zip(judge.scope.names, judge.scope.accuracy, strict=True):
        click.echo(f"{name:16} {worth(accuracy)}")
    click.echo(f"{lesson.held_out} of {len(archive)} pictures were held out: {dest}{older}")


@command(Apply)
def apply(typed: dict[str, Any], dry_run: bool) -> None:
    """Move pictures along a direction: a row for each, a column for each strength; strength 0 is the picture itself.

    The pictures are seeds, latent files or photographs, which are projected first.

    \b
      directions.py apply --network runs/00001-faces-faces64 --directions smile.direction.safetensors
                          --seeds 0-3,eva.jpg --strengths -3:3:7 --outdir out
    """
    request = replaced(Apply(), typed)
    require(f"--network runs/00000-faces --directions pca{DIRECTIONS} --name pc0 --seeds 0-5 --outdir out",
            network=request.view.network, directions=request.walk.directions, seeds=request.start.seeds,
            outdir=request.outdir)  # fmt: skip
    check_apply(request)
    check_walking(request)
    from stylegan.editing.walk import apply_in_words, gathered, opened_for, plan, write_applied
    from stylegan.projection.project_photos import projecting, standing_in
    from torch_utils.video import check_film

    painter, found, layers = opened_for(request)
    if len(found) > 1 and not request.name:
        raise UserError(f"{request.walk.directions} holds {', '.join(found.names)}; choose one with --name")
    direction = found.named(request.name or 0)
    if request.film:
        check_film(Path(request.outdir, request.film), request.fps, painter.snapshot.config.channels)
    # At first without any projection, so that what cannot be is said before one.
    starts = gathered(request, painter, standing_in)
    files = apply_in_words(request, starts, direction, layers)
    if dry_run:
        click.echo(plan(request, painter, len(starts) * len(request.walk.strengths), files))
        return
    latents = gathered(request, painter, projecting(request.start.num_steps, request.batch))
    write_applied(request, painter, latents, direction, layers)
    click.echo(f"{direction.names[0]}: {files}")


@command(Sheet)
def sheet(typed: dict[str, Any], dry_run: bool) -> None:
    """Draw what each direction does, to find names for them: sheet-NAME.png for each picture, a row per direction."""
    request = replaced(Sheet(), typed)
    require(f"--network runs/00000-faces --directions pca{DIRECTIONS} --seeds 3 --outdir out",
            network=request.view.network, directions=request.walk.directions, seeds=request.start.seeds,
            outdir=request.outdir)  # fmt: skip
    check_count(request.count)
    check_walking(request)
    from stylegan.editing.search import listed
    from stylegan.editing.walk import gathered, opened_for, plan, sheets_in_words, write_sheets
    from stylegan.projection.project_photos import projecting, standing_in

    painter, found, layers = opened_for(request)
    found = found[: request.count]
    starts = gathered(request, painter, standing_in)
    files = sheets_in_words(request, starts)
    if dry_run:
        click.echo(plan(request, painter, len(starts) * len(found) * len(request.walk.strengths), files))
        return
    latents = gathered(request, painter, projecting(request.start.num_steps, request.batch))
    write_sheets(request, painter, latents, found, layers)
    click.echo("\n".join(listed(found)))
    click.echo(f"{counted(len(latents), 'sheet')}: {files}")


@command(Conditional)
def conditional(typed: dict[str, Any]) -> None:
    """Take out of a direction what it shares with others, so that these stay as they are."""
    request = replaced(Conditional(), typed)
    require(f"--network runs/00000-faces --directions smile{DIRECTIONS} --name smile --without gender --dest NAME",
            network=request.model.network, directions=request.directions, name=request.name, without=request.without,
            dest=request.dest)  # fmt: skip
    dest = ready(request.dest)
    from stylegan.editing.directions import load_directions
    from stylegan.editing.search import projected_out, turned

    painter = opened(request.model)
    found = load_directions(Path(request.directions), painter.snapshot, request.force)
    others = [name.strip() for name in request.without.split(",")]
    apart = projected_out(found, request.name, others, painter.snapshot, request.classes)
    click.echo(turned(found.named(request.name), apart))
    written(dest, apart, painter)


@main.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """List the directions in a file."""
    from stylegan.editing.directions import load_directions
    from stylegan.editing.search import listed

    click.echo("\n".join(listed(load_directions(file, None))))


def opened(model: Model, batch: int = 1) -> Painter:
    """To look at pictures as the network itself draws them. Raises UserError for one that cannot be opened."""
    from stylegan.latents.render import open_painter

    require_batch(batch)
    return open_painter(View(network=model.network, device=model.device))


def ready(dest: str, suffix: str = DIRECTIONS) -> Path:
    """Where to write. Raises UserError, before any work, for a name of another kind, and if there is no such folder."""
    path = Path(dest).expanduser()
    if not path.name.endswith(suffix):
        raise UserError(f"--dest {path}: the name must end in {suffix}")
    if not path.parent.is_dir():
        raise UserError(
            f"there is no folder {path.parent} to write {path.name} to; make it, or name another with --dest"
        )
    if path.is_dir():
        raise UserError(f"--dest {path} is a folder; name a file")
    require_folder(path.parent, "--dest")
    return path


def written(dest: Path, found: Directions, painter: Painter) -> None:
    from stylegan.editing.directions import save_directions
    from stylegan.editing.search import summary

    older = replaces([dest])
    save_directions(dest, found, painter.snapshot)
    click.echo(f"{summary(found)}: {dest}{older}")


def teller_of(labels: Labels) -> Teller | None:
    """The classifier, where --labels names one. Raises UserError for labels that cannot be read, early."""
    if not is_classifier(labels):
        from stylegan.editing.attribute_table import read_seeds

        read_seeds(Path(labels.labels), labels.attributes)
        return None
    from stylegan.editing.search import Teller
    from training.attributes import load_judge

    judge = load_judge(Path(labels.labels))
    return Teller(judge.scope.names, judge.scope.quantities, judge.values, judge.scores)


def check_walking(request: Walking) -> None:
    """Raises UserError for what no network could serve."""
    require_batch(request.batch)
    check_steps(request.start.num_steps)
    require_folder(Path(request.outdir))


if __name__ == "__main__":
    main()
