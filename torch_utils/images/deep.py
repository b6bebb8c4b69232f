"""Pixels with more than 8 bits: their exact values, and the bytes that they become by the range of their source."""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile

from torch_utils.errors import BadImage
from torch_utils.images.ranges import BYTES, WHOLE, Levels, Values, fitting, values_of
from torch_utils.text import Range

BLOCK = 1 << 22  # values that are scaled at once, so that no copy of a large image is made

# Pillow keeps the upper bytes of colours with 16 bits. Read with the other order of bytes, they are the lower ones.
_COLOUR16 = re.compile(r"(RGB|RGBA|RGBa|RGBX|CMYK|LA);16([LBN])")
_NATIVE, _FOREIGN = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_OTHER_ORDER = {"L": "B", "B": "L", "N": _FOREIGN}
_SIGNED, _UNSIGNED = 2, 1
_SAMPLE_FORMAT, _BITS_PER_SAMPLE, _PLANES = 339, 258, 284  # tags of TIFF


# What the pixels of a file are


def depth_of(image: Image.Image) -> str:
    """A key of WHOLE for an opened image. It need not be decoded."""
    if image.mode == "F":
        return "floating-point"
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        bits = _first(tags.get(_BITS_PER_SAMPLE, 32))
        signed = _first(tags.get(_SAMPLE_FORMAT, _SIGNED if image.format != "TIFF" else _UNSIGNED)) == _SIGNED
        return f"{'signed ' if signed else ''}{16 if bits == 16 else 32}-bit"
    if image.mode.startswith("I"):
        return "12-bit" if _first(tags.get(_BITS_PER_SAMPLE, 16)) == 12 else "16-bit"
    return "16-bit" if _raw_mode(image) or _first(tags.get(_BITS_PER_SAMPLE, 8)) == 16 else BYTES


def _first(value: object) -> object:
    return value[0] if isinstance(value, tuple) and value else value


def _raw_mode(image: Image.Image) -> re.Match[str] | None:
    """How colours with 16 bits lie in the file; None for all others."""
    tiles = getattr(image, "tile", None) or []
    args = tiles[0].args if tiles else ""
    text = args[0] if isinstance(args, (tuple, list)) and args else args
    return _COLOUR16.fullmatch(text) if isinstance(text, str) else None


@dataclass(frozen=True)
class Deep:
    """Exact values. mode: L, LA, RGB, RGBA or CMYK, as the channels say     values: [H,W] or [H,W,C]"""

    depth: str
    mode: str
    values: np.ndarray

    @property
    def shown(self) -> Values:
        """Its values, without those of alpha. Raises BadImage for infinite ones and for nan."""
        values = values_of(self.values[..., :-1] if self.mode in ("LA", "RGBA") else self.values)
        if not all(map(math.isfinite, values.used)):
            raise BadImage("values that are infinite or no numbers")
        return values


def read_deep(image: Image.Image, content: bytes | np.ndarray) -> Deep:
    """The exact values of an opened image with more than 8 bits. content: of its file. Raises what decoders do.

    Transparency by a key colour becomes alpha.
    """
    depth, raw, key = depth_of(image), _raw_mode(image), image.info.get("transparency")
    if raw is None or getattr(image, "tag_v2", {}).get(_PLANES) == 2:
        if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
            raise BadImage(f"{depth} colours of a kind that Pillow does not read: save it as RGB")
        # libtiff has put the bytes in the order of the machine, of which Pillow does not know.
        image.tile = [  # type: ignore[attr-defined]
            _with_raw(tile, re.sub("(?<=;16|;32)B", "N", _raw_of(tile))) if tile.codec_name == "libtiff" else tile
            for tile in image.tile  # type: ignore[attr-defined]
        ]
        image.load()
        values = np.asarray(image)
        if depth == "32-bit":
            values = values.view(np.uint32)
        elif values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("="))
        mode = "L"
    elif raw[1] == "LA":  # Pillow has no other order of bytes for it, but these are four bytes like any others
        image._mode, image.tile = "RGBA", [_with_raw(tile, "RGBA") for tile in image.tile]  # type: ignore[attr-defined]
        image.load()
        parts = np.asarray(image).astype(np.uint16)
        values, mode = parts[..., 0::2] << 8 | parts[..., 1::2], "LA"
    else:
        assert isinstance(content, bytes)
        colours = raw[1].replace("a", "A")  # what is multiplied by alpha is divided below, in all its bits
        other = Image.open(io.BytesIO(content), formats=[image.format or ""])
        for half, order in ((image, raw[2]), (other, _OTHER_ORDER[raw[2]])):
            half.tile = [_with_raw(tile, f"{colours};16{order}") for tile in half.tile]  # type: ignore[attr-defined]
        values = np.asarray(image).astype(np.uint16) << 8  # decodes it
        values |= np.asarray(other)
        values, mode = _divided(values) if raw[1] == "RGBa" else values, image.mode
    if key is not None and mode in ("L", "RGB"):
        values, mode = _with_key(values, key), f"{mode}A"
    return Deep(depth, mode, values)


