"""Photographs as targets of a projection: any picture file, in the network's size and channels, and what was done."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.notation import is_photograph
from torch_utils.errors import UserError
from torch_utils.images import open_image, to_float

Align = Callable[[Image.Image], tuple[Image.Image, str]]
"""An RGB picture -> the face in it, and what was done, in words. Raises UserError where there is none."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_WORDS = {1: "grey", 3: "RGB", 4: "RGBA"}
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_DECODER_ERRORS = (OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError,
                   RuntimeError, MemoryError, AssertionError, NotImplementedError, struct.error, zlib.error,
                   Image.DecompressionBombError)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A target. name: good for a file   pixels: uint8 [H,W,C]   notes: what was done to it"""

    name: str
    path: Path
    pixels: np.ndarray
    notes: tuple[str, ...]


def photos_in(target: Path) -> list[Path]:
    """The file itself, or the pictures of a folder in the order of their names. Raises UserError if there is none."""
    if target.is_dir():
        found = sorted(path for path in target.iterdir() if path.is_file() and is_photograph(path))
        if not found:
            raise UserError(f"there is no picture in {target}; give a folder with PNG, JPEG or WebP files, or one file")
        return found
    if not target.is_file():
        raise UserError(f"there is no file or folder {target}")
    return [target]


def read_photos(
    paths: Sequence[Path], snapshot: Snapshot, align: Align | None = None
) -> tuple[list[Photo], dict[Path, str]]:
    """The photographs that can be read, their names all different, and of each other one why not."""
    photos: list[Photo] = []
    faults: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        try:
            pixels, notes = read_photo(path, snapshot, align)
        except UserError as error:
            faults[path] = str(error)
            continue
        stem = "".join(letter if letter.isprintable() and letter not in ":\\" else "_" for letter in path.stem)
        stem = stem if stem.strip(". ") else "photo"
        name, number = stem, 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        photos.append(Photo(name, path, pixels, notes))
    return photos, faults


def as_targets(photos: Sequence[Photo]) -> Tensor:
    """[N,C,H,W] in [-1, 1]."""
    return to_float(torch.from_numpy(np.stack([photo.pixels for photo in photos])).permute(0, 3, 1, 2))


def read_photo(path: Path, snapshot: Snapshot, align: Align | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 [H,W,C] of the size that the network draws, and what was done to the photograph. Raises UserError."""
    height, width = snapshot.config.size(snapshot.stage.resolution)
    image = _opened(path)
    notes: list[str] = []
    if align is not None:
        image, said = align(_in_mode(image, "RGB"))
        notes.append(said)
    image, said = _with_channels(image, snapshot.config.channels)
    notes.append(said)
    image, said = fitted(image, width, height)
    notes.append(said)
    return np.array(image).reshape(height, width, snapshot.config.channels), tuple(filter(None, notes))


def fitted(image: Image.Image, width: int, height: int) -> tuple[Image.Image, str]:
    """Cut to the aspect about its centre, then resized: by averaging if it is a whole number of times larger."""
    if image.size == (width, height):
        return image, ""
    scale = min(image.width / width, image.height / height)
    cut_w, cut_h = min(image.width, max(1, round(width * scale))), min(image.height, max(1, round(height * scale)))
    left, top = (image.width - cut_w) // 2, (image.height - cut_h) // 2
    whole = cut_w % width == 0 and cut_h % height == 0
    by = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
    said = f"{image.width}x{image.height} "
    if (cut_w, cut_h) != image.size:
        said += f"cut to {cut_w}x{cut_h} "
    image = image.crop((left, top, left + cut_w, top + cut_h)).resize((width, height), by)
    return image, f"{said}resized to {width}x{height}"


def _opened(path: Path) -> Image.Image:
    """Decoded and upright. Raises UserError."""
    try:
        with open_image(path) as file:
            file.load()
            image = ImageOps.exif_transpose(file)
    except _DECODER_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no picture, or a broken one"
        if isinstance(error, Image.DecompressionBombError):
            reason = "too many pixels; make it smaller first"
        raise UserError(f"{path}: {reason}") from error
    return image


def _with_channels(image: Image.Image, channels: int) -> tuple[Image.Image, str]:
    grey = image.mode in _GREY
    has_alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    if channels == 4:
        return _in_mode(image, "RGBA"), "" if has_alpha else f"{'grey' if grey else 'RGB'} made RGBA"
    said = []
    if has_alpha:
        picture = _in_mode(image, "RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), picture)
        said.append("laid on white")
    if grey != (channels == 1):
        said.append(f"{'grey' if grey else 'colour'} made {_WORDS[channels]}")
    return _in_mode(image, _MODES[channels]), ", ".join(said)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Converted; grey of 16 bits by its upper half, which Pillow would clip."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        image = Image.fromarray(np.clip(values / (257 if values.max() > 255 else 1), 0, 255).round().astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
