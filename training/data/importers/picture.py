"""One picture of whatever kind -> the pixels of the archive, or a reason why not."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from torch_utils.images import open_image
from torch_utils.text import printable
from training.data.importers.geometry import DoesNotFit, Size, place

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
ORIENTATION = 0x0112
# What decoders raise when a file is not what it says it is. They are many, written by many hands.
DECODER_ERRORS = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError, RuntimeError,
    MemoryError, AssertionError, struct.error, zlib.error, lzma.LZMAError, Image.DecompressionBombError,
    zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What every picture of the archive will be. channels: 1, 3 or 4; alpha: drop, white or keep."""

    size: Size
    channels: int
    crop: str = "center"
    alpha: str = "white"
    resize_filter: str = "lanczos"
    upscale: bool = False


class BadPicture(Exception):
    """This picture cannot be used; the message says why, in a few words."""


def open_picture(data: bytes | np.ndarray) -> Image.Image:
    """The first frame, not yet decoded. Raises BadPicture."""
    try:
        image = open_image(data) if isinstance(data, bytes) else Image.fromarray(data)
    except UnidentifiedImageError as error:
        raise BadPicture("empty file" if len(data) == 0 else "not a picture") from error
    except Image.DecompressionBombError as error:
        raise BadPicture("too many pixels (179 million are the most)") from error
    except DECODER_ERRORS as error:
        raise BadPicture(f"broken ({words(error)})") from error
    if image.mode == "F":
        raise BadPicture("floating-point pixels")
    return image


def load(image: Image.Image) -> None:
    """Decode `image` in place. Raises BadPicture."""
    try:
        image.load()
    except DECODER_ERRORS as error:
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        raise BadPicture("truncated" if cut else f"broken ({words(error)})") from error


def is_turned(image: Image.Image) -> bool:
    """Does EXIF say that width and height change places?"""
    try:
        return image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    except DECODER_ERRORS:  # a damaged EXIF block is no reason to lose the picture
        return False


def convert_picture(data: bytes | np.ndarray, target: Target) -> np.ndarray:
    """Decode, turn upright, bring to the target's channels, crop and scale: uint8 [H,W,C]. Raises BadPicture."""
    image = open_picture(data)
    load(image)
    image = _with_channels(_standard(_upright(image)), target)
    try:
        placement = place(Size(image.height, image.width), target.size, target.crop, target.upscale)
    except DoesNotFit as reason:
        raise BadPicture(str(reason)) from reason
    wanted = (placement.size.width, placement.size.height)
    image = image.resize(wanted, FILTERS[target.resize_filter], box=placement.box)
    if placement.size != target.size:
        canvas = Image.new(image.mode, (target.size.width, target.size.height))  # black; transparent where it can be
        canvas.paste(image, (placement.left, placement.top))
        image = canvas
    return np.array(image).reshape(target.size.height, target.size.width, target.channels)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODER_ERRORS:
        return image


def _standard(image: Image.Image) -> Image.Image:
    """Any mode -> L, LA, RGB or RGBA. 16-bit grey keeps its upper eight bits."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 0xFFFF:
            raise BadPicture("32-bit pixels")
        return Image.fromarray((pixels >> 8).astype(np.uint8))
    clear = image.has_transparency_data
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("LA" if clear else "L")
    return image.convert("RGBA" if clear else "RGB")


def _with_channels(image: Image.Image, target: Target) -> Image.Image:
    if image.mode in ("LA", "RGBA") and target.alpha == "white":
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert(MODES[target.channels])


def words(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return printable(text[0][:80]) if text else type(error).__name__
