"""Images: read from any file, converted between arrays, tensors and files, and arranged in grids.

Inside the networks images are float in [-1, 1], [N,C,H,W]; outside they are uint8, [H,W,C]. Only this file converts
between the two, and only this file decodes files that come from elsewhere.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from torch import Tensor

from torch_utils.errors import BadImage as BadImage
from torch_utils.errors import UserError
from torch_utils.images.colour import to_srgb
from torch_utils.images.deep import Deep, depth_of, read_deep, spread, to_image
from torch_utils.images.profiles import describe
from torch_utils.images.ranges import BYTES, Levels, Values, decide, values_of
from torch_utils.text import AUTO_LEVELS, printable
from torch_utils.untrusted import ZIP_ERRORS

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode for a number of channels
CHANNELS = {mode: channels for channels, mode in MODES.items()}
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"})

# Pillow decides by the content, not by the name, and knows more than images: EPS files are run by Ghostscript.
FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
# What Pillow is known to raise on damaged files: its decoders were written by many hands.
DECODER_ERRORS = (
    *ZIP_ERRORS, SyntaxError, TypeError, LookupError, MemoryError, AssertionError, Image.DecompressionBombError,
)  # fmt: skip
ORIENTATION = 0x0112  # the EXIF tag
TURNS = dict(enumerate((
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
), start=2))  # fmt: skip
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands, in the first box of the file
NEEDS_HEIF = "HEIC, which needs the package pillow-heif: pip install pillow-heif"
BAND_PIXELS = 1 << 22  # larger images are converted in bands, so that at most one copy is made
# Above 89 million pixels Pillow warns, above 179 million it refuses. Cameras take images between the two.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Of damaged tags, as in EXIF, it says more than once and in its own words. Either the image can be decoded, and they do
# not matter, or BadImage says why not.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


# Reading: file -> Pillow image in a standard mode -> the channels and the part that a network needs


def read_image(data: bytes | np.ndarray, levels: Levels | None = None) -> Image.Image:
    """Decode the first frame, turned upright as EXIF says, in sRGB, in mode L, LA, RGB or RGBA. Raises BadImage.

    data: the content of an image file, or uint8 pixels [H,W] or [H,W,C].
    levels: which values become black and white, for the source of the image; by default this image is all of it.
    """
    image = open_image(data)
    if depth_of(image) == BYTES:
        decode(image)
        found = image
    else:
        deep = exact(image, data)
        found = to_image(deep, levels or decide({deep.depth: deep.shown.used}, AUTO_LEVELS))
    return finished(found, image, levels)


def finished(found: Image.Image, image: Image.Image, levels: Levels | None = None) -> Image.Image:
    """Decoded pixels of an opened image as `read_image` returns them. Raises BadImage."""
    try:
        found = _upright(found, _orientation(image))
        profile = image.info.get("icc_profile")
        found = found if found.mode == "CMYK" and profile else _standard_mode(found)
        if levels and depth_of(image) == BYTES and found.mode != "CMYK":
            found = spread(found, levels)
        return _standard_mode(to_srgb(found, profile))
    except DECODER_ERRORS as error:
        raise BadImage(f"cannot be converted ({first_line(error)})") from error


def open_image(data: bytes | np.ndarray) -> Image.Image:
    """Open the first frame without decoding it, so that only its size and mode are known. Raises BadImage.

    data: as in `read_image`.
    """
    if len(data) == 0:
        raise BadImage("empty file")
    Image.init()
    _open_heif()
    try:
        if isinstance(data, np.ndarray):
            return Image.fromarray(data)
        image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        assert isinstance(data, bytes)
        raise BadImage(_unknown(data)) from error
    except Image.DecompressionBombError as error:
        raise BadImage("more than 179 million pixels") from error
    except DECODER_ERRORS as error:
        raise BadImage(f"broken ({first_line(error)})") from error
    describe(image, data)
    return image


@functools.cache
def _open_heif() -> None:
    """Let Pillow read HEIC files, the photographs of phones, if pillow-heif is installed."""
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()


def _unknown(data: bytes) -> str:
    """Why no decoder takes this file."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIC and "HEIF" not in Image.OPEN:
        return NEEDS_HEIF
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis") and "AVIF" not in Image.OPEN:
        return "AVIF, which this Pillow does not read: pip install --upgrade pillow"
    if data[:4] in TIFFS:
        return "a kind of TIFF that Pillow does not read: save it as RGB or grey with 8 or 16 bits"
    return "not an image"


