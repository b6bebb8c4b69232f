"""A sheet of generated pictures, each beside the training pictures nearest to it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from torch_utils.captions import SMALLEST, TEXT
from torch_utils.images import enlarge, grid
from training.metrics.nearest import Neighbours

ROOM = 16  # pixels for words below a picture


def sheet(neighbours: Neighbours, rows: int = 8) -> np.ndarray:
    """uint8 [H,W,3 or 4]: a row for each of the fakes nearest to a real, the most suspect first.

    Below a fake stands its number among the fakes, below a real its number in the archive and its distance, marked (m)
    where the mirror image is meant, and shown. Below the fake stands too how far its nearest is from other reals.
    """
    found = neighbours.found
    order = np.argsort(found.closeness, kind="stable")[:rows]
    cells = []
    for i in order:
        cells.append(_worded(neighbours.fakes[i], f"fake {i}  (reals {found.own[i]:#.3g})"))
        for place, flip, distance in zip(found.places[i], found.mirrored[i], found.distances[i], strict=True):
            real = neighbours.stored[place]
            words = f"{place}{' (m)' if flip else ''}  {distance:#.3g}"
            cells.append(_worded(real[:, :, ::-1] if flip else real, words))
    return grid(cells, 1 + found.places.shape[1], len(order))


def _worded(picture: np.ndarray, words: str) -> np.ndarray:
    """uint8 [C,H,W], enlarged to be seen -> [H',W',3 or 4] with words below."""
    pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
    pixels = enlarge(pixels[None], max(1, math.ceil(1.3 * SMALLEST / pixels.shape[1])))[0]
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    paper = np.full((pixels.shape[0] + ROOM, pixels.shape[1], pixels.shape[2]), 255, np.uint8)
    paper[: pixels.shape[0]] = pixels
    image = Image.fromarray(paper)
    ink = (TEXT,) * 3 + (255,) * (pixels.shape[2] - 3)
    middle = (pixels.shape[1] // 2, pixels.shape[0] + ROOM // 2)
    ImageDraw.Draw(image).text(middle, words, ink, ImageFont.load_default(size=11), anchor="mm")
    return np.asarray(image)
