"""What the commands of directions.py ask for, as it is typed. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stylegan.directions.settings import FILE, HOW, Labels, Rank, Search, Walk
from stylegan.start import DIRECTIONS, LATENTS, Start
from stylegan.view import Model, View
from torch_utils.errors import UserError
from torch_utils.output import FILES, GRID
from torch_utils.ranges import parse_classes
from torch_utils.settings import Flag, setting

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
