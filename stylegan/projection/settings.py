"""The settings of a projection and of pivotal tuning, with their flags.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch_utils.errors import UserError
from torch_utils.settings import Flag, declared, setting

SEARCH = "Search"
SPACES = ("w", "w+")
DISTANCES = ("discriminator", "pixels", "lpips-vgg16", "lpips-alex")
AT_LEAST_2 = ("num_steps", "w_samples", "steps")
SHARES_OF_STEPS = ("lr_rampup", "lr_rampdown", "jitter_until")


@dataclass(frozen=True)
class ProjectionSettings:
    """How latents are searched for. The defaults are those of Karras et al. 2020, appendix D, except the steps."""

    space: Literal["w", "w+"] = setting(
        "w", Flag("--space", "w: one for all layers, good to edit; w+: one for each, from w's result, closer.", SEARCH)
    )
    num_steps: int = setting(500, Flag("--num-steps", "Steps in W; --plus-steps come on top with --space w+.", SEARCH))
    plus_steps: int = setting(500, Flag("--plus-steps", "Steps in W+ that follow, with --space w+.", SEARCH))
    seed: int = setting(0, Flag("--seed", "Seed of the random numbers of the search.", SEARCH))
    lr: float = setting(0.1, Flag("--lr", "Peak learning rate, in deviations of w and of noise.", positive=True))
    plus_lr: float = setting(0.05, Flag("--plus-lr", "The same in W+.", positive=True))
    lr_rampup: float = setting(0.05, Flag("--lr-rampup", "Share of the steps in which the learning rate rises."))
    lr_rampdown: float = setting(0.25, Flag("--lr-rampdown", "Share of the steps in which it falls to 0."))
    jitter: float = setting(0.05, Flag("--jitter", "Noise added to w at the start, in deviations of w."))
    jitter_until: float = setting(0.75, Flag("--jitter-until", "Share of the steps after which none is added."))
    noise_weight: float = setting(1e5, Flag("--noise-weight", "Weight of the regulariser of the noise maps."))
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", Flag("--dtype", "Type of feature maps in the search; auto takes bfloat16 where it is fast.")
    )
    w_samples: int = setting(10000, Flag("--w-samples", "Samples from which the mean and deviation of w come."))


@dataclass(frozen=True)
class TuningSettings:
    """How pivotal tuning changes the network around a pivot (Roich et al. 2021)."""

    steps: int = setting(350, Flag("--pti-steps", "Steps of pivotal tuning.", SEARCH))
    lr: float = setting(3e-4, Flag("--pti-lr", "Learning rate of pivotal tuning.", positive=True))
    pixel_weight: float = setting(
        1.0, Flag("--pti-pixel-weight", "Weight of the mean square error, which is added to the distance.")
    )
    dtype: Literal["float16", "float32"] = setting(
        "float16", Flag("--pti-dtype", "Type in which the change of the weights is stored.")
    )
    maps: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", Flag("--pti-maps", "Type of feature maps while tuning; auto takes bfloat16 where it is fast.")
    )
    locality: float = setting(
        0.0, Flag("--pti-locality", "Weight of keeping images around the pivot as they were; 0 for none.")
    )
    reach: float = setting(1.0, Flag("--pti-reach", "Distance of those images from the pivot, in deviations of w."))


def by_flag(settings: ProjectionSettings | TuningSettings) -> dict[str, Any]:
    """Each setting's value under its flag."""
    return {found.flag.spelling: getattr(settings, found.name) for found in declared(type(settings), {})}


def check_settings(settings: ProjectionSettings | TuningSettings, flags: bool = False) -> None:
    """Raises UserError for numbers that no search can use. flags: whether the message names the flag or the setting."""
    for found in declared(type(settings), {}):
        name, value = found.name, getattr(settings, found.name)
        if not isinstance(value, (int, float)):
            continue
        called = found.flag.spelling if flags else name
        least = 2 if name in AT_LEAST_2 else 0
        if not (math.isfinite(value) and value >= least):
            raise UserError(f"{called} must be at least {least}, got {value:g}")
        if found.flag.positive and not value:
            raise UserError(f"{called} must be more than 0, got 0")
        if name in SHARES_OF_STEPS and value > 1:
            raise UserError(f"{called} is a share of the steps, so it must be from 0 to 1, got {value:g}")
        if fault := found.flag.fault(value):
            raise UserError(f"{called} {value:g} {fault}")
