"""Pictures from elsewhere, opened by the decoders that pictures need, and by no others."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from torch_utils.errors import UserError

# Pillow goes by content, not by name, and knows more than pictures: EPS, for one, it hands to a Ghostscript program.
FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
# Above 89 million pixels Pillow warns, above 179 million it refuses. The second suffices: cameras make the first.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(source: Path | bytes) -> Image.Image:
    """The first frame, not yet decoded; `load` does that. Raises what Pillow does, and OSError for what is no file."""
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise OSError("it is no file")
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=known)


# Pictures: float in [-1, 1] and NCHW inside, uint8 and HWC outside. Converted here and nowhere else


PictureFormat = Literal["png", "jpg", "webp", "npy"]


def to_float(images: Tensor) -> Tensor:
    """uint8 [N,C,H,W] -> float32 in [-1, 1], by the published x / 127.5 - 1."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray:
    """float in [-1, 1] [N,C,H,W] -> uint8 [N,H,W,C] on the CPU, rounded to nearest."""
    pixels = (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_pil(pixels: np.ndarray) -> Image.Image:
    """uint8 [H,W,C] -> an L, RGB or RGBA picture for 1, 3 or 4 channels."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encode(pixels: np.ndarray, kind: PictureFormat) -> bytes:
    """uint8 [H,W,C] -> the content of a file: lossless but for jpg; npy holds the array as it is.

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
        raise UserError("jpg holds no alpha channel; use png or webp")
    else:
        to_pil(pixels).save(content, "JPEG", quality=95)
    return content.getvalue()


def grid(pixels: np.ndarray | Sequence[np.ndarray], columns: int | None = None, rows: int | None = None) -> np.ndarray:
    """Pictures [N,H,W,C] side by side, row by row; missing cells are zero. By default about square. -> [H',W',C]."""
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


# A table of pictures with words at the left of its rows and above its columns


SMALLEST = 96  # pictures are enlarged to this width or so, as words need room
TEXT, PAPER = 0, 255


def captioned(pixels: Sequence[np.ndarray], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """Pictures uint8 [H,W,C], row by row, one for each pair -> one picture [H',W',3 or 4], black words on white.

    Small pictures are enlarged by a whole factor. Words too long for their column are cut.
    """
    cells = np.asarray(pixels)
    factor = max(1, math.ceil(SMALLEST / cells.shape[2]))
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
