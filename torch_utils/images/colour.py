"""Colour profiles: images in Adobe RGB, Display P3, CMYK and so on become sRGB, which networks expect.

`profiles` makes one for files that say in other ways what their colours are.
"""

from __future__ import annotations

import functools
import io
import itertools

import numpy as np
from PIL import Image, ImageCms

from torch_utils.images.profiles import NOTE
from torch_utils.text import printable, shortened

MAX_PROFILE = 16 << 20  # bytes; those of printers have some 3 MB
NEAR = 2  # of 255: profiles that change no colour by more are sRGB, and images that have them stay as they are
SPACES = {"L": "GRAY", "LA": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}
UNUSABLE = "an unusable profile, ignored"
ROUGH = "CMYK without a profile, converted roughly"
CONVERTED = "converted to sRGB from "
_FAILURES = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def profile_note(image: Image.Image) -> str:
    """What becomes of the colours of an opened image: "" for nothing, CONVERTED and a name, or why they are not."""
    if image.mode == "CMYK" and not image.info.get("icc_profile"):
        return ROUGH
    name, transform = _of(image)
    if transform is not None:
        return CONVERTED + name
    return name if name == UNUSABLE else str(image.info.get(NOTE, ""))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode L, LA, RGB, RGBA or CMYK -> L, LA, RGB or RGBA in sRGB; the same image where its profile says nothing else.

    Relative colorimetric with black point compensation. profile: of the file that the image comes from.
    """
    _, transform = _transform(_plain(profile), image.mode) if profile else ("", None)
    if transform is None:
        return image
    colours = image.convert("L" if image.mode == "LA" else "RGB") if image.mode in ("LA", "RGBA") else image
    found = ImageCms.applyTransform(colours, transform)
    assert found is not None
    grey = image.mode in ("L", "LA")
    found = found.convert("L") if grey else found
    if image.mode in ("LA", "RGBA"):
        found.putalpha(image.getchannel("A"))
    return found


def _of(image: Image.Image) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    profile = image.info.get("icc_profile")
    if not profile:
        return "", None
    mode = image.mode
    if mode == "LAB":
        return "", None
    if mode not in SPACES:
        mode = "L" if mode.startswith(("1", "I", "F", "La")) else "RGB"  # what it is converted to first
    return _transform(_plain(profile), mode)


def _plain(profile: object) -> bytes:
    return profile if isinstance(profile, bytes) and len(profile) <= MAX_PROFILE else b""


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The name of a profile, and what converts images of `mode` to sRGB, None where that would change nothing."""
    colours = {"LA": "L", "RGBA": "RGB"}.get(mode, mode)
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        name = printable(shortened(ImageCms.getProfileDescription(opened).strip(), 60)) or "a profile without a name"
        if opened.profile.xcolor_space.strip() != SPACES[mode]:
            return UNUSABLE, None  # of another colour space than the pixels
        transform = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), colours, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        probe = _probe(colours)
        moved = ImageCms.applyTransform(probe, transform)
    except _FAILURES:
        return UNUSABLE, None
    assert moved is not None
    if colours != "CMYK":
        change = np.abs(np.asarray(moved, np.int16) - np.asarray(probe.convert("RGB"), np.int16))
        if change.max() <= NEAR:
            return name, None
    return name, transform


def _probe(mode: str) -> Image.Image:
    """Colours from all over the space of `mode`, in one row."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    steps = range(0, 256, {1: 1, 3: 51, 4: 85}[channels])
    colours = np.array(list(itertools.product(steps, repeat=channels)), np.uint8)
    return Image.fromarray(colours[None] if channels > 1 else colours.T, mode)
