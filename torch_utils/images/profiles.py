"""What files say of their colours, if not by a profile that Pillow finds: made into a profile, which `colour` applies.

PNG files name their colours in the chunks cICP, or gAMA and cHRM; AVIF and HEIC files in a box nclx; cameras say Adobe
RGB in EXIF only; JPEG 2000 and BMP files hold profiles that Pillow (13.0) does not look for. Sources: PNG (third
edition), ITU-T H.273 for the code points of cICP and nclx, Exif 2.32, ICC.1:2001-04 for the profiles made here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from torch_utils.untrusted import ZIP_ERRORS

NOTE = "taken_as_srgb"
"""Key of `Image.info` for the reason why colours are taken for sRGB, although the file says something else."""
HDR = "HDR colours, taken as they are"
VIDEO = "colours of a video range, taken as they are"
UNKNOWN = "colours of an unknown kind, taken for sRGB"
UNCALIBRATED = "uncalibrated colours without a profile, taken for sRGB"

Point = tuple[float, float]
Primaries = tuple[Point, Point, Point]
Curve = Callable[[np.ndarray], np.ndarray]
"""From stored values to light, both from 0 to 1."""

D65, C, DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
D50 = np.array([0.9642, 1.0, 0.8249])  # XYZ of the white of all profiles
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB: Primaries = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
ADOBE: Primaries = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
P3: Primaries = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
OLD_TV: Primaries = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
NEAR = 0.005  # in x and y
USUAL_GAMMA = 0.45455  # 1 / 2.2, by which files say sRGB
STEPS = 1024  # of the curve in a profile
MAX_PARTS = 10_000  # chunks or boxes that are looked through
_FAILURES = (*ZIP_ERRORS, SyntaxError, TypeError, LookupError)

# Code points of H.273: (name, primaries, white), and curves. 2 is unspecified.
_SPACES: dict[int, tuple[str, Primaries, Point]] = {
    1: ("BT.709", SRGB, D65), 4: ("BT.470 M", ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), C),
    5: ("BT.470 BG", ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65), 6: ("BT.601", OLD_TV, D65),
    7: ("SMPTE 240M", OLD_TV, D65), 9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
    11: ("DCI P3", P3, DCI), 12: ("Display P3", P3, D65), 22: ("EBU 3213", ((0.63, 0.34), (0.295, 0.605),
    (0.155, 0.077)), D65),
}  # fmt: skip


def _srgb_curve(v: np.ndarray) -> np.ndarray:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _power(gamma: float) -> Curve:
    return lambda v: v**gamma


# Television's curves (1, 6, 7, 14, 15) are those of cameras; screens show their values as they show those of sRGB.
_CURVES: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 7, 13, 14, 15), _srgb_curve), 4: _power(2.2), 5: _power(2.8), 8: _power(1.0),
}  # fmt: skip
_HDR_CURVES, _UNSPECIFIED = (16, 18), 2


@dataclass(frozen=True)
class Colours:
    """profile: an ICC profile, empty for sRGB, None if nothing is said     note: why none is made of what is said"""

    profile: bytes | None = None
    note: str = ""


_IS_SRGB = Colours(b"")


def describe(image: Image.Image, content: bytes) -> None:
    """Put a profile into the `info` of an opened image, or a NOTE, if its file says in other ways what its colours are.

    Reads the beginning of the file and decodes nothing.
    """
    grey = image.mode.startswith(("1", "L", "I", "F")) and image.mode != "LAB"
    try:
        found = _colours_of(image, content, grey)
    except _FAILURES:
        return  # a damaged description is none; if the image is damaged, its decoder says so
    if found.profile is not None:
        image.info["icc_profile"] = found.profile
    if found.note:
        image.info[NOTE] = found.note


def _colours_of(image: Image.Image, content: bytes, grey: bool) -> Colours:
    own = "icc_profile" in image.info
    if image.format == "PNG":
        codes = _chunk(content, b"cICP")
        if codes is not None:  # before all others, says PNG
            primaries, curve, matrix, whole = struct.unpack(">BBBB", codes)
            return _by_codes(primaries, curve, matrix, whole, grey)
        if not own and "srgb" not in image.info and ("gamma" in image.info or "chromaticity" in image.info):
            return _by_gamma(image.info, grey)
    if own or "srgb" in image.info:
        return _IS_SRGB if not own else Colours()
    if image.format in ("AVIF", "HEIF"):
        for start, end in _boxes(content, ("meta", "iprp", "ipco", "colr")):
            if content[start : start + 4] == b"nclx" and end - start >= 11:
                primaries, curve = struct.unpack_from(">HH", content, start + 4)
                return _by_codes(primaries, curve, 0, 1, grey)  # matrix and range have been undone by the decoder
    if image.format == "JPEG2000":
        for start, end in _boxes(content, ("jp2h", "colr")):
            if content[start : start + 1] == b"\2":
                return Colours(content[start + 3 : end])
    if image.format == "BMP" and content[70:74] == b"DEBM":  # "MBED" as a little-endian number
        offset, size = struct.unpack_from("<II", content, 126)
        return Colours(content[14 + offset : 14 + offset + size])
    return _by_exif(image, grey)


# What the descriptions mean


def _by_codes(primaries: int, curve: int, matrix: int, whole: int, grey: bool) -> Colours:
    """By the code points of H.273."""
    if curve in _HDR_CURVES:
        return Colours(note=HDR)
    if _UNSPECIFIED in (primaries, curve):
        return Colours()
    if primaries not in _SPACES or curve not in _CURVES or matrix != 0:
        return Colours(note=UNKNOWN)
    if whole != 1:
        return Colours(note=VIDEO)
    name, points, white = _SPACES[primaries]
    if (points is SRGB or grey) and _CURVES[curve] is _srgb_curve:
        return _IS_SRGB
    if curve == 8:
        name = f"linear {name}"
    return Colours(_profile(name, points, white, _CURVES[curve], grey))


def _by_gamma(info: dict[Any, Any], grey: bool) -> Colours:
    """By the chunks gAMA and cHRM. What is usual for sRGB is sRGB, to the last bit."""
    gamma = float(info.get("gamma", USUAL_GAMMA))
    numbers = info.get("chromaticity", (*D65, *SRGB[0], *SRGB[1], *SRGB[2]))
    white, *points = zip(numbers[::2], numbers[1::2], strict=True)
    usual = grey or _near((white, *points), (D65, *SRGB))
    if usual and abs(gamma - USUAL_GAMMA) < 0.005:
        return _IS_SRGB
    if not 0.05 <= gamma <= 5 or not (grey or _plausible((white, *points))):
        return Colours(note=UNKNOWN)
    curve = _power(1 / gamma) if "gamma" in info else _srgb_curve
    name = f"gamma {1 / gamma:.3g}" if "gamma" in info else ""
    name = " and ".join(filter(None, [name, "" if usual else "primaries of its own"]))
    return Colours(_profile(name, SRGB if usual else (points[0], points[1], points[2]), D65 if usual else white, curve,
                            grey))  # fmt: skip


def _by_exif(image: Image.Image, grey: bool) -> Colours:
    """By what cameras write: Adobe RGB has no number of its own, but "R03" as its interoperability index."""
    exif = _exif(image)
    if exif is None:
        return Colours()
    space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
    index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) if space != 1 else ""
    if (isinstance(index, (str, bytes)) and index[:3] in ("R03", b"R03")) or space == 2:
        return Colours(_profile("Adobe RGB (EXIF)", ADOBE, D65, _power(563 / 256), grey))
    numbers = [float(value) for value in exif.get(ExifTags.Base.PrimaryChromaticities, ())]
    points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    wide = len(points) == 3 and not _near(points, SRGB) and not grey
    return Colours(note=UNCALIBRATED if space == 0xFFFF or wide else "")


def _exif(image: Image.Image) -> Image.Exif | None:
    if image.format == "TIFF":
        return image.getexif()
    if not image.info.get("exif"):
        return None  # `getexif` would decode a PNG file to look for more
    exif = Image.Exif()
    exif.load(image.info["exif"])
    return exif


def _near(points: tuple[Point, ...], others: tuple[Point, ...]) -> bool:
    return bool(np.abs(np.subtract(points, others)).max() < NEAR)


def _plausible(points: tuple[Point, ...]) -> bool:
    """Whether these are a white and three primaries that differ enough to span colours."""
    white, *three = points
    area = np.linalg.det([[x, y, 1] for x, y in three])
    return all(0 <= x <= 1 and 0 <= y <= 1 for x, y in three) and abs(area) > 0.01 and min(white) > 0.1


# Where files keep them


def _chunk(content: bytes, name: bytes) -> bytes | None:
    """The content of a chunk of a PNG file that lies before the pixels."""
    at = 8
    for _ in range(MAX_PARTS):
        size, kind = struct.unpack_from(">I4s", content, at)
        if kind == name:
            return content[at + 8 : at + 8 + size]
        if kind in (b"IDAT", b"IEND"):
            return None
        at += size + 12
    return None


def _boxes(content: bytes, path: tuple[str, ...], start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Where the contents of all boxes begin and end that lie on this path of boxes in boxes."""
    end = len(content) if end is None else end
    for _ in range(MAX_PARTS):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", content, start)
        head = 16 if size == 1 else 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, start + 8)
        stop = end if size == 0 else start + size
        if (size and size < head) or stop > end:
            return
        if kind == path[0].encode():
            inside = start + head + (4 if kind == b"meta" else 0)  # which has a version and flags
            if len(path) > 1:
                yield from _boxes(content, path[1:], inside, stop)
            else:
                yield inside, stop
        start = stop


