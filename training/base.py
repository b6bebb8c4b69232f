"""The base: the few pixels from which a network grows by doubling; the one rule on which sizes can be trained."""

from __future__ import annotations

from torch_utils.errors import UserError

# On the shorter side. Down to 4, as the networks begin there. Up to 15, so that 9x16 and its like are possible; a
# larger start would be no start: what a network makes first should be tiny, and its weights grow with the base's area.
SMALLEST, LARGEST = 4, 15


def base_for(height: int, width: int) -> tuple[int, int]:
    """The smallest picture, at least 4 pixels in each direction, that doubles up to height x width: 128x192 -> (4, 6).

    Raises UserError, naming the nearest size that would do, unless it is at most 15 pixels on the shorter side and is
    doubled once at least.
    """
    base = _halved(height, width)
    if base == (height, width) or not SMALLEST <= min(base) <= LARGEST:
        near_height, near_width = nearest_size(height, width)
        typed = near_width if near_width == near_height else f"{near_width}x{near_height}"
        raise UserError(
            f"pictures of {width}x{height} do not grow from a base of {SMALLEST} to {LARGEST} pixels on the shorter "
            f"side by doubling; the nearest size that does is dataset_tool.py --resolution {typed}"
        )
    return base


def nearest_size(height: int, width: int) -> tuple[int, int]:
    """The size closest to height x width with a base of 4 to 7 on the shorter side. Ties go to the larger.

    Smaller bases than are allowed, because presets count doublings: 96x96 is 6x6 doubled four times, and trains as 64
    would, while 88x88 is 11x11 doubled three times, and trains as 32 would.
    """
    doublings = range(1, max(2, min(height, width).bit_length()))
    candidates = [tuple(max(SMALLEST, round(side / 2**k)) << k for side in (height, width)) for k in doublings]
    small = [(h, w) for h, w in candidates if min(_halved(h, w)) < 2 * SMALLEST]
    return min(small, key=lambda size: (abs(size[0] - height) + abs(size[1] - width), -size[0] * size[1]))


def _halved(height: int, width: int) -> tuple[int, int]:
    """height x width, halved while both stay whole and at least 4."""
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= SMALLEST:
        height, width = height // 2, width // 2
    return height, width
