"""Images: read from any file, converted between arrays, tensors and files, and arranged in grids.

Inside the networks images are float in [-1, 1], [N,C,H,W]; outside they are uint8, [H,W,C]. Only this file converts
between the two, and only this file decodes files that come from elsewhere.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from torch_utils.errors import UserError
from torch_utils.text import printable
from torch_utils.untrusted import ZIP_ERRORS

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode for a number of channels
CHANNELS = {mode: channels for channels, mode in MODES.items()}
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
GREY_BITS = (8, 12, 16)

# Pillow decides by the content, not by the name, and knows more than images: EPS files are run by Ghostscript.
FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
# What Pillow is known to raise on damaged files: its decoders were written by many hands.
DECODER_ERRORS = (
    *ZIP_ERRORS, SyntaxError, TypeError, LookupError, MemoryError, AssertionError, Image.DecompressionBombError,
)  # fmt: skip
ORIENTATION = 0x0112  # the EXIF tag
# Above 89 million pixels Pillow warns, above 179 million it refuses. Cameras take images between the two.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Of damaged tags, as in EXIF, it says more than once and in its own words. Either the image can be decoded, and they do
# not matter, or BadImage says why not.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


# Reading: file -> Pillow image in a standard mode -> the channels and the part that a network needs


class BadImage(Exception):
    """An image that cannot be used. The message is the reason, in a few words."""


def read_image(data: bytes | np.ndarray) -> Image.Image:
    """Decode the first frame, turned upright as EXIF says, in mode L, LA, RGB or RGBA. Raises BadImage.

    data: the content of an image file, or uint8 pixels [H,W] or [H,W,C].
    """
    image = open_image(data)
    decode(image)
    try:
        return _standard_mode(_upright(image))
    except DECODER_ERRORS as error:
        raise BadImage(f"cannot be converted ({first_line(error)})") from error


def open_image(data: bytes | np.ndarray) -> Image.Image:
    """Open the first frame without decoding it, so that only its size and mode are known. Raises BadImage.

    data: as in `read_image`.
    """
    if len(data) == 0:
        raise BadImage("empty file")
    Image.init()
    try:
        if isinstance(data, np.ndarray):
            return Image.fromarray(data)
        image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise BadImage("not an image") from error
    except Image.DecompressionBombError as error:
        raise BadImage("more than 179 million pixels") from error
    except DECODER_ERRORS as error:
        raise BadImage(f"broken ({first_line(error)})") from error
    if image.mode == "F":
        raise BadImage("floating-point pixels")
    return image


def decode(image: Image.Image) -> None:
    """Decode the pixels of an opened image, in place. Raises BadImage."""
    try:
        image.load()
    except DECODER_ERRORS as error:
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        raise BadImage("truncated" if cut else f"broken ({first_line(error)})") from error


def is_sideways(image: Image.Image) -> bool:
    """Whether width and height change places when the image is turned upright."""
    try:
        return image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    except DECODER_ERRORS:  # a damaged EXIF block is no reason to reject the image
        return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODER_ERRORS:
        return image


def _standard_mode(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(grey_to_uint8(np.asarray(image)))
    transparent = image.has_transparency_data
    if image.mode in GREY_MODES:
        return image.convert("LA" if transparent else "L")
    return image.convert("RGBA" if transparent else "RGB")


def grey_to_uint8(values: np.ndarray) -> np.ndarray:
    """Grey values with up to 16 bits, in integers of any width -> their upper 8 bits, uint8. Raises BadImage.

    Cameras, scanners and scripts also store values of 12 or 8 bits in 16-bit files, and the files do not say so. So
    the values have the smallest number of bits, of 8, 12 and 16, that the largest value of the image fits into.
    Otherwise such images would be nearly or completely black. The price is that a 16-bit image whose every pixel is
    darker than 1/16 of white becomes brighter.
    """
    smallest, largest = int(values.min()), int(values.max())
    if smallest < 0 or largest >= 1 << GREY_BITS[-1]:
        raise BadImage("32-bit pixels")
    bits = next(bits for bits in GREY_BITS if largest < 1 << bits)
    return (values >> bits - 8).astype(np.uint8)


def with_channels(image: Image.Image, channels: int, alpha: str = "white") -> Image.Image:
    """An image as `read_image` returns it -> mode L, RGB or RGBA for 1, 3 or 4 channels.

    alpha: "white" lays a transparent image on white. "drop" ignores transparency, which shows the colours below it.
    "keep" is for 4 channels.
    """
    if image.mode in ("LA", "RGBA") and alpha == "white":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert(MODES[channels])


def centred_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest part of an image, about its centre, with the aspect ratio of a target: left, top, right, bottom.

    size, target: (width, height), as in Pillow. The box consists of whole pixels, so that an image which needs no
    scaling is copied and not blurred.
    """
    scale = min(size[0] / target[0], size[1] / target[1])
    width, height = max(1, round(target[0] * scale)), max(1, round(target[1] * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def first_line(error: BaseException) -> str:
    """The message of an exception, short enough for a table and safe to print."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:80]) if lines else type(error).__name__


# Arrays, tensors and files


ImageFormat = Literal["png", "jpg", "webp", "npy"]


def to_float(images: Tensor) -> Tensor:
    """uint8 [N,C,H,W] -> float32 in [-1, 1], by the published x / 127.5 - 1."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray:
    """float in [-1, 1] [N,C,H,W] -> uint8 [N,H,W,C] on the CPU, rounded to nearest."""
    pixels = (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_pil(pixels: np.ndarray) -> Image.Image:
    """uint8 [H,W,C] -> an L, RGB or RGBA image for 1, 3 or 4 channels."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encode(pixels: np.ndarray, kind: ImageFormat) -> bytes:
    """uint8 [H,W,C] -> the content of a file. All kinds but jpg are lossless; npy holds the array.

    Raises UserError for a jpg with alpha.
    """
    content = io.BytesIO()
    if kind == "npy":
        np.save(content, pixels)
    elif kind == "png":
        to_pil(pixels).save(content, "PNG")
    elif kind == "webp":
        to_pil(pixels).save(content, "WEBP", lossless=True, exact=True)
    elif pixels.shape[2] == 4:
        raise UserError("JPEG files have no alpha channel. Use png or webp instead of jpg.")
    else:
        to_pil(pixels).save(content, "JPEG", quality=95)
    return content.getvalue()


# Several images in one


MIN_CAPTIONED_WIDTH = 96  # pixels; smaller images are enlarged, because captions need room
TEXT, PAPER = 0, 255


def grid(pixels: np.ndarray | Sequence[np.ndarray], columns: int | None = None, rows: int | None = None) -> np.ndarray:
    """Images [N,H,W,C] side by side, row by row -> [H',W',C]. Missing cells are zero. By default about square."""
    stack = np.asarray(pixels)
    n, h, w, c = stack.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = rows or math.ceil(n / columns)
    cells = np.zeros((rows * columns, h, w, c), np.uint8)
    cells[:n] = stack
    return cells.reshape(rows, columns, h, w, c).transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)


def enlarge(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Repeat each pixel factor x factor times. [N,H,W,C] -> [N,factor*H,factor*W,C]."""
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def captioned(pixels: Sequence[np.ndarray], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """A table of images with a caption for each row and column, in black on white: uint8 [H',W',3 or 4].

    pixels: uint8 [H,W,C] each, row by row. Small images are enlarged by a whole factor. Captions that are too long for
    their column are cut.
    """
    cells = np.asarray(pixels)
    factor = max(1, math.ceil(MIN_CAPTIONED_WIDTH / cells.shape[2]))
    cells = enlarge(cells, factor)
    if cells.shape[3] == 1:
        cells = cells.repeat(3, axis=3)
    _, height, width, channels = cells.shape
    font = ImageFont.load_default(size=max(11, width // 10))
    left = math.ceil(max((font.getlength(row) for row in rows), default=0)) + 12
    top = math.ceil(font.getbbox("Ag")[3]) + 8
    paper = np.full((top + height * len(rows), left + width * len(columns), channels), PAPER, np.uint8)
    paper[top:, left:] = grid(cells, len(columns), len(rows))
    image = Image.fromarray(paper)
    draw = ImageDraw.Draw(image)
    ink = (TEXT,) * 3 + (255,) * (channels - 3)
    for number, row in enumerate(rows):
        draw.text((6, top + number * height + height // 2), row, ink, font, anchor="lm")
    for number, column in enumerate(columns):
        draw.text((left + number * width + width // 2, top // 2), _cut(column, font, width), ink, font, anchor="mm")
    return np.asarray(image)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
