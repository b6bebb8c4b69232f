"""`stylegan directions`: find directions in latent space, and move images along them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli import direction_images
from stylegan.cli.options import BATCH, WIDE, ops_option
from stylegan.editing.settings import (
    ATTRIBUTES,
    FILE,
    SEARCH,
    ClassifierSettings,
    Labels,
    Rank,
    Search,
    check_classifier,
    check_count,
    check_labels,
    check_search,
)
from stylegan.latents.notation import DIRECTIONS, GeneratingOptions, NetworkOptions
from torch_utils.cli import Command, Group, require, require_batch, settings_options
from torch_utils.errors import UserError
from torch_utils.output import FILES, replaces, require_folder
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import Class, parse_classes, say

if TYPE_CHECKING:
    from stylegan.editing.directions import Directions
    from stylegan.editing.search import AttributeClassifier
    from stylegan.latents.render import View

DEST = Flag("--dest", f"The file to write (*{DIRECTIONS}).", FILES, metavar="FILE")


@dataclass(frozen=True)
class Find:
    """The settings of `find`."""

    model: GeneratingOptions = GeneratingOptions()
    search: Search = Search()
    dest: str = setting("", DEST)
    batch: int | None = setting(None, BATCH)


@dataclass(frozen=True)
class Channels:
    """The settings of `channels`."""

    model: GeneratingOptions = GeneratingOptions()
    labels: Labels = Labels()
    rank: Rank | None = setting(None, Flag(
        "--rank", "gradient: by how much a channel changes the score of the classifier; difference: by that of its "
        "means with and without the attribute, which may not change anything visible.  [gradient, with a file of "
        "`learn`; else difference]", SEARCH))  # fmt: skip
    count: int = setting(10, Flag("--count", "How many channels.", SEARCH))
    dest: str = setting("", DEST)
    batch: int | None = setting(None, BATCH)


@dataclass(frozen=True)
class Conditional:
    """The settings of `conditional`."""

    model: NetworkOptions = NetworkOptions()
    directions: str = setting("", FILE)
    name: str = setting("", Flag("--name", "The direction to change.", SEARCH))
    without: str = setting("", Flag(
        "--without", "Those that must stay as they are, as in glasses,gender.", SEARCH, is_list=True))  # fmt: skip
    classes: Sequence[Class] = setting((), Flag(
        "--class", "For conditional networks, as in `find`.", SEARCH, parse=parse_classes,
        metavar="CLASS"))  # fmt: skip
    force: bool = setting(False, Flag("--force", "Take directions that belong to another network.", SEARCH))
    dest: str = setting("", DEST)


@dataclass(frozen=True)
class Learn:
    """The settings of `learn`."""

    classifier: ClassifierSettings = ClassifierSettings()
    dest: str = setting("", Flag("--dest", f"The file to write (*{ATTRIBUTES}).", FILES, metavar="FILE"))


@click.group(cls=Group, context_settings=WIDE)
def main() -> None:
    """Directions in which images change in one respect: find them, look at them, move images along them.

    \b
      directions.py find --network runs/00001-faces-faces64 --method pca --dest pca.direction.safetensors
      directions.py sheet --network runs/00001-faces-faces64 --directions pca.direction.safetensors --seeds 3
                          --outdir out
      directions.py apply --network runs/00001-faces-faces64 --directions pca.direction.safetensors --name pc0
                          --seeds 0-5 --strengths -3:3:7 --outdir out
    """


def command(config: type) -> Any:
    """A sub-command with the name of `config`, which it gets as its settings."""
    options = [*settings_options(config), ops_option()]

    def declare(run: Callable[[Any], None]) -> click.Command:
        declared = main.command(config.__name__.lower(), cls=Command, params=options, context_settings=WIDE)
        return declared(wraps(run)(lambda typed: run(replaced(config(), typed))))

    return declare


@command(Find)
def find(request: Find) -> None:
    """Find directions, and write them to a file."""
    settings, labels = request.search, request.search.labels
    require(f"--network runs/00000-faces --method pca --dest pca{DIRECTIONS}", network=request.model.network,
            dest=request.dest)  # fmt: skip
    check_search(settings)
    dest = writable(request.dest)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan.editing import search
    from stylegan.editing.boundaries import require_sklearn
    from stylegan.editing.directions import listed
    from stylegan.latents.render import opened

    classifier = None
    if settings.method == "labels":
        require_sklearn()
        classifier = classifier_of(labels)
    require_batch(request.batch)
    view = opened(request.model, batch=request.batch)
    if settings.method == "labels":
        samples = search.labelled_samples(labels, view, classifier, view.batch(request.batch))
        found = search.from_labels(settings, samples, view, say)
    else:
        found = search.unsupervised(settings, view.snapshot)
        say("\n".join(listed(found)[1:]))
    save(dest, found, view)


@command(Channels)
def channels(request: Channels) -> None:
    """List the style channels that go most with an attribute, and write each as a direction (StyleSpace).

    \b
      directions.py channels --network runs/00001-faces-faces64 --labels faces.attributes.safetensors
                             --attributes smile --dest smile.direction.safetensors
    """
    require(f"--network runs/00000-faces --labels smile/ --dest smile{DIRECTIONS}", network=request.model.network,
            dest=request.dest)  # fmt: skip
    check_labels(request.labels)
    check_count(request.count)
    dest = writable(request.dest)
    from stylegan.editing import search
    from stylegan.latents.render import opened

    classifier = classifier_of(request.labels)
    require_batch(request.batch)
    view = opened(request.model, batch=request.batch)
    search.require_channels(view, request.count)
    if classifier is not None:  # before many images are rendered
        search.require_one_attribute(
            [classifier.names[k] for k in search.attribute_indices(request.labels, classifier)]
        )
    elif request.rank == "gradient":
        raise UserError("--rank gradient needs a classifier; give a file of `directions.py learn` with --labels")
    if classifier is not None and request.rank != "difference":
        found, effects = search.by_gradient(request.labels, view, classifier, request.count, request.batch or 8)
        unit = "in its score, for one standard deviation"
    else:
        samples = search.labelled_samples(request.labels, view, classifier, view.batch(request.batch))
        found, effects = search.by_difference(samples, view, request.count)
        unit = f"standard deviations with {samples.names[0]}"
    for number, (name, effect) in enumerate(zip(found.names, effects, strict=True)):
        say(f"{number:3}  {name:24} {effect:+.2f} {unit}")
    save(dest, found, view)


@command(Learn)
def learn(request: Learn) -> None:
    """Train a classifier on the attributes of a labelled data set, for `find --method labels --labels FILE`.

    \b
      directions.py learn --data faces.zip --table faces.csv --attributes 'smile>0.5,gender=male,yaw'
                          --dest faces.attributes.safetensors
    """
    settings = request.classifier
    require("--data faces.zip --table faces.csv --dest faces.attributes.safetensors", data=settings.data,
            table=settings.table, dest=request.dest)  # fmt: skip
    check_classifier(settings)
    dest, older = writable(request.dest, ATTRIBUTES), replaces([Path(os.path.expanduser(request.dest))])
    from stylegan.editing.attribute_table import read_csv
    from stylegan.editing.directions import accuracy_text
    from torch_utils.device import pick_device
    from training import attributes
    from training.data.archive import Archive

    archive = Archive.open(settings.data, settings.cache)
    table = read_csv(Path(settings.table), settings.key, settings.attributes)
    trained = attributes.learn(archive, table, settings, pick_device(settings.device))
    attributes.save_classifier(dest, trained)
    for name, accuracy in zip(trained.scope.names, trained.scope.accuracy, strict=True):
        say(f"{name:16} {accuracy_text(accuracy)}")
    say(f"{settings.held_out} of {len(archive)} images were held out: {dest}{older}")


@command(Conditional)
def conditional(request: Conditional) -> None:
    """Take out of a direction what it shares with others, so that these stay as they are."""
    require(f"--network runs/00000-faces --directions smile{DIRECTIONS} --name smile --without gender --dest NAME",
            network=request.model.network, directions=request.directions, name=request.name, without=request.without,
            dest=request.dest)  # fmt: skip
    dest = writable(request.dest)
    from stylegan.editing.directions import angle_between, load_directions
    from stylegan.editing.search import conditional_by_name
    from stylegan.latents.render import opened

    view = opened(request.model)
    found = load_directions(Path(request.directions), view.snapshot, request.force)
    others = [name.strip() for name in request.without.split(",")]
    changed = conditional_by_name(found, request.name, others, view.snapshot, request.classes)
    before = found.named(request.name)
    angle = angle_between(before, changed)
    if angle < 0.05:  # degrees: below what can be seen
        say(f"{before.names[0]} shares nothing with the others: it stays as it was")
    else:
        say(f"{before.names[0]} turned by {angle:.1f} degrees")
    save(dest, changed, view)


@main.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """List the directions in a file."""
    from stylegan.editing.directions import listed, load_directions

    say("\n".join(listed(load_directions(file, None))))


main.add_command(direction_images.apply)
main.add_command(direction_images.sheet)


def writable(dest: str, suffix: str = DIRECTIONS) -> Path:
    """The path of a file to write. Raises UserError, before any work, for another suffix and for a missing folder."""
    path = Path(os.path.expanduser(dest))
    if not path.name.endswith(suffix):
        raise UserError(f"--dest {path}: the name must end in {suffix}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for {path.name}; make it, or name another with --dest")
    if path.is_dir():
        raise UserError(f"--dest {path} is a folder; name a file")
    require_folder(path.parent, "--dest")
    return path


def save(dest: Path, found: Directions, view: View) -> None:
    """Write the directions and print a line on the file."""
    from stylegan.editing.directions import save_directions, summary

    older = replaces([dest])
    save_directions(dest, found, view.snapshot)
    say(f"{summary(found)}: {dest}{older}")


def classifier_of(labels: Labels) -> AttributeClassifier | None:
    """The classifier that --labels names, if it names one. Raises UserError, before any work, for unreadable labels."""
    if not labels.from_classifier:
        from stylegan.editing.attribute_table import read_seeds

        read_seeds(Path(labels.source), labels.attributes)
        return None
    from training.attributes import load_classifier

    return load_classifier(Path(labels.source))


if __name__ == "__main__":
    main()
