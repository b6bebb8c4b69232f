"""Crops a face as FFHQ's are: upright, eyes and mouth where they always are (ProGAN, appendix C; StyleGAN, appendix A).

Pure functions of landmarks and pictures; `landmarks.py` finds the landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SUPERSAMPLING = 4
LARGEST = 4096  # pixels on a side of the supersampled crop
TOLERANCE = 0.05  # of the side: how far the corners of an aligned picture's crop are from its own


@dataclass(frozen=True)
class Face:
    """Where the eyes and the corners of the mouth are, in pixels (x, y). Left and right are those of the picture."""

    left_eye: np.ndarray
    right_eye: np.ndarray
    mouth_left: np.ndarray
    mouth_right: np.ndarray


def face_of(landmarks: np.ndarray) -> Face:
    """From the 68 landmarks [68,2] of the iBUG scheme: eyes are the means of their outlines."""
    points = landmarks.astype(np.float64)
    return Face(points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[48], points[54])


def crop_of(face: Face) -> np.ndarray:
    """Corners [4,2] of the square to cut out: top left, bottom left, bottom right, top right (ProGAN, appendix C).

    Its x axis is the mean direction of eye to eye and of mouth to eyes, turned; it is 4 times as wide as the eyes are
    apart, or 3.6 times the way from eyes to mouth; its centre is a tenth of that way below the eyes.
    """
    eyes, mouth = (face.left_eye + face.right_eye) / 2, (face.mouth_left + face.mouth_right) / 2
    across, down = face.right_eye - face.left_eye, mouth - eyes
    x = across + _turned_back(down)
    length = np.linalg.norm(x)
    if not length:
        raise ValueError("these landmarks are all in one place")
    x *= max(2.0 * np.linalg.norm(across), 1.8 * np.linalg.norm(down)) / length
    y = -_turned_back(x)
    centre = eyes + 0.1 * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def is_aligned(crop: np.ndarray, size: tuple[int, int], tolerance: float = TOLERANCE) -> bool:
    """Is the crop [4,2] about the whole of a picture of this width and height, so that nothing is to be done?"""
    width, height = size
    whole = np.array([[0, 0], [0, height], [width, height], [width, 0]], np.float64)
    return bool(np.abs(crop - whole).max() <= tolerance * max(width, height))


def cut_out(image: Image.Image, crop: np.ndarray, size: int) -> Image.Image:
    """The crop [4,2] of an RGB picture, size x size pixels. Beyond the picture's edge it goes on mirrored and blurred.

    Large pictures are reduced first, and the crop is sampled 4 times as finely as needed and then reduced.
    """
    crop = crop.astype(np.float64)
    factor = int(_side(crop) / (2 * size))
    if factor > 1:
        image, crop = image.reduce(factor), crop / factor
    image, crop = _bounded(image, crop)
    fine = min(size * SUPERSAMPLING, max(LARGEST, size))
    # Pillow's coordinates are those of the corners of pixels, as are the landmarks' after the half is added.
    corners = tuple(float(v) for v in (crop + 0.5).flatten())
    image = image.transform((fine, fine), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return image if fine == size else image.resize((size, size), Image.Resampling.LANCZOS)


def _turned_back(v: np.ndarray) -> np.ndarray:
    """By a quarter, so that what points down points right."""
    return np.array([v[1], -v[0]])


def _side(crop: np.ndarray) -> float:
    return float(np.linalg.norm(crop[3] - crop[0]))


def _bounded(image: Image.Image, crop: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Just the part of the picture that the crop needs, with a border made up where there is no picture."""
    margin = max(round(_side(crop) * 0.1), 3)
    low, high = np.floor(crop.min(axis=0)).astype(int) - margin, np.ceil(crop.max(axis=0)).astype(int) + margin
    inner_low, inner_high = np.maximum(low, 0), np.minimum(high, image.size)
    if (inner_high <= inner_low).any():
        raise ValueError("the face is outside of the picture")
    image = image.crop((*inner_low.tolist(), *inner_high.tolist()))
    before, after = inner_low - low, high - inner_high
    if (np.concatenate([before, after]) > margin).any():
        image = _extended(image, before, after, _side(crop))
        return image, crop - low
    return image, crop - inner_low


def _extended(image: Image.Image, before: np.ndarray, after: np.ndarray, side: float) -> Image.Image:
    """Mirrored over its edges by before and after (x, y), ever more blurred outwards, and at last of its median."""
    widths = ((before[1], after[1]), (before[0], after[0]))
    padded = np.pad(np.asarray(image, np.float32), (*widths, (0, 0)), mode="reflect" if min(image.size) > 1 else "edge")
    rows, columns = (_outside(n, *w) for n, w in zip(padded.shape[:2], widths, strict=True))
    depth = np.maximum(rows[:, None], columns[None, :])[:, :, None]
    blurred = gaussian_filter(padded, (0.02 * side, 0.02 * side, 0))
    padded += (blurred - padded) * np.clip(3 * depth + 1, 0, 1)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(depth, 0, 1)
    return Image.fromarray(np.clip(np.rint(padded), 0, 255).astype(np.uint8))


def _outside(length: int, before: int, after: int) -> np.ndarray:
    """How deep each place is in the border, [length]: 0 at its inner edge, 1 at its outer one, below 0 inside."""
    at = np.arange(length)
    return np.maximum(1 - at / max(before, 1), 1 - (length - 1 - at) / max(after, 1))
