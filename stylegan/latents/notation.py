"""The notation for images and layers, `0-2,me.latent.safetensors,eva.jpg` and `0-3,coarse`, and options for rendering.

Nothing here needs PyTorch, so that command lines can be read without loading it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from stylegan.networks.config import NetworkConfig, NoiseMode, Precision, require_styles
from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting
from torch_utils.text import counted, has_image_suffix, is_image, list_items, parse_seeds, printable, shortened

LATENTS, DIRECTIONS = ".latent.safetensors", ".direction.safetensors"
MAX_PSI = 10
Point = int | Path
"""What an image is generated from: a seed, or the path of a latent file or of a photograph."""
Note = Callable[[str], object]
"""Takes a line for the user."""

# Smallest and largest resolution of the groups of styles in the paper (StyleGAN, figure 3).
PARTS = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, 1 << 30)}
Styles = tuple[int | str, ...]
"""Layers by number, or by a name in PARTS."""


def is_photograph(path: Path) -> bool:
    """Whether this is an image file: by its name, or if that says nothing by its first bytes."""
    return has_image_suffix(path.name) or (not path.name.lower().endswith(LATENTS) and _begins(path) == "image")


def _begins(path: Path) -> str:
    """What an existing file is, by its first bytes: "latents", "image", or "" for any other, and for none."""
    # Not at the top, because --help should not wait for what reads files from elsewhere.
    from torch_utils.untrusted import BEGINNING, IMAGE, SAFETENSORS, recognised

    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            found = recognised(file.read(BEGINNING))[0]
    except (OSError, ValueError):  # the text may be no name at all
        return ""
    return {SAFETENSORS: "latents", IMAGE: "image"}.get(found, "")


def parse_points(text: str, note: Note = lambda text: None) -> tuple[Point, ...]:
    """ "0-2,me.latent.safetensors,eva.jpg" -> (0, 1, 2, Path("me.latent.safetensors"), Path("eva.jpg")).

    A folder stands for the files of `points_in`. note: is told what that leaves out
    Files that exist may have any name but that of a seed: their first bytes tell what they are.

    Raises UserError for a part that is neither a seed, a range of seeds, a folder with such files, nor the name of a
    latent file or photograph.
    """
    points: list[Point] = []
    for part in list_items(text):
        path, named = Path(os.path.expanduser(part)), part.lower().endswith(LATENTS) or has_image_suffix(part)
        seeds = re.fullmatch(r"[\d\s-]*", part)
        if not seeds and path.is_dir():
            points.extend(points_in(path, note))
        elif named or (not seeds and _begins(path)):
            points.append(path)
        elif re.search(r"[./\\]", part) and not re.fullmatch(r"[\d.-]*", part):
            kinds = f"a latent file (*{LATENTS}) nor a photograph (*.png, *.jpg, *.webp) nor a folder of them"
            raise UserError(f"'{part}' is neither {kinds}")
        else:
            points.extend(parse_seeds(part))
    return tuple(points)


def points_in(folder: Path, note: Note) -> list[Path]:
    """The latent files of a folder, in the order of their names; if there are none, its photographs.

    Beside latent files, images are taken for results of them. Raises UserError for a folder without either.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    files = [path for path in entries if path.is_file()]
    latents = [path for path in files if path.name.lower().endswith(LATENTS)]
    found = latents or [path for path in files if is_image(path.name)]
    taken = set(found)
    if not found:
        raise UserError(f"there is neither a latent file (*{LATENTS}) nor a photograph in the folder {folder}")
    rest = [printable(path.name) for path in entries if path not in taken]
    if rest:
        what = counted(len(found), "latent file" if latents else "photograph")
        note(f"{folder}: {what} taken, {len(rest)} left out: {', '.join(rest[:8])}" + ", ..." * (len(rest) > 8))
    return found


def parse_psi(text: str) -> float:
    """ "0.7" -> 0.7. Raises UserError as `require_psi` does, and for text that is not a number."""
    try:
        psi = float(text)
    except ValueError:
        raise UserError(f"Invalid truncation '{text}': expected a number, for example 0.7") from None
    require_psi(psi)
    return psi


def require_psi(psi: float, what: str = "--trunc") -> None:
    """Raises UserError for a truncation psi that is out of range, where images are broken, and for nan."""
    if not abs(psi) <= MAX_PSI:
        raise UserError(f"{what} must be from -{MAX_PSI} to {MAX_PSI}, got {psi:g}; 0.7 is usual, 1 is no truncation")


