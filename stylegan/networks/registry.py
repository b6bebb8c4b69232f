"""All families of networks, and networks built from their configs, also from configs of untrusted files.

To add a family, write its file and list it in `FAMILIES` (docs/families.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from torch import nn

from stylegan.networks import dcgan, progan, stylegan1, stylegan2_discriminator
from stylegan.networks.base import Discriminator, Family, Generator
from stylegan.networks.config import NetworkConfig
from torch_utils.device import without_contents
from torch_utils.errors import UserError
from torch_utils.settings import from_plain
from torch_utils.untrusted import excess

FAMILIES: Mapping[str, Family[Any]] = {
    family.name: family for family in (stylegan1.FAMILY, progan.FAMILY, dcgan.FAMILY, stylegan2_discriminator.FAMILY)
}

Network = TypeVar("Network", bound=nn.Module)


def family_of(name: str) -> Family[Any]:
    """The family called `name`. Raises UserError if there is none."""
    if name not in FAMILIES:
        raise UserError(f"unknown network family {name[:40]!r}; this version has {', '.join(FAMILIES)}")
    return FAMILIES[name]


def config_from_json(data: Any, name: str = "") -> NetworkConfig:
    """A config of the family that the data of `to_json` name. Raises UserError as `from_plain` does, below `name`."""
    family = data.get("family", stylegan1.FAMILY.name) if isinstance(data, Mapping) else stylegan1.FAMILY.name
    if not isinstance(family, str):
        raise UserError(f"setting '{f'{name}.' if name else ''}family' must be the name of a network family")
    config: NetworkConfig = from_plain(family_of(family).config, data, name)
    return config


def build_generator(config: NetworkConfig) -> Generator:
    """The generator of the config's family, with fresh weights."""
    G: Generator = family_of(config.family).generator(config)
    return G


def build_discriminator(config: NetworkConfig) -> Discriminator:
    """The discriminator of the config's family, with fresh weights."""
    D: Discriminator = family_of(config.family).discriminator(config)
    return D


# Configs from files, which cost nothing to claim a network that costs everything to build


MAX_PIXELS = 1 << 28  # of an image, 16384x16384
MAX_TAPS = 64  # of a filter
MAX_BASE = 1024


def build_empty(build: Callable[[NetworkConfig], Network], config: NetworkConfig) -> Network:
    """Builds a network without contents, on the meta device, for the weights of a file. It takes no memory.

    Raises UserError as `require_buildable` does, and for more weights than STYLEGAN_LIMITS allows.
    """
    require_buildable(config)
    with without_contents():
        net = build(config)
    fault = excess("the network", sum(weight.numel() for weight in net.state_dict().values()), "million_weights")
    if fault:
        raise UserError(fault)
    return net


def require_buildable(config: NetworkConfig) -> None:
    """Raises UserError, naming the setting, for values with which building a network could take all time or memory."""
    for name, (least, most) in config.LIMITS.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"setting '{name}' must be from {least} to {most}, got {_short(value)}")
    if not all(1 <= side <= MAX_BASE for side in config.base):
        sides = "x".join(map(_short, config.base))
        raise UserError(f"setting 'base' must have sides from 1 to {MAX_BASE}, got {sides}")
    height, width = config.size(config.resolution)
    if height * width > MAX_PIXELS:
        raise UserError(f"images of {width}x{height} are too large; networks generate up to {MAX_PIXELS:,} pixels")
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name != "base" and isinstance(value, tuple):
            _require_taps(field.name, value)


def _require_taps(name: str, taps: tuple[float, ...]) -> None:
    """Raises UserError unless these are a filter: finite numbers whose sum is not 0; or no filter."""
    if len(taps) > MAX_TAPS or not all(abs(tap) < math.inf for tap in taps) or (taps and not sum(taps)):
        raise UserError(
            f"setting '{name}' must be up to {MAX_TAPS} finite numbers with a sum other than 0, got {len(taps)} numbers"
        )


def _short(value: float) -> str:
    """A number that may have thousands of digits, for a message."""
    return str(value) if isinstance(value, float) or value.bit_length() < 64 else f"{value.bit_length()} bits"
