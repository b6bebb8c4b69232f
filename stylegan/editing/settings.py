"""What can be asked of the search for directions, of latent walks and of films, with the flags of the command line.

Needs nothing of PyTorch, so that `--help` does not wait for it.
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
from torch_utils.settings import Flag, differences, setting
from torch_utils.text import counted, parse_classes


@dataclass(frozen=True)
class Attribute:
    """A question about a picture. relation: "=", "!=", ">" or "<" to `value`; "" takes the column as it is."""

    column: str
    relation: str = ""
    value: str = ""

    def __str__(self) -> str:
        return self.column + self.relation + self.value


def parse_attributes(text: str) -> tuple[Attribute, ...]:
    """ "smile>0.5,yaw" -> questions about two columns. Raises UserError for what is none, and for a column twice."""
    attributes: list[Attribute] = []
    for part in (part.strip() for part in text.split(",")):
        match = re.fullmatch(r"([^=!<>]+?)\s*(?:(=|!=|>|<)\s*([^=!<>]+))?", part)
        if not match:
            raise UserError(f"'{part}' is no attribute; write a column's name, or as in smile>0.5, gender=male, "
                            "glasses!=None")  # fmt: skip
        attributes.append(Attribute(match[1], match[2] or "", match[3] or ""))
        if attributes[-1].relation in (">", "<"):
            _number(attributes[-1])
    names = [attribute.column for attribute in attributes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"'{name}' is asked for {names.count(name)} times; once is enough")
    return tuple(attributes)


def answer(attribute: Attribute, cell: str) -> float:
    """1 or 0, the number of a column that is taken as it is, or nan where the cell is empty or holds no number.

    Raises UserError for a text in a column of numbers.
    """
    cell = cell.strip()
    if not cell:
        return float("nan")
    if attribute.relation in ("=", "!="):
        return float((cell == attribute.value) == (attribute.relation == "="))
    try:
        number = float(cell)
    except ValueError:
        raise UserError(f"'{cell}' in the column '{attribute.column}' is no number; ask for one of its words, as in "
                        f"--attributes {attribute.column}={cell}") from None  # fmt: skip
    if not attribute.relation or number != number:
        return number
    return float(number > _number(attribute) if attribute.relation == ">" else number < _number(attribute))


def _number(attribute: Attribute) -> float:
    try:
        return float(attribute.value)
    except ValueError:
        raise UserError(f"'{attribute}' compares with '{attribute.value}', which is no number") from None


DATA, HOW, THROUGH = "Data", "Search", "Film"
ATTRIBUTES = ".attributes.safetensors"
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
class ClassifierSettings:
    """data: an archive with a table of what its pictures show, of which the last pictures are only used to judge."""

    data: str = setting("", Flag("--data", "Pictures: an archive or a folder.", DATA, metavar="ZIP"))
    table: str = setting("", Flag("--table", "CSV of what each of them shows.", DATA, metavar="CSV"))
    key: str = setting("file", Flag("--key", "The column with the pictures' file names.", DATA))
    attributes: Sequence[Attribute] = setting((), Flag(
        "--attributes", "Which columns to learn, as in smile>0.5,gender=male,yaw.  [all]", DATA,
        parse=parse_attributes))  # fmt: skip
    held_out: int = setting(500, Flag("--held-out", "How many of the last pictures to judge it by.", DATA))
    resolution: int = setting(64, Flag("--resolution", "Size to learn at; pictures are reduced to it.", DATA))
    epochs: int = setting(16, Flag("--epochs", "How often to show each picture."))
    batch: int = setting(64, Flag("--batch", "Pictures in a step."))
    lr: float = setting(0.003, Flag("--lr", "Learning rate at the start; it falls to 0."))
    seed: int = setting(0, Flag("--seed", "Of weights and order."))
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda or cuda:1."))


@dataclass(frozen=True)
class WalkSettings:
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


Space = Literal["z", "w"]
Way = Literal["linear", "cubic", "circular"]
Ease = Literal["none", "sine", "cubic", "quintic"]


def parse_sweep(text: str) -> tuple[float, float]:
    """ "0:1.2" -> (0.0, 1.2). Raises UserError for anything but two numbers."""
    try:
        start, end = (float(part) for part in text.split(":"))
    except ValueError:
        raise UserError(f"'{text}' is no sweep; write FROM:TO, as in 0:1") from None
    for psi in (start, end):
        require_psi(psi, "--psi-sweep")
    return start, end


@dataclass(frozen=True)
class FilmSettings:
    """space: None for w where there is one, else z. psi_sweep: truncation at the start and at the end."""

    space: Space | None = setting(None, Flag(
        "--space", "z turns (slerp); w is straight, w+ included.  [w; ProGAN: z]", THROUGH))  # fmt: skip
    path: Way = setting("linear", Flag(
        "--path", "From keyframe to keyframe straight, in a smooth curve, or on a circle through 3 of them (through 2: "
        "round the average face, or the middle of the averages of their classes).", THROUGH))  # fmt: skip
    loop: bool = setting(False, Flag("--loop", "Come back to the first keyframe. A circle always does.", THROUGH))
    frames: int = setting(60, Flag("--frames", "Frames from one keyframe to the next.", THROUGH))
    ease: Ease = setting("none", Flag("--ease", "Slow down at keyframes, less or more.", THROUGH))
    even: bool = setting(False, Flag(
        "--even-speed", "Make steps equal to the eye: keyframes that differ more get more frames.",
        THROUGH))  # fmt: skip
    psi_sweep: tuple[float, float] | None = setting(None, Flag(
        "--psi-sweep", "Truncation psi from the first frame to the last, as in 0:1; with --loop there and back.",
        THROUGH, parse=parse_sweep, metavar="FROM:TO"))  # fmt: skip

    @property
    def closed(self) -> bool:
        """Does the film end where it began?"""
        return self.loop or self.path == "circular"


def require_frames(film: FilmSettings) -> None:
    """Raises UserError for a film of nothing."""
    if film.frames < 1:
        raise UserError(f"--frames {film.frames} is no number of frames; use 1 or more")


def check_film_settings(film: FilmSettings, keyframes: int) -> None:
    """Raises UserError for what cannot be done with so many keyframes."""
    require_frames(film)
    if film.path == "circular" and keyframes not in (2, 3):
        raise UserError(f"--path circular goes through 2 or 3 keyframes, not {keyframes}; use --path cubic --loop")
    if keyframes < 2 and film.psi_sweep is None:
        raise UserError("a film needs two keyframes; name more with --seeds, or use --psi-sweep")
    if keyframes < 2 and film.path == "cubic":
        raise UserError("--path cubic needs two keyframes; name more with --seeds")
