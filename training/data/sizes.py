"""Image sizes: how they are typed, and which of them a growing network can be trained on.

Training starts at a small size, the base, and doubles it again and again. So a size can be trained on if halving it
leads to a base. Imports nothing slow, because the command line needs it for --help.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from torch_utils.errors import UserError

# Limits for the shorter side of the base. Networks begin at 4. Up to 15 admits 9x16 and the like; a larger base would
# not be a coarse beginning, and the number of weights grows with its area.
MIN_BASE, MAX_BASE = 4, 15


class Size(NamedTuple):
    """Pixels. Printed and typed as WIDTHxHEIGHT, as everywhere on the command line."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def typed(self) -> str:
        """The shortest text that `parse_size` reads: "64" for 64x64."""
        return str(self.width) if self.height == self.width else str(self)


def parse_size(text: str) -> Size:
    """ "128" -> 128x128; "192x128" -> 192 wide, 128 high. Raises UserError."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if not match:
        raise UserError(f"Invalid resolution '{text}': expected N or WIDTHxHEIGHT, for example 128 or 192x128")
    return Size(height=int(match[2] or match[1]), width=int(match[1]))


def base_for(height: int, width: int) -> tuple[int, int]:
    """The smallest size, with at least 4 pixels on each side, that doubles up to height x width: (128, 192) -> (4, 6).

    Raises UserError, which names the nearest size that works, unless the base has at most 15 pixels on its shorter
    side and is doubled at least once.
    """
    base = _halved(height, width)
    if base == (height, width) or not MIN_BASE <= min(base) <= MAX_BASE:
        raise UserError(
            f"Images of {width}x{height} cannot be trained on: they must grow by doubling from a base with {MIN_BASE} "
            f"to {MAX_BASE} pixels on the shorter side. The nearest size that works is dataset_tool.py --resolution "
            f"{nearest_size(height, width).typed}"
        )
    return base


def nearest_size(height: int, width: int) -> Size:
    """The size closest to height x width with a base of 4 to 7 pixels on the shorter side. Ties go to the larger.

    Larger bases are allowed but not recommended, because presets count doublings: 96x96 is 6x6 doubled four times and
    trains as 64x64 would, while 88x88 is 11x11 doubled three times and trains as 32x32 would.
    """
    doublings = range(1, max(2, min(height, width).bit_length()))
    candidates = [Size(*(max(MIN_BASE, round(side / 2**k)) << k for side in (height, width))) for k in doublings]
    small = [size for size in candidates if min(_halved(*size)) < 2 * MIN_BASE]
    return min(small, key=lambda size: (abs(size.height - height) + abs(size.width - width), -size.height * size.width))


def power_of_two(side: int) -> int:
    """The largest power of two that is at most `side`, and at least 4."""
    return max(4, 1 << side.bit_length() - 1)


def _halved(height: int, width: int) -> tuple[int, int]:
    """height x width, halved while both sides stay whole and at least 4."""
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= MIN_BASE:
        height, width = height // 2, width // 2
    return height, width
