"""One image of any kind -> the pixels that the archive stores, or a reason why it cannot be used.

`torch_utils.images` decodes; here an image is cropped and scaled to the size of the archive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from torch_utils.errors import BadImage
from torch_utils.images import centred_box, read_image, with_channels
from torch_utils.images.ranges import Levels
from training.data.importers.rules import Rules
from training.data.sizes import Size

Box = tuple[int, int, int, int]  # left, top, right, bottom
BLUR = 24  # the blurred border's standard deviation is this part of the longer side
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}


@dataclass(frozen=True)
class Target:
    """The format of every image in the archive.

    channels: 1, 3 or 4     rules: of cropping, scaling and transparency     levels: which values are black and white
    """

    size: Size
    channels: int
    rules: Rules = Rules()
    levels: Levels | None = None


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
    image = with_channels(read_image(data, target.levels), target.channels, target.rules.alpha)
    box, size = place(Size(image.height, image.width), target)
    image = image.resize((size.width, size.height), FILTERS[target.rules.resize_filter], box=box)
    if size != target.size:
        image = bordered(image, target)
    return np.array(image).reshape(*target.size, target.channels)


def bordered(image: Image.Image, target: Target) -> Image.Image:
    """An image that is narrower or lower than the target, in its centre, with the border that the rules ask for."""
    to = target.size
    left, top = (to.width - image.width) // 2, (to.height - image.height) // 2
    if target.rules.border == "edge":
        sides = ((top, to.height - image.height - top), (left, to.width - image.width - left))
        pixels = np.asarray(image)
        return Image.fromarray(np.pad(pixels, [*sides, (0, 0)][: pixels.ndim], mode="edge"))
    if target.rules.border == "blur":
        box = centred_box(image.size, (to.width, to.height))
        canvas = image.resize((to.width, to.height), Image.Resampling.BICUBIC, box=box)
        canvas = canvas.filter(ImageFilter.GaussianBlur(max(to) / BLUR))
    else:
        colour = "white" if target.rules.border == "white" else "black" if target.rules.border else None
        canvas = Image.new(image.mode, (to.width, to.height), colour or 0)  # 0 is transparent in RGBA
    canvas.paste(image, (left, top))
    return canvas
