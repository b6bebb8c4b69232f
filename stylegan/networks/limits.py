"""Which networks a file may ask for. Its config is text, and costs nothing to claim; building what it claims may."""

from __future__ import annotations

import math
from dataclasses import fields

from torch import nn

from stylegan.networks.config import NetworkConfig
from torch_utils.errors import UserError
from torch_utils.untrusted import excess

MOST_PIXELS = 1 << 28  # of an image, 16384x16384
MOST_TAPS, LARGEST_BASE = 64, 1024


def require_buildable(config: NetworkConfig) -> None:
    """Raises UserError, naming the setting, for numbers that no network has. Without this a config could be a bomb."""
    for name, (least, most) in config.LIMITS.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"setting '{name}' is {_short(value)}; networks have {least} to {most}")
    if not all(1 <= side <= LARGEST_BASE for side in config.base):
        raise UserError(
            f"a base of {' by '.join(map(_short, config.base))} pixels cannot be; sides have 1 to {LARGEST_BASE}"
        )
    height, width = config.size(config.resolution)
    if height * width > MOST_PIXELS:
        raise UserError(f"images of {width}x{height} are too large; networks generate up to {MOST_PIXELS:,} pixels")
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name != "base" and isinstance(value, tuple):
            _require_taps(field.name, value)


def _require_taps(name: str, taps: tuple[float, ...]) -> None:
    """A filter: some finite numbers that do not add up to 0, or none at all."""
    if len(taps) > MOST_TAPS or not all(abs(tap) < math.inf for tap in taps) or (taps and not sum(taps)):
        raise UserError(
            f"setting '{name}' has {len(taps)} numbers; up to {MOST_TAPS} are possible, with a sum that is not 0"
        )


def require_affordable(net: nn.Module) -> None:
    """net: on the meta device. Raises UserError, naming the size, for more weights than are taken."""
    count = sum(weight.numel() for weight in net.state_dict().values())
    fault = excess("the network", count, "million_weights")
    if fault:
        raise UserError(fault)


def _short(value: float) -> str:
    """A number of any length, in a few letters."""
    return str(value) if isinstance(value, float) or value.bit_length() < 64 else f"{value.bit_length()} bits long"