# Profiles


def _profile(name: str, points: Primaries, white: Point, curve: Curve, grey: bool) -> bytes:
    """An ICC profile, version 2. grey: only of the curve"""
    values = np.rint(curve(np.linspace(0, 1, STEPS)).clip(0, 1) * 65535).astype(">u2")
    text = name.encode("ascii", "replace") + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    shape = b"curv\0\0\0\0" + struct.pack(">I", len(values)) + values.tobytes()
    tags = [(b"desc", description), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", _xyz(D50))]
    if grey:
        tags.append((b"kTRC", shape))
    else:
        tags += [(b"rTRC", shape), (b"gTRC", shape), (b"bTRC", shape)]
        columns = _to_d50(points, white).T
        tags += [(kind, _xyz(column)) for kind, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)]
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for kind, data in tags:
        table += kind + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s28x3i48x", offset + len(body), b"", 0x02400000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ ",
        b"acsp", *_fixed(D50),
    )  # fmt: skip
    return header + struct.pack(">I", len(tags)) + table + body


def _to_d50(points: Primaries, white: Point) -> np.ndarray:
    """From linear colours to XYZ, with their white adapted to that of profiles by Bradford's method: [3,3]."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in ((x, max(y, 1e-4)) for x, y in points)]).T
    light = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    matrix = columns * np.linalg.solve(columns, light)
    gains = np.diag((BRADFORD @ D50) / (BRADFORD @ light))
    return np.linalg.solve(BRADFORD, gains @ BRADFORD @ matrix)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *_fixed(values))


def _fixed(values: np.ndarray) -> list[int]:
    """Numbers of 16 bits before and after the point."""
    return np.rint(np.asarray(values) * 65536).astype(int).tolist()