def parse_styles(text: str) -> Styles:
    """ "0-2,fine" -> (0, 1, 2, "fine"). Raises UserError for text other than layers, ranges, and names in PARTS."""
    styles: list[int | str] = []
    for part in (part.strip() for part in text.lower().split(",")):
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        if part in PARTS:
            styles.append(part)
        elif not match:
            raise UserError(f"Invalid layer '{part}': expected layers as in 0-6, or {', '.join(PARTS)}")
        else:
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise UserError(f"Invalid range {first}-{last}: the first number is larger; write {last}-{first}")
            styles.extend(range(first, last + 1))
    return tuple(styles)


def layers_of(styles: str | Sequence[int | str], config: NetworkConfig, resolution: int | None = None) -> list[int]:
    """The rows of ws that `styles` denote, sorted, for images of `resolution` (default: the largest).

    Raises UserError for layers that the network does not have at that resolution, and for a network without styles.
    """
    require_styles(config)
    resolution = resolution or config.resolution
    last = config.rows_at(resolution) - 1
    used = [config.layers[index] for row in range(last + 1) for index in config.main_layers(row)]
    rows: set[int] = set()
    given = parse_styles(styles) if isinstance(styles, str) else styles
    if not isinstance(given, Iterable):
        raise UserError(f"layers must be text as in '0-3,6' or a list, got {given!r}")
    for style in given:
        if isinstance(style, Integral) and not isinstance(style, bool):
            rows.add(int(style))
            continue
        if not isinstance(style, str) or style not in PARTS:
            name = shortened(repr(style), 80)
            raise UserError(f"{name} is not a layer; give numbers from 0 to {last}, or {', '.join(PARTS)}")
        smallest, largest = PARTS[style]
        found = {layer.row for layer in used if smallest <= layer.resolution <= largest}
        if not found:
            raise UserError(f"there are no {style} styles at {resolution}x{resolution}: they begin at "
                            f"{smallest}x{smallest}; use layers from 0 to {last}")  # fmt: skip
        rows |= found
    missing = sorted(row for row in rows if not 0 <= row <= last)
    if missing:
        raise UserError(f"there is no layer {missing[-1]}: this network has {last + 1} layers at "
                        f"{resolution}x{resolution}, 0 to {last}")  # fmt: skip
    return sorted(rows)


def layer_ranges(layers: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"


# Options


WHAT, HOW = "Images", "Rendering"  # headings of --help


@dataclass(frozen=True)
class NetworkOptions:
    """The network."""

    network: str = setting("", Flag(
        "--network", "Snapshot (.safetensors), published network (.pkl), run directory, URL, or name.", WHAT,
        metavar="MODEL"))  # fmt: skip
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda or cuda:1."))


@dataclass(frozen=True)
class GeneratingOptions(NetworkOptions):
    """The network, and in which number format its images are computed."""

    precision: Precision = setting("fp32", Flag(
        "--precision", "Number format of the convolutions: fp32 is exact, bf16 faster where there is hardware for it, "
        "tf32 and fp16 are for GPUs.", HOW))  # fmt: skip


@dataclass(frozen=True)
class RenderingOptions(GeneratingOptions):
    """The network, and how its images are rendered. None stands for the default of the network."""

    trunc: float | None = setting(None, Flag(
        "--trunc", "Truncation psi: 1 is full variety, less gives better images.  [0.7; networks without w: 1]", HOW,
        parse=parse_psi, metavar="PSI"))  # fmt: skip
    trunc_cutoff: int | None = setting(None, Flag("--trunc-cutoff", "Truncate only the first N layers.", HOW))
    noise_mode: NoiseMode = setting(
        "const", Flag("--noise-mode", "Noise for fine detail: the network's own, drawn from the seed, or none.", HOW)
    )
    resolution: int | None = setting(None, Flag("--resolution", "Render at a lower resolution of the network.", HOW))
    alpha: float | None = setting(None, Flag("--alpha", "Weight of the newest resolution, 0 to 1.", HOW))
    delta: str = setting("", Flag(
        "--delta", "Weights tuned to a photograph: NAME.delta.safetensors of project.py --pti.", HOW,
        metavar="FILE"))  # fmt: skip
