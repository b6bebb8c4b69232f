"""How to look for directions, and how far to go along them, as it is typed. Imports nothing that takes time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stylegan.editing.attributes import Attribute, parse_attributes
from stylegan.latents.start import DIRECTIONS, LATENTS, Start
from stylegan.latents.styles import Styles, parse_styles
from stylegan.latents.view import Model, View
from torch_utils.errors import UserError
from torch_utils.output import FILES, GRID
from torch_utils.settings import Flag, differences, setting
from torch_utils.text import counted, parse_classes

HOW = "Search"
FILE = Flag("--directions", f"The file (*{DIRECTIONS}).", HOW, metavar="FILE")
Rank = Literal["difference", "gradient"]
Method = Literal["pca", "activations", "sefa", "labels"]
SAMPLES: dict[Method, int] = {"pca": 20_000, "activations": 2_000, "sefa": 4_000, "labels": 4_000}
METHODS: dict[str, tuple[Method, ...]] = {
    "count": ("pca", "activations", "sefa"), "layer": ("activations",), "boundary": ("labels",),
    "labels.labels": ("labels",), "labels.attributes": ("labels",),
}  # fmt: skip
"""Of settings that not all methods heed: which do."""
FOR_GRADIENTS = 500
FOR_SCALES = 4_000  # a standard deviation to about one part in a hundred


@dataclass(frozen=True)
class Labels:
    """Where labels of pictures come from. classes: of the seeds, for conditional networks."""

    labels: str = setting("", Flag(
        "--labels", "A CSV with a column seed; a folder with sub-folders yes and no that pictures named seed0017.png "
        "were sorted into; or what `learn` made, for any number of pictures.", HOW, metavar="FILE"))  # fmt: skip
    attributes: Sequence[Attribute] = setting((), Flag(
        "--attributes", "Which columns of the CSV, as in smile>0.5,gender=male,yaw.  [all]", HOW,
        parse=parse_attributes))  # fmt: skip
    samples: int | None = setting(
        None,
        Flag(
            "--samples",
            "How many random pictures to look at.  [pca: 20000; activations: 2000; by gradient: 500; others: 4000]",
            HOW,
        ),
    )
    classes: Sequence[int] = setting((), Flag(
        "--class", "Class, for conditional networks. Of a list as in 0-9, seed S gets number S, counted round.", HOW,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip


@dataclass(frozen=True)
class Search:
    """What to look for."""

    method: Method = setting("pca", Flag(
        "--method", "pca: where w varies most; activations: where a layer's output does; sefa: what moves styles most; "
        "labels: boundaries between pictures with and without.", HOW))  # fmt: skip
    count: int = setting(10, Flag("--count", "How many to find (labels: one for each attribute).", HOW))
    layers: Styles | None = setting(None, Flag(
        "--layers", "Layers that the directions move, as in 0-3 or coarse; sefa looks at their styles.  [all]", HOW,
        parse=parse_styles))  # fmt: skip
    layer: int = setting(2, Flag("--layer", "activations: whose.", HOW))
    boundary: Literal["logistic", "svm"] = setting(
        "logistic", Flag("--boundary", "labels: the linear classifier.", HOW)
    )
    labels: Labels = Labels()


@dataclass(frozen=True)
class Walk:
    """Which directions to go along, and how far."""

    directions: str = setting("", FILE)
    strengths: tuple[float, ...] = setting((-2.0, -1.0, 0.0, 1.0, 2.0), Flag(
        "--strengths", "How far, in standard deviations: -2,0,2, or from -3 to 3 in 7 steps, -3:3:7.", HOW,
        parse=lambda text: parse_strengths(text), typed="-2,-1,0,1,2"))  # fmt: skip
    layers: Styles | None = setting(
        None,
        Flag("--layers", "Which layers to move, as in 0-3 or coarse.  [as the file says]", HOW, parse=parse_styles),
    )


def parse_strengths(text: str) -> tuple[float, ...]:
    """ "-2,0,2" -> (-2.0, 0.0, 2.0); "-1:1:5" -> (-1.0, -0.5, 0.0, 0.5, 1.0). Raises UserError if it is neither."""
    try:
        if ":" not in text:
            strengths = [float(part) for part in text.split(",")]
        else:
            first, last, count = text.split(":")
            steps = int(count)
            if not 2 <= steps <= 1000:
                raise UserError(f"'{text}' makes {steps} steps; from 2 to 1000 can be taken")
            strengths = [float(first) + (float(last) - float(first)) * i / (steps - 1) for i in range(steps)]
    except ValueError:
        raise UserError(f"'{text}' is no list of strengths; write -2,0,2, or -3:3:7 for 7 steps") from None
    if not all(map(math.isfinite, strengths)):
        raise UserError(f"'{text}' has strengths that are no numbers")
    return tuple(strengths)


def check_search(search: Search) -> None:
    """Raises UserError for settings that no network could serve, and for those that other methods are for."""
    check_labels(search.labels, needed=search.method == "labels")
    for name, _, _ in differences(search, Search(method=search.method)):
        if name in METHODS and search.method not in METHODS[name]:
            flag = "--" + name.rpartition(".")[2]
            raise UserError(f"{flag} is for --method {' or '.join(METHODS[name])}, not {search.method}; leave it out")
    samples = search.labels.samples
    if search.method == "pca" and samples is not None and samples <= search.count:
        raise UserError(f"--samples {samples} are too few for {counted(search.count, 'direction')}; take some thousand")
    if search.count < 1:
        raise UserError(f"--count {search.count} is no number of directions; use 1 or more")


def is_classifier(labels: Labels) -> bool:
    """Does --labels name what `directions.py learn` made?"""
    return labels.labels.endswith(".safetensors")


def check_labels(labels: Labels, needed: bool = True) -> None:
    """Raises UserError where labels are missing or cannot be labels, and for samples that are none."""
    path, kinds = Path(labels.labels), "a CSV with a column seed, a sorted folder, or what `directions.py learn` made"
    if needed and not labels.labels:
        raise UserError(f"--labels is missing: {kinds}")
    if labels.labels and not path.exists():
        raise UserError(f"there is no {path} to read labels from; --labels takes {kinds}")
    if labels.samples is not None and labels.samples < 2:
        raise UserError(f"--samples {labels.samples} are too few; take some thousand")
    if labels.samples is not None and labels.labels and not is_classifier(labels):
        raise UserError(f"--samples is for a classifier: {path} itself says which pictures it is of; leave it out")


# What the commands of directions.py ask for, as it is typed. Imports nothing that takes time


SAVED = f"moved{LATENTS}"
BATCH = Flag("--batch", "Pictures in work at once. Does not change them.")
DEST = Flag("--dest", f"The file to write (*{DIRECTIONS}).", FILES, metavar="FILE")
OUTDIR = Flag("--outdir", "Where to put the pictures.", FILES, metavar="DIR")


@dataclass(frozen=True)
class Find:
    """`find`, as typed."""

    model: Model = Model()
    search: Search = Search()
    dest: str = setting("", DEST)
    batch: int = setting(8, BATCH)


@dataclass(frozen=True)
class Channels:
    """`channels`, as typed."""

    model: Model = Model()
    labels: Labels = Labels()
    rank: Rank | None = setting(None, Flag(
        "--rank", "gradient: by how much a channel changes what the classifier says; difference: by that of its means "
        "with and without, which may change nothing to be seen.  [gradient, with what `learn` made; else difference]",
        HOW))  # fmt: skip
    count: int = setting(10, Flag("--count", "How many channels.", HOW))
    dest: str = setting("", DEST)
    batch: int = setting(8, BATCH)


@dataclass(frozen=True)
class Walking:
    """What `apply` and `sheet` share: pictures that are moved along directions."""

    view: View = View()
    start: Start = Start()
    walk: Walk = Walk()
    outdir: str = setting("", OUTDIR)
    batch: int = setting(8, BATCH)


@dataclass(frozen=True)
class Apply(Walking):
    """`apply`, as typed."""

    name: str = setting("", Flag("--name", "Which of the file's directions: its name, or its number from 0.", HOW))
    captions: bool = setting(False, Flag("--captions", f"Words at the edges of {GRID}.", FILES))
    cells: bool = setting(False, Flag("--cells", "Also a file for each picture.", FILES))
    save_latents: bool = setting(False, Flag("--save-latents", f"Also {SAVED}, their latents.", FILES))
    film: str = setting("", Flag(
        "--film", "Also a film there and back, such as smile.mp4 or .webp, in --outdir.", FILES,
        metavar="NAME"))  # fmt: skip
    frames: int = setting(60, Flag("--frames", "Length of the film.", FILES))
    fps: float = setting(30.0, Flag("--fps", "Frames a second.", FILES))


@dataclass(frozen=True)
class Sheet(Walking):
    """`sheet`, as typed."""

    count: int = setting(10, Flag("--count", "Of how many directions, from the first.", HOW))


@dataclass(frozen=True)
class Conditional:
    """`conditional`, as typed."""

    model: Model = Model()
    directions: str = setting("", FILE)
    name: str = setting("", Flag("--name", "The direction to change.", HOW))
    without: str = setting("", Flag("--without", "Those that shall stay as they are, as in glasses,gender.", HOW))
    classes: Sequence[int] = setting((), Flag(
        "--class", "For conditional networks, as in `find`.", HOW, parse=parse_classes, metavar="CLASS"))  # fmt: skip
    force: bool = setting(False, Flag("--force", "Take directions that belong to another network.", HOW))
    dest: str = setting("", DEST)


def check_apply(request: Apply) -> None:
    """Raises UserError for what no network could serve."""
    plain = Apply()
    if not request.film and (request.frames, request.fps) != (plain.frames, plain.fps):
        raise UserError("--frames and --fps are for --film; add it, or leave them out")
    if request.film and request.frames < 2:
        raise UserError(f"--frames {request.frames} make no film; use 60 or so")


def check_count(count: int) -> None:
    """Raises UserError for none."""
    if count < 1:
        raise UserError(f"--count {count} is no number of directions; use 1 or more")
