"""Which values become black and white, where pixels have more than 8 bits: decided for a whole source of images.

Cameras, scanners and scripts store 10, 12 or 14 bits in files of 16, and floating-point images with any range; the
files do not say so. The values that all images of a source really use tell it. Decided for each image alone, dark
images would come out as bright as others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from torch_utils.errors import UserError
from torch_utils.text import LevelsRule, Range

BYTES = "8-bit"
WHOLE = {
    BYTES: (0, 255), "12-bit": (0, 2**12 - 1), "16-bit": (0, 2**16 - 1), "32-bit": (0, 2**32 - 1),
    "signed 16-bit": (-(2**15), 2**15 - 1), "signed 32-bit": (-(2**31), 2**31 - 1), "floating-point": (0, 1),
}  # fmt: skip
"""The depths of pixels, and the range of each that --levels full maps to black and white."""
BITS = (8, 10, 12, 14, 16)  # what instruments deliver
DARK = 64  # of 255: an image with next to nothing brighter is hard to see
FLAT = 16  # of 255: an image whose values differ by less is almost one grey
ODD = 1000  # one value in so many may be that of a dead or a hot pixel
SAMPLE = 1 << 18  # values by which that is told


# What an image uses


class Values(NamedTuple):
    """used: the lowest and the highest value     most: the same without the odd ones, one in ODD at either end"""

    used: Range
    most: Range


def values_of(pixels: np.ndarray) -> Values:
    """The values of pixels of any shape, without alpha."""
    flat = pixels.reshape(-1)
    step = -(-len(flat) // SAMPLE)
    step += step > 1 and step % 3 == 0  # or else all would be of one channel
    some = np.sort(flat[::step])
    odd = len(some) // ODD
    return Values(Range(flat.min().item(), flat.max().item()), Range(some[odd].item(), some[-1 - odd].item()))


def is_dark(made: Range) -> bool:
    """Whether an image whose bytes are mostly in this range is hard to see."""
    return made.high < DARK


def is_flat(made: Range) -> bool:
    """Whether such an image is almost one grey."""
    return made.high - made.low < FLAT


# From the values that a source uses to a range for each depth


@dataclass(frozen=True)
class Levels:
    """ranges: for each depth that occurs and can be used     reasons: for each other one, why it cannot"""

    ranges: Mapping[str, Range] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


def widest(used: Iterable[tuple[str, Range]]) -> dict[str, Range]:
    """Per depth the lowest and the highest value of all images. used: (depth, values) of each."""
    found: dict[str, Range] = {}
    for depth, (low, high) in used:
        before = found.get(depth, Range(low, high))
        found[depth] = Range(min(low, before.low), max(high, before.high))
    return found


def decide(used: Mapping[str, Range], rule: LevelsRule) -> Levels:
    """The range that becomes black to white for each depth of a source, whose images use the values `used`.

    auto: bytes as they are; integers by the smallest number of bits, of BITS, that all values fit into; floating-point
    values from 0 to 1, or to 255 if they reach into the upper half of that; values in a narrow band far from black, as
    of instruments that add an offset, by that band, because hardly anything would be left of them otherwise. A range
    that is given holds for bytes too, if all images have them. Raises UserError for a range that would make bytes
    black.
    """
    if rule.range is not None:
        deep = [depth for depth in used if depth != BYTES]
        if not deep and rule.range.high > 255:
            raise UserError(f"--levels {rule}, but these images have 8 bits, and so values up to 255: leave it out")
        own = {BYTES: Range(*WHOLE[BYTES])} if BYTES in used and deep else {}
        return Levels(dict.fromkeys(deep or used, rule.range) | own)
    if rule.name == "full":
        return Levels({depth: Range(*WHOLE[depth]) for depth in used})
    found = {depth: _likely(depth, values) for depth, values in used.items()}
    reasons = {
        depth: f"{depth} pixels from {values.low:g} to {values.high:g}, without a known range: give it with --levels,"
        f" as in --levels {_bound(values.low)}:{_bound(values.high)}"
        for depth, values in used.items()
        if found[depth] is None
    }
    return Levels({depth: range_ for depth, range_ in found.items() if range_ is not None}, reasons)


def _bound(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _likely(depth: str, used: Range) -> Range | None:
    """The range that `auto` takes for these values; None if there is none."""
    fit, width = fitting(depth, used), used.high - used.low
    narrow = depth != BYTES and fit is not None and 0 < width * 255 < FLAT * (fit.high - fit.low)
    return used if narrow and width < used.low else fit


def fitting(depth: str, used: Range) -> Range | None:
    """The range whose number of bits these values fit into; None if that cannot be told."""
    if depth == BYTES:
        return Range(*WHOLE[BYTES])
    if used.low < 0:
        return None
    brightest = [2**bits - 1 for bits in BITS]
    if depth != "floating-point":
        return next((Range(0, white) for white in brightest if used.high <= white), None)
    if used.high <= 1:
        return Range(0, 1)
    return Range(*WHOLE[BYTES]) if 127 < used.high <= 255 else None
