"""One image of any kind -> the pixels that the archive stores, or a reason why it cannot be used.

`torch_utils.images` decodes; here an image is cropped and scaled to the size of the archive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from torch_utils.images import BadImage, centred_box, read_image, with_channels
from training.data.sizes import Size

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}


@dataclass(frozen=True)
class Target:
    """The format of every image in the archive. See `rules.Rules` for the values.

    channels: 1, 3 or 4     crop: center, fit or none     alpha: white, drop or keep     resize_filter: lanczos or box
    """

    size: Size
    channels: int
    crop: str = "center"
    alpha: str = "white"
    resize_filter: str = "lanczos"
    upscale: bool = False


@dataclass(frozen=True)
class Placement:
    """Take `box` (left, top, right, bottom) of the image, scale it to `size`, and put it at (`left`, `top`)."""

    box: tuple[int, int, int, int]
    size: Size
    left: int = 0
    top: int = 0


class DoesNotFit(Exception):
    """The rules do not allow to crop or scale an image to the target; the message says why."""


def place(size: Size, target: Target) -> Placement:
    """How an image of `size` is cropped and scaled to the target. Raises DoesNotFit."""
    to = target.size
    if target.crop == "none":
        if size != to:
            raise DoesNotFit(f"not {to} (--crop none)")
        return Placement((0, 0, size.width, size.height), to)
    down_w, down_h = size.width / to.width, size.height / to.height
    if not target.upscale and (max if target.crop == "fit" else min)(down_w, down_h) < 1:
        raise DoesNotFit(f"smaller than {to} (--upscale enlarges)")
    if target.crop == "fit":
        down = max(down_w, down_h)
        inner = Size(max(1, round(size.height / down)), max(1, round(size.width / down)))
        left, top = (to.width - inner.width) // 2, (to.height - inner.height) // 2
        return Placement((0, 0, size.width, size.height), inner, left, top)
    return Placement(centred_box((size.width, size.height), (to.width, to.height)), to)


def convert_image(data: bytes | np.ndarray, target: Target) -> np.ndarray:
    """Decode, turn upright, convert to the target's channels, crop and scale: uint8 [H,W,C]. Raises BadImage."""
    image = with_channels(read_image(data), target.channels, target.alpha)
    try:
        placement = place(Size(image.height, image.width), target)
    except DoesNotFit as reason:
        raise BadImage(str(reason)) from reason
    scaled = (placement.size.width, placement.size.height)
    image = image.resize(scaled, FILTERS[target.resize_filter], box=placement.box)
    if placement.size != target.size:
        canvas = Image.new(image.mode, (target.size.width, target.size.height))  # black, or transparent in RGBA
        canvas.paste(image, (placement.left, placement.top))
        image = canvas
    return np.array(image).reshape(*target.size, target.channels)
