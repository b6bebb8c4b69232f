"""`stylegan directions`: find directions in latent space, and go along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli import direction_images
from stylegan.cli.direction_images import check_count
from stylegan.cli.options import BATCH, NetworkOptions, opened, ops_option
from stylegan.editing.settings import (
    ATTRIBUTES,
    FILE,
    HOW,
    ClassifierSettings,
    Labels,
    Rank,
    Search,
    check_labels,
    check_search,
    is_classifier,
)
from stylegan.latents.notation import DIRECTIONS
from torch_utils.cli import Command, Group, require, require_batch, settings_options
from torch_utils.errors import UserError
from torch_utils.output import FILES, replaces, require_folder
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import parse_classes

if TYPE_CHECKING:
    from stylegan.editing.directions import Directions
    from stylegan.editing.search import Teller
    from stylegan.latents.render import View

DEST = Flag("--dest", f"The file to write (*{DIRECTIONS}).", FILES, metavar="FILE")


@dataclass(frozen=True)
class Find:
    """`find`, as typed."""

    model: NetworkOptions = NetworkOptions()
    search: Search = Search()
    dest: str = setting("", DEST)
    batch: int = setting(8, BATCH)


@dataclass(frozen=True)
class Channels:
    """`channels`, as typed."""

    model: NetworkOptions = NetworkOptions()
    labels: Labels = Labels()
    rank: Rank | None = setting(None, Flag(
        "--rank", "gradient: by how much a channel changes what the classifier says; difference: by that of its means "
        "with and without, which may change nothing to be seen.  [gradient, with what `learn` made; else difference]",
        HOW))  # fmt: skip
    count: int = setting(10, Flag("--count", "How many channels.", HOW))
    dest: str = setting("", DEST)
    batch: int = setting(8, BATCH)


@dataclass(frozen=True)
class Conditional:
    """`conditional`, as typed."""

    model: NetworkOptions = NetworkOptions()
    directions: str = setting("", FILE)
    name: str = setting("", Flag("--name", "The direction to change.", HOW))
    without: str = setting("", Flag("--without", "Those that shall stay as they are, as in glasses,gender.", HOW))
    classes: Sequence[int] = setting((), Flag(
        "--class", "For conditional networks, as in `find`.", HOW, parse=parse_classes, metavar="CLASS"))  # fmt: skip
    force: bool = setting(False, Flag("--force", "Take directions that belong to another network.", HOW))
    dest: str = setting("", DEST)


@dataclass(frozen=True)
class Learn:
    """`directions.py learn`, as typed."""

    classifier: ClassifierSettings = ClassifierSettings()
    dest: str = setting("", Flag("--dest", f"The file to write (*{ATTRIBUTES}).", FILES, metavar="FILE"))


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
    options = [*settings_options(config), ops_option()]
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
    require_batch(request.batch)
    view = opened(request.model)
    if search.method == "labels":
        known = searches.labelled(labels, view, teller, request.batch)
        found = searches.from_labels(search, known, view, click.echo)
    else:
        found = searches.unsupervised(search, view.snapshot, view.stage.resolution)
        click.echo("\n".join(words.listed(found)[1:]))
    written(dest, found, view)


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
    require_batch(request.batch)
    view = opened(request.model)
    searches.require_channels(view, request.count)
    if teller is not None:  # before looking at many pictures
        searches.require_one_attribute([teller.names[k] for k in searches.told(request.labels, teller)])
    elif request.rank == "gradient":
        raise UserError("--rank gradient needs a classifier: --labels FILE, as `directions.py learn` makes it")
    if teller is not None and request.rank != "difference":
        found, effects = searches.by_gradient(request.labels, view, teller, request.count, request.batch)
        unit = "in its score, for one standard deviation"
    else:
        known = searches.labelled(request.labels, view, teller, request.batch)
        found, effects = searches.by_difference(known, view, request.count)
        unit = f"standard deviations with {known.names[0]}"
    for number, (name, effect) in enumerate(zip(found.names, effects, strict=True)):
        click.echo(f"{number:3}  {name:24} {effect:+.2f} {unit}")
    written(dest, found, view)


@command(Learn)
def learn(typed: dict[str, Any]) -> None:
    """Teach a classifier the attributes of a labelled data set, for `find --method labels --labels FILE`.

    \b
      directions.py learn --data faces.zip --table faces.csv --attributes 'smile>0.5,gender=male,yaw'
                          --dest faces.attributes.safetensors
    """
    request = replaced(Learn(), typed)
    settings = request.classifier
    require("--data faces.zip --table faces.csv --dest faces.attributes.safetensors", data=settings.data,
            table=settings.table, dest=request.dest)  # fmt: skip
    dest, older = ready(request.dest, ATTRIBUTES), replaces([Path(request.dest).expanduser()])
    from stylegan.editing.attribute_table import read_csv
    from stylegan.editing.search import worth
    from torch_utils.device import pick_device
    from training import attributes
    from training import attributes as classifier
    from training.data.archive import Archive

    archive = Archive.open(settings.data)
    table = read_csv(Path(settings.table), settings.key, settings.attributes)
    judge = attributes.learn(archive, table, settings, pick_device(settings.device))
    classifier.save_classifier(dest, judge)
    for name, accuracy in zip(judge.scope.names, judge.scope.accuracy, strict=True):
        click.echo(f"{name:16} {worth(accuracy)}")
    click.echo(f"{settings.held_out} of {len(archive)} pictures were held out: {dest}{older}")


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

    view = opened(request.model)
    found = load_directions(Path(request.directions), view.snapshot, request.force)
    others = [name.strip() for name in request.without.split(",")]
    apart = projected_out(found, request.name, others, view.snapshot, request.classes)
    click.echo(turned(found.named(request.name), apart))
    written(dest, apart, view)


@main.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """List the directions in a file."""
    from stylegan.editing.directions import load_directions
    from stylegan.editing.search import listed

    click.echo("\n".join(listed(load_directions(file, None))))


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


def written(dest: Path, found: Directions, view: View) -> None:
    from stylegan.editing.directions import save_directions
    from stylegan.editing.search import summary

    older = replaces([dest])
    save_directions(dest, found, view.snapshot)
    click.echo(f"{summary(found)}: {dest}{older}")


def teller_of(labels: Labels) -> Teller | None:
    """The classifier, where --labels names one. Raises UserError for labels that cannot be read, early."""
    if not is_classifier(labels):
        from stylegan.editing.attribute_table import read_seeds

        read_seeds(Path(labels.labels), labels.attributes)
        return None
    from stylegan.editing.search import Teller
    from training.attributes import load_classifier

    judge = load_classifier(Path(labels.labels))
    return Teller(judge.scope.names, judge.scope.quantities, judge.values, judge.scores)


main.add_command(direction_images.apply)
main.add_command(direction_images.sheet)
