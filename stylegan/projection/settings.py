"""What a projection is asked to do, as it is typed, and what it says while it is under way and afterwards.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch_utils.errors import UserError
from torch_utils.settings import Flag, leaves, setting

if TYPE_CHECKING:
    from torch import Tensor

SEARCH = "Search"
DISTANCES = ("discriminator", "pixels", "lpips-vgg16", "lpips-alex")
DELTA = ".delta.safetensors"


@dataclass(frozen=True)
class ProjectionSettings:
    """How latents are searched for. The defaults are those of Karras et al. 2020, appendix D, but for the steps."""

    space: Literal["w", "w+"] = setting(
        "w", Flag("--space", "w: one for all layers, good to edit; w+: one for each, from w's result, closer.", SEARCH)
    )
    num_steps: int = setting(500, Flag("--num-steps", "Steps in W; --plus-steps come on top with --space w+.", SEARCH))
    plus_steps: int = setting(500, Flag("--plus-steps", "Steps in W+ that follow, with --space w+.", SEARCH))
    seed: int = setting(0, Flag("--seed", "Of the random numbers in it.", SEARCH))
    lr: float = setting(0.1, Flag("--lr", "Learning rate, at its highest, in deviations of w and of noise."))
    plus_lr: float = setting(0.05, Flag("--plus-lr", "The same in W+."))
    lr_rampup: float = setting(0.05, Flag("--lr-rampup", "Part of the steps in which the learning rate rises."))
    lr_rampdown: float = setting(0.25, Flag("--lr-rampdown", "Part of the steps in which it falls to 0."))
    jitter: float = setting(0.05, Flag("--jitter", "Noise added to w at the start, in deviations of w."))
    jitter_until: float = setting(0.75, Flag("--jitter-until", "Part of the steps after which none is added."))
    noise_weight: float = setting(1e5, Flag("--noise-weight", "How much noise maps are held to being noise."))
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", Flag("--dtype", "Of feature maps while searching; auto takes bfloat16 where it is fast.")
    )
    w_samples: int = setting(10000, Flag("--w-samples", "How many w tell their mean and deviation."))


@dataclass(frozen=True)
class TuningSettings:
    """Pivotal tuning (Roich et al. 2021): how the network is changed around a pivot."""

    steps: int = setting(350, Flag("--pti-steps", "Steps of pivotal tuning.", SEARCH))
    lr: float = setting(3e-4, Flag("--pti-lr", "Learning rate of pivotal tuning."))
    pixel_weight: float = setting(1.0, Flag("--pti-pixel-weight", "Weight of the mean square beside the distance."))
    dtype: Literal["float16", "float32"] = setting(
        "float16", Flag("--pti-dtype", "In what the change of the weights is kept.")
    )
    maps: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", Flag("--pti-maps", "Of feature maps while tuning; auto takes bfloat16 where it is fast.")
    )
    locality: float = setting(
        0.0, Flag("--pti-locality", "Weight of drawing what lies around the pivot as before; 0 for none.")
    )
    reach: float = setting(1.0, Flag("--pti-reach", "How far around it, in deviations of w."))


@dataclass(frozen=True)
class Moment:
    """One step of a search. distances [N] are of the pictures as they were drawn in it, [N,C,H,W]; state() resumes."""

    stage: str
    step: int
    steps: int
    distances: Tensor
    pictures: Tensor
    state: Callable[[], dict[str, Any]]


Watch = Callable[[Moment], None]


@dataclass(frozen=True)
class Report:
    """What came out, per picture: the distance [N] that was made small, the mean square [N], and what it took."""

    distance: Tensor
    mse: Tensor
    steps: int
    seconds: float


def check_settings(settings: ProjectionSettings | TuningSettings) -> None:
    """Raises UserError for numbers that no search could use."""
    for name, value in leaves(settings):
        flag = type(settings).__dataclass_fields__[name].metadata["flag"].spelling
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
            raise UserError(f"{flag} {value:g} is not 0 or more")
        if name in ("num_steps", "w_samples", "steps") and value < 2:
            raise UserError(f"{flag} {value} is too few; use 2 or more")
        if name in ("lr_rampup", "lr_rampdown", "jitter_until") and value > 1:
            raise UserError(f"{flag} {value:g} is a part of the steps: 0 to 1")


def ramp(settings: ProjectionSettings, step: int, steps: int) -> float:
    """The learning rate at a step, as a part of its highest: up in a line, flat, down in a cosine to 0."""
    t = step / steps
    down = min(1.0, (1 - t) / settings.lr_rampdown) if settings.lr_rampdown else 1.0
    up = min(1.0, (step + 1) / steps / settings.lr_rampup) if settings.lr_rampup else 1.0
    return (0.5 - 0.5 * math.cos(down * math.pi)) * up


def jitter(settings: ProjectionSettings, step: int, steps: int) -> float:
    """How much noise is added to w at a step, in deviations of w: falls as a square to 0."""
    if not settings.jitter_until:
        return 0.0
    return settings.jitter * max(0.0, 1 - step / steps / settings.jitter_until) ** 2
