"""Picture sizes, and where a picture lands in a target of another shape."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch_utils.errors import UserError


@dataclass(frozen=True, order=True)
class Size:
    """Pixels. Written WxH, as everywhere on the command line."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Placement:
    """Take `box` (left, top, right, bottom) of the picture, scale it to `size`, and put it at (`left`, `top`)."""

    box: tuple[int, int, int, int]
    size: Size
    left: int = 0
    top: int = 0


class DoesNotFit(Exception):
    """The rule for cropping cannot make this picture fit; the message says why."""


def parse_size(text: str) -> Size:
    """ "128" -> 128x128; "192x128" -> 192 wide, 128 high. Raises UserError."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if not match:
        raise UserError(f"'{text}' is no resolution; write 128, or 192x128 for width x height")
    return Size(height=int(match[2] or match[1]), width=int(match[1]))


def place(size: Size, target: Size, crop: str, upscale: bool) -> Placement:
    """How a picture of `size` becomes `target` under the rule `crop`: center, fit or none. Raises DoesNotFit.

    Boxes are whole pixels, so that a picture which needs no scaling is copied and not blurred.
    """
    if crop == "none":
        if size != target:
            raise DoesNotFit(f"not {target} (--crop none)")
        return Placement((0, 0, size.width, size.height), target)
    down_w, down_h = size.width / target.width, size.height / target.height
    if not upscale and (max if crop == "fit" else min)(down_w, down_h) < 1:
        raise DoesNotFit(f"smaller than {target} (--upscale enlarges)")
    if crop == "fit":
        down = max(down_w, down_h)
        inner = Size(max(1, round(size.height / down)), max(1, round(size.width / down)))
        left, top = (target.width - inner.width) // 2, (target.height - inner.height) // 2
        return Placement((0, 0, size.width, size.height), inner, left, top)
    down = min(down_w, down_h)
    width, height = max(1, round(target.width * down)), max(1, round(target.height * down))
    left, top = (size.width - width) // 2, (size.height - height) // 2
    return Placement((left, top, left + width, top + height), target)
