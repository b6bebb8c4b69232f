"""Which networks a file may ask for. Its config is text, and costs nothing to claim; building what it claims may."""

from __future__ import annotations

import math

from torch import nn

from stylegan.networks.base import ModelConfig
from torch_utils.errors import UserError
from torch_utils.untrusted import excess

WIDEST = 1 << 20  # of any dimension
MOST_PIXELS = 1 << 28  # of a picture, 16384x16384
LARGEST_RESOLUTION = 1 << 14
MOST_LAYERS, MOST_TAPS, MOST_CHANNELS, LARGEST_BASE = 64, 64, 64, 1024

_MOST = {
    "resolution": LARGEST_RESOLUTION, "channels": MOST_CHANNELS, "num_classes": WIDEST, "z_dim": WIDEST,
    "w_dim": 2 * WIDEST, "mapping_layers": MOST_LAYERS, "mapping_dim": WIDEST, "fmap_base": 1 << 30,
    "fmap_max": WIDEST, "d_fmap_max": WIDEST, "mbstd_group": WIDEST, "mbstd_features": WIDEST,
}  # fmt: skip
_MAY_BE_NONE = {"d_fmap_max"}
_MAY_BE_ZERO = {"mbstd_group", "num_classes", "mapping_layers"}


def require_buildable(cfg: ModelConfig) -> None:
    """Raises UserError, naming the setting, for numbers that no network has. Without this a config could be a bomb."""
    for name, most in _MOST.items():
        value = getattr(cfg, name)
        if value is None and name in _MAY_BE_NONE:
            continue
        least = 0 if name in _MAY_BE_ZERO else 1
        if not least <= value <= most:
            raise UserError(f"setting '{name}' is {_short(value)}; networks have {least} to {most}")
    if not all(1 <= side <= LARGEST_BASE for side in cfg.base):
        raise UserError(
            f"a base of {' by '.join(map(_short, cfg.base))} pixels cannot be; sides have 1 to {LARGEST_BASE}"
        )
    height, width = cfg.size(cfg.resolution)
    if height * width > MOST_PIXELS:
        raise UserError(f"pictures of {width}x{height} are too large; networks make up to {MOST_PIXELS:,} pixels")
    taps = cfg.blur
    if len(taps) > MOST_TAPS or not all(abs(tap) < math.inf for tap in taps) or (taps and not sum(taps)):
        raise UserError(f"a blur of {len(taps)} taps is none; it has up to {MOST_TAPS} numbers, and not a sum of 0")
    if not 0 < cfg.mapping_lr_mul < math.inf or not 0 <= cfg.style_mixing <= 1:
        raise UserError("setting 'mapping_lr_mul' or 'style_mixing' is out of range")


def require_affordable(net: nn.Module) -> None:
    """net: on the meta device. Raises UserError, naming the size, for more weights than are taken."""
    count = sum(weight.numel() for weight in net.state_dict().values())
    fault = excess("the network", count, "million_weights")
    if fault:
        raise UserError(fault)


def _short(value: float) -> str:
    """A number of any length, in a few letters."""
    return str(value) if isinstance(value, float) or value.bit_length() < 64 else f"{value.bit_length()} bits long"
