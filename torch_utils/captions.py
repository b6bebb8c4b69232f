"""A table of pictures with words at the left of its rows and above its columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from torch_utils.images import enlarge, grid

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
