"""The pictures that a tool starts from, as they are typed: seeds, latent files, photographs. `points.py` opens them.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stylegan.latents.view import WHAT
from stylegan.projection.settings import ProjectionSettings, check_settings
from torch_utils.errors import UserError
from torch_utils.image_names import has_image_suffix
from torch_utils.settings import Flag, setting
from torch_utils.text import parse_classes, parse_seeds, require_no_gaps

LATENTS, DIRECTIONS = ".latent.safetensors", ".direction.safetensors"
Point = int | Path


def is_photograph(path: Path) -> bool:
    return has_image_suffix(path.name)


def parse_points(text: str) -> tuple[Point, ...]:
    """ "0-2,me.latent.safetensors,eva.jpg" -> (0, 1, 2, Path("me.latent.safetensors"), Path("eva.jpg")).

    Raises UserError for what is neither a seed or a range of seeds nor ends like a latent file or a photograph.
    """
    points: list[Point] = []
    require_no_gaps(text)
    for part in (part.strip() for part in text.split(",")):
        if part.lower().endswith(LATENTS) or has_image_suffix(part):
            points.append(Path(part).expanduser())
        elif re.search(r"[./\\]", part) and not re.fullmatch(r"[\d.-]*", part):
            raise UserError(f"'{part}' is neither a latent file (*{LATENTS}) nor a photograph (*.png, *.jpg, *.webp)")
        else:
            points.extend(parse_seeds(part))
    return tuple(points)


STEPS = Flag("--num-steps", "Steps to project photographs into W in; project.py has more to choose from.", WHAT)
FORCE = Flag("--force", "Take files that belong to another network.", WHAT)


@dataclass(frozen=True)
class Start:
    """What to start from. classes: of the pictures of seeds and photographs; latents bring their own."""

    seeds: Sequence[Point] = setting((), Flag(
        "--seeds", "Which pictures: seeds as in 0-35,40, latent files, which are drawn as they are, and photographs.",
        WHAT, parse=parse_points))  # fmt: skip
    classes: Sequence[int] = setting((), Flag(
        "--class", "Class, for conditional networks. Of a list as in 0-9, seed S gets number S, counted round.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    num_steps: int = setting(500, STEPS)
    force: bool = setting(False, FORCE)


def check_steps(num_steps: int) -> None:
    """Raises UserError for a number of steps that projects nothing."""
    check_settings(ProjectionSettings(num_steps=num_steps))