def decode(image: Image.Image) -> None:
    """Decode the pixels of an opened image, in place. Raises BadImage."""
    try:
        image.load()
    except DECODER_ERRORS as error:
        raise BadImage(_damage(error)) from error


def exact(image: Image.Image, data: bytes | np.ndarray) -> Deep:
    """Decode an opened image with more than 8 bits. data: as it was opened from. Raises BadImage."""
    try:
        return read_deep(image, data)
    except DECODER_ERRORS as error:
        raise BadImage(_damage(error)) from error


def _damage(error: BaseException) -> str:
    cut = "truncated" in str(error) or isinstance(error, EOFError)
    return "truncated" if cut else f"broken ({first_line(error)})"


def shown_values(image: Image.Image) -> Values:
    """The values of a decoded image with 8 bits, without those of alpha."""
    if image.mode not in CHANNELS and image.mode != "LA":
        image = image.convert("L" if image.mode in GREY_MODES else "RGB")
    pixels = np.asarray(image)
    return values_of(pixels if image.mode == "L" else pixels[..., : 1 if image.mode == "LA" else 3])


def frames_of(image: Image.Image) -> int:
    """How many images an opened file has: frames, pages, the halves of a stereo photograph, a gain map.

    Previews, which cameras hide in JPEG files, do not count.
    """
    try:
        if image.format in ("MPO", "JPEG"):
            kinds = [each["Attribute"]["MPType"] for each in (image._getmp() or {}).get(0xB002, [])]  # type: ignore[attr-defined]
            return max(1, sum(not kind.startswith("Large Thumbnail") for kind in kinds))
        return int(getattr(image, "n_frames", 1))
    except DECODER_ERRORS:  # the first frame may still be intact
        return 1


def is_sideways(image: Image.Image) -> bool:
    """Whether width and height change places when the image is turned upright."""
    return _orientation(image) in (5, 6, 7, 8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except DECODER_ERRORS:  # a damaged EXIF block is no reason to reject the image
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _standard_mode(image: Image.Image) -> Image.Image:
    transparent = image.has_transparency_data
    mode = ("LA" if transparent else "L") if image.mode in GREY_MODES else "RGBA" if transparent else "RGB"
    return image if image.mode == mode else image.convert(mode)


def with_channels(image: Image.Image, channels: int, alpha: str = "white") -> Image.Image:
    """An image as `read_image` returns it -> mode L, RGB or RGBA for 1, 3 or 4 channels.

    alpha: "white" lays a transparent image on white. "drop" ignores transparency, which shows the colours below it.
    "keep" is for 4 channels.
    """
    mode = MODES[channels]
    if image.width * image.height <= BAND_PIXELS:
        return _with_mode(image, mode, alpha)
    whole = Image.new(mode, image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(_with_mode(band, mode, alpha), (0, top))
    return whole


def _with_mode(image: Image.Image, mode: str, alpha: str) -> Image.Image:
    if image.mode in ("LA", "RGBA") and alpha == "white":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert(mode)


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


def as_uint8(images: Tensor) -> Tensor:
    """float in [-1, 1] [N,C,H,W] -> uint8 [N,H,W,C] on the same device, rounded to nearest."""
    pixels = (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous()


def to_uint8(images: Tensor) -> np.ndarray:
    """The same on the CPU, as an array."""
    return as_uint8(images).cpu().numpy()


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