def _raw_of(tile: ImageFile._Tile) -> str:
    found = tile.args[0] if isinstance(tile.args, (tuple, list)) else tile.args
    return found if isinstance(found, str) else ""


def _with_raw(tile: ImageFile._Tile, raw_mode: str) -> ImageFile._Tile:
    args = raw_mode if isinstance(tile.args, str) else (raw_mode, *(tile.args or ())[1:])
    return tile._replace(args=args)


def _with_key(values: np.ndarray, key: int | tuple[int, ...] | bytes) -> np.ndarray:
    """With an alpha channel, 0 where the colour is `key`."""
    colours = values.reshape(*values.shape[:2], -1)
    alpha = np.where((colours == np.array(key)).all(-1), 0, np.iinfo(np.uint16).max).astype(values.dtype)
    return np.concatenate([colours, alpha[..., None]], axis=-1)


def _divided(values: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by alpha, the last channel, as they were before."""
    alpha = np.maximum(values[..., -1:].astype(np.float32), 1)
    opaque = (fitting("16-bit", Range(0, int(alpha.max()))) or Range(0, 1)).high
    colours = np.rint(values[..., :-1] * (opaque / alpha)).clip(0, opaque).astype(values.dtype)
    return np.concatenate([colours, values[..., -1:]], axis=-1)


# From values to bytes


def scaled(values: np.ndarray, to: Range) -> np.ndarray:
    """Values -> uint8: to.low and below are 0, to.high and above 255, and between them the nearest.

    Of integers with a whole number of bits the upper eight are kept.
    """
    flat = values.reshape(-1)
    made = np.empty(flat.shape, np.uint8)
    bits = next((bits for bits in range(8, 33) if tuple(to) == (0, 2**bits - 1)), 0)
    for start in range(0, len(flat), BLOCK):
        block = flat[start : start + BLOCK]
        if bits and values.dtype.kind in "iu":
            steps = block.astype(np.int64) >> bits - 8
        else:
            steps = np.rint((block.astype(np.float64) - to.low) * (255 / (to.high - to.low)))
        made[start : start + BLOCK] = steps.clip(0, 255)
    return made.reshape(values.shape)


def made_of(values: Range, to: Range) -> Range:
    """What becomes of the lowest and the highest of some values."""
    low, high = scaled(np.array(values), to).tolist()
    return Range(low, high)


def to_image(deep: Deep, levels: Levels) -> Image.Image:
    """Bytes, in the mode of `deep`. Alpha keeps its own range, opaque being the most that its bits hold.

    Raises BadImage for a depth without a range.
    """
    if deep.depth not in levels.ranges:
        raise BadImage(levels.reasons.get(deep.depth, f"{deep.depth} pixels"))
    to = levels.ranges[deep.depth]
    if deep.mode not in ("LA", "RGBA"):
        return _image_of(scaled(deep.values, to), deep.mode)
    alpha = deep.values[..., -1]
    opaque = fitting(deep.depth, Range(0, int(alpha.max()))) or Range(*WHOLE[deep.depth])
    pixels = np.concatenate([scaled(deep.values[..., :-1], to), scaled(alpha, opaque)[..., None]], axis=-1)
    return _image_of(pixels, deep.mode)


def _image_of(pixels: np.ndarray, mode: str) -> Image.Image:
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())


def spread(image: Image.Image, levels: Levels) -> Image.Image:
    """An image of bytes by the range that was given for bytes; alpha stays."""
    to = levels.ranges.get(BYTES, Range(*WHOLE[BYTES]))
    if tuple(to) == WHOLE[BYTES]:
        return image
    table = list(scaled(np.arange(256), to))
    whole = list(range(256))
    bands = image.getbands()
    return image.point([value for band in bands for value in (whole if band == "A" else table)])
