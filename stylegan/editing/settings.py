"""Settings for editing, with their flags: finding directions, moving along them, the classifier, and films.

Nothing here loads PyTorch, so that `--help` does not wait for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stylegan.latents.notation import DIRECTIONS, Styles, parse_styles, require_psi
from torch_utils.errors import UserError
from torch_utils.settings import Flag, declared, differences, setting
from torch_utils.text import Class, counted, parse_classes

DATA, SEARCH, FILM = "Data", "Search", "Film"  # headings of --help
ATTRIBUTES = ".attributes.safetensors"
FILE = Flag("--directions", f"The file (*{DIRECTIONS}).", SEARCH, metavar="FILE")


# Attributes, as they are typed


@dataclass(frozen=True)
class Attribute:
    """A column of a table, compared with a value. relation: "=", "!=", ">" or "<"; "" takes the column as it is."""

    column: str
    relation: str = ""
    value: str = ""

    def __str__(self) -> str:
        return self.column + self.relation + self.value

    @property
    def threshold(self) -> float:
        """The value as a number. Raises UserError if it is not a number."""
        try:
            return float(self.value)
        except ValueError:
            raise UserError(f"'{self}' compares with '{self.value}', which is not a number; write a number, or compare "
                            f"words with {self.column}={self.value}") from None  # fmt: skip


def parse_attributes(text: str) -> tuple[Attribute, ...]:
    """Read "smile>0.5,yaw" as two attributes. Raises UserError for other text, and if a column occurs twice."""
    attributes: list[Attribute] = []
    for part in (part.strip() for part in text.split(",")):
        match = re.fullmatch(r"([^=!<>]+?)\s*(?:(=|!=|>|<)\s*([^=!<>]+))?", part)
        if not match:
            raise UserError(f"Invalid attribute '{part}': expected a column or a comparison, for example smile>0.5, "
                            "gender=male or glasses!=None")  # fmt: skip
        attributes.append(Attribute(match[1], match[2] or "", match[3] or ""))
        if attributes[-1].relation in (">", "<"):
            _ = attributes[-1].threshold
    columns = [attribute.column for attribute in attributes]
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"the attribute '{column}' occurs {columns.count(column)} times; give it once")
    return tuple(attributes)


# Finding directions


Rank = Literal["difference", "gradient"]
Method = Literal["pca", "activations", "sefa", "labels"]
BoundaryMethod = Literal["logistic", "svm"]

SAMPLES: dict[Method, int] = {"pca": 20_000, "activations": 2_000, "sefa": 4_000, "labels": 4_000}
SAMPLES_FOR_GRADIENTS = 500
SAMPLES_FOR_SCALES = 4_000  # a standard deviation to about one part in a hundred
METHODS: dict[str, tuple[Method, ...]] = {
    "count": ("pca", "activations", "sefa"), "layer": ("activations",), "boundary": ("labels",),
    "labels.source": ("labels",), "labels.attributes": ("labels",),
}  # fmt: skip
"""The methods that use a setting of `Search`, if others do not."""


@dataclass(frozen=True)
class Labels:
    """The labels of generated images. classes: of the images, for conditional networks."""

    source: str = setting("", Flag(
        "--labels", "A CSV with a column seed; a folder with sub-folders yes and no into which images named "
        "seed0017.png were sorted; or a file of `learn`, which labels any number of images.", SEARCH,
        metavar="FILE"))  # fmt: skip
    attributes: Sequence[Attribute] = setting((), Flag(
        "--attributes", "Which columns of the CSV, as in smile>0.5,gender=male,yaw.  [all]", SEARCH,
        parse=parse_attributes))  # fmt: skip
    samples: int | None = setting(None, Flag(
        "--samples", "How many random images to use.  [pca: 20000; activations: 2000; by gradient: 500; others: 4000]",
        SEARCH))  # fmt: skip
    classes: Sequence[Class] = setting((), Flag(
        "--class", "Class, for conditional networks. Of a list as in 0-9, seed S gets number S, counted round.", SEARCH,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip

    @property
    def from_classifier(self) -> bool:
        """Whether a classifier, trained by `directions.py learn`, labels the images."""
        return self.source.endswith(".safetensors")


@dataclass(frozen=True)
class Search:
    """Which directions to find, and how."""

    method: Method = setting("pca", Flag(
        "--method", "pca: where w varies most; activations: where the output of a layer varies most; sefa: what "
        "changes styles most; labels: boundaries between images with and without an attribute.", SEARCH))  # fmt: skip
    count: int = setting(10, Flag("--count", "How many to find (labels: one for each attribute).", SEARCH))
    layers: Styles | None = setting(None, Flag(
        "--layers", "Layers that the directions move, as in 0-3 or coarse; sefa analyses their styles.  [all]", SEARCH,
        parse=parse_styles))  # fmt: skip
    layer: int = setting(2, Flag("--layer", "activations: of which layer.", SEARCH))
    boundary: BoundaryMethod = setting("logistic", Flag("--boundary", "labels: the linear classifier.", SEARCH))
    labels: Labels = Labels()


def check_search(search: Search) -> None:
    """Raises UserError for settings that cannot work with any network, and for those that the method does not use."""
    check_labels(search.labels, needed=search.method == "labels")
    flags = {found.name: found.flag.spelling for found in declared(Search, {})}
    for name, _, _ in differences(search, Search(method=search.method)):
        if name in METHODS and search.method not in METHODS[name]:
            methods = " or ".join(METHODS[name])
            raise UserError(f"{flags[name]} is for --method {methods}, not {search.method}; leave it out")
    samples = search.labels.samples
    if search.method == "pca" and samples is not None and samples <= search.count:
        raise UserError(f"--samples {samples} is too few for {counted(search.count, 'direction')}; use some thousand")
    check_count(search.count)


def check_count(count: int) -> None:
    """Raises UserError for fewer than one."""
    if count < 1:
        raise UserError(f"--count must be at least 1, got {count}")


def check_labels(labels: Labels, needed: bool = True) -> None:
    """Raises UserError for labels that are needed and missing, for a missing file, and for a wrong --samples."""
    path, kinds = Path(labels.source), "a CSV with a column seed, a sorted folder, or a file of `directions.py learn`"
    if needed and not labels.source:
        raise UserError(f"--labels is missing: give {kinds}")
    if labels.source and not path.exists():
        raise UserError(f"there is no file or folder {path}; --labels takes {kinds}")
    if labels.samples is not None and labels.samples < 2:
        raise UserError(f"--samples must be at least 2, got {labels.samples}; some thousand are usual")
    if labels.samples is not None and labels.source and not labels.from_classifier:
        raise UserError(f"--samples is for a classifier, and {path} already says which images its labels belong to; "
                        "leave --samples out")  # fmt: skip


@dataclass(frozen=True)
class ClassifierSettings:
    """How to train the classifier. The last images of the data measure its accuracy, and are not learned from."""

    data: str = setting("", Flag("--data", "Images: an archive or a folder.", DATA, metavar="ZIP"))
    table: str = setting("", Flag("--table", "CSV with the attributes of each image.", DATA, metavar="CSV"))
    key: str = setting("file", Flag("--key", "The column with the file names of the images.", DATA))
    attributes: Sequence[Attribute] = setting((), Flag(
        "--attributes", "Which columns to learn, as in smile>0.5,gender=male,yaw.  [all]", DATA,
        parse=parse_attributes))  # fmt: skip
    cache: str = setting("", Flag(
        "--cache", "Folder for the reduced images of --data, in place of the one beside it.", DATA,
        metavar="DIR"))  # fmt: skip
    held_out: int = setting(500, Flag("--held-out", "How many of the last images measure the accuracy.", DATA))
    resolution: int = setting(
        64, Flag("--resolution", "Size to learn at; images are reduced to it.", DATA, positive=True)
    )
    epochs: int = setting(16, Flag("--epochs", "How often to show each image.", positive=True))
    batch: int = setting(64, Flag("--batch", "Images in a step.", positive=True, most=1 << 20))
    lr: float = setting(0.003, Flag("--lr", "Learning rate at the start; it falls to 0.", positive=True))
    seed: int = setting(0, Flag("--seed", "Of weights and order."))
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda or cuda:1."))


def check_classifier(settings: ClassifierSettings) -> None:
    """Raises UserError for numbers with which nothing is learned."""
    for found in declared(ClassifierSettings, {}):
        value = getattr(settings, found.name)
        if found.flag.positive and not 0 < value < math.inf:
            raise UserError(f"{found.flag.spelling} must be more than 0, got {value:g}")
        fault = found.flag.fault(value) if isinstance(value, (int, float)) else ""
        if fault:
            raise UserError(f"{found.flag.spelling} {value:g} {fault}")


# Moving along directions


MAX_STRENGTH = 100.0  # standard deviations; beyond some ten, images fall apart


def parse_strengths(text: str) -> tuple[float, ...]:
    """Read "-2,0,2" as (-2.0, 0.0, 2.0), and "-1:1:3" as (-1.0, 0.0, 1.0). Raises UserError for other text."""
    strengths = [strength for part in text.split(",") for strength in _strengths(part)]
    for strength in strengths:
        require_strength(strength, f"Invalid strengths '{text}': each")
    return tuple(strengths)


def require_strength(strength: float, what: str) -> None:
    """Raises UserError for a strength so large that no image is left, and for nan. what: it, for the message"""
    if not abs(strength) <= MAX_STRENGTH:
        raise UserError(f"{what} must be from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g} standard deviations, got "
                        f"{strength:g}; 1 to 5 is usual")  # fmt: skip


def _strengths(text: str) -> list[float]:
    """Read "-2" as [-2.0], and "-1:1:3" as [-1.0, 0.0, 1.0]."""
    try:
        if ":" not in text:
            return [float(text)]
        first, last, count = text.split(":")
        steps = int(count)
        if not 2 <= steps <= 1000:
            raise UserError(f"Invalid strengths '{text}': the number of steps must be from 2 to 1000, got {steps}")
        return [float(first) + (float(last) - float(first)) * i / (steps - 1) for i in range(steps)]
    except ValueError:
        raise UserError(f"Invalid strengths '{text}': expected numbers, for example -2,0,2, or FIRST:LAST:STEPS, for "
                        "example -3:3:7") from None  # fmt: skip


@dataclass(frozen=True)
class MoveSettings:
    """Which directions to move along, and how far."""

    directions: str = setting("", FILE)
    strengths: tuple[float, ...] = setting((-2.0, -1.0, 0.0, 1.0, 2.0), Flag(
        "--strengths", "How far, in standard deviations: -2,0,2, or from -3 to 3 in 7 steps, -3:3:7.", SEARCH,
        parse=parse_strengths, typed="-2,-1,0,1,2"))  # fmt: skip
    layers: Styles | None = setting(None, Flag(
        "--layers", "Which layers to move, as in 0-3 or coarse.  [as the file says]", SEARCH,
        parse=parse_styles))  # fmt: skip


# Films


Space = Literal["z", "w"]
PathKind = Literal["linear", "cubic", "circular"]
Ease = Literal["none", "sine", "cubic", "quintic"]


def parse_sweep(text: str) -> tuple[float, float]:
    """Read "0:1.2" as (0.0, 1.2). Raises UserError for other text."""
    try:
        start, end = (float(part) for part in text.split(":"))
    except ValueError:
        raise UserError(f"Invalid sweep '{text}': expected FROM:TO, for example 0:1") from None
    for psi in (start, end):
        require_psi(psi, "--psi-sweep")
    return start, end


@dataclass(frozen=True)
class FilmSettings:
    """How a film goes from keyframe to keyframe.

    space: None for w if the network has one, else z   psi_sweep: truncation at the start and at the end
    """

    space: Space | None = setting(None, Flag(
        "--space", "z turns (slerp); w is straight, w+ included.  [w; ProGAN: z]", FILM))  # fmt: skip
    path: PathKind = setting("linear", Flag(
        "--path", "From keyframe to keyframe straight, in a smooth curve, or on a circle through 3 of them (through 2: "
        "round the average face, or the middle of the averages of their classes).", FILM))  # fmt: skip
    loop: bool = setting(False, Flag("--loop", "Come back to the first keyframe. A circle always does.", FILM))
    frames: int = setting(60, Flag("--frames", "Frames from one keyframe to the next.", FILM))
    ease: Ease = setting("none", Flag("--ease", "Slow down at keyframes, less or more.", FILM))
    even: bool = setting(False, Flag(
        "--even-speed", "Make consecutive frames equally different: keyframes that differ more get more frames.",
        FILM))  # fmt: skip
    psi_sweep: tuple[float, float] | None = setting(None, Flag(
        "--psi-sweep", "Truncation psi from the first frame to the last, as in 0:1; with --loop there and back.",
        FILM, parse=parse_sweep, metavar="FROM:TO"))  # fmt: skip

    @property
    def closed(self) -> bool:
        """Whether the film ends where it began."""
        return self.loop or self.path == "circular"


def check_frames(film: FilmSettings) -> None:
    """Raises UserError for a film without frames."""
    if film.frames < 1:
        raise UserError(f"--frames must be at least 1, got {film.frames}")


def check_film_settings(film: FilmSettings, keyframes: int) -> None:
    """Raises UserError if a film of so many keyframes cannot be made."""
    check_frames(film)
    if film.path == "circular" and keyframes not in (2, 3):
        raise UserError(f"--path circular goes through 2 or 3 keyframes, not {keyframes}; use --path cubic --loop")
    if keyframes < 2 and film.psi_sweep is None:
        raise UserError(f"a film needs two keyframes, got {keyframes}; add seeds to --seeds, or use --psi-sweep")
    if keyframes < 2 and film.path == "cubic":
        raise UserError(f"--path cubic needs two keyframes, got {keyframes}; add seeds to --seeds")
