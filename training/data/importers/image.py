"""One image of any kind -> the pixels that the archive stores, or a reason why it cannot be used.

`torch_utils.images` decodes; here an image is cropped and scaled to the size of the archive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from torch_utils.images import BadImage, centred_box, read_image, with_channels
from training.data.importers.rules import Rules
from training.data.sizes import Size

Box = tuple[int, int, int, int]  # left, top, right, bottom
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}


@dataclass(frozen=True)
class Target:
    """The format of every image in the archive. channels: 1, 3 or 4     rules: of cropping, scaling and transparency"""

    size: Size
    channels: int
    rules: Rules = Rules()


def place(size: Size, target: Target) -> tuple[Box, Size]:
    """The part of an image of `size` that is taken, and the size that it gets, which lies centred in the target.

    Raises BadImage where the rules do not allow to crop or scale it to the target.
    """
    to, whole, crop = target.size, (0, 0, size.width, size.height), target.rules.crop
    if crop == "none":
        if size != to:
            raise BadImage(f"not {to} (--crop none)")
        return whole, to
    down_w, down_h = size.width / to.width, size.height / to.height
    if not target.rules.upscale and (max if crop == "fit" else min)(down_w, down_h) < 1:
        raise BadImage(f"smaller than {to} (--upscale enlarges)")
    if crop == "fit":
        down = max(down_w, down_h)
        return whole, Size(max(1, round(size.height / down)), max(1, round(size.width / down)))
    return centred_box((size.width, size.height), (to.width, to.height)), to


def convert_image(data: bytes | np.ndarray, target: Target) -> np.ndarray:
    """Decode, turn upright, convert to the target's channels, crop and scale: uint8 [H,W,C]. Raises BadImage."""
    image = with_channels(read_image(data), target.channels, target.rules.alpha)
    box, size = place(Size(image.height, image.width), target)
    image = image.resize((size.width, size.height), FILTERS[target.rules.resize_filter], box=box)
    if size != target.size:
        canvas = Image.new(image.mode, (target.size.width, target.size.height))  # black, or transparent in RGBA
        canvas.paste(image, ((target.size.width - size.width) // 2, (target.size.height - size.height) // 2))
        image = canvas
    return np.array(image).reshape(*target.size, target.channels)
