"""Colours with a profile become sRGB; those that are sRGB already keep their bits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from torch_utils.images import open_image, read_image
from torch_utils.images.colour import UNUSABLE, profile_note, to_srgb

PROFILES = Path(__file__).parents[2] / "data/profiles"
WIDE, GREY, INKS = ((PROFILES / f"{name}.icc").read_bytes() for name in ("wide", "grey", "inks"))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED_IN_WIDE, RED = (200, 80, 60), (230, 79, 56)


def file(image: Image.Image, profile: bytes, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, icc_profile=profile, **options)
    return content.getvalue()


@pytest.mark.parametrize(("kind", "options"), [
    ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0}),
])  # fmt: skip
def test_wide_colours_become_those_of_srgb_in_every_kind_of_file(kind: str, options: dict[str, object]) -> None:
    content = file(Image.new("RGB", (8, 8), RED_IN_WIDE), WIDE, kind, **options)
    np.testing.assert_allclose(np.asarray(read_image(content))[4, 4], RED, atol=3 if kind == "JPEG" else 0)
    assert profile_note(open_image(content)) == "converted to sRGB from Wide colours"


def test_alpha_palettes_and_orientation_are_kept() -> None:
    clear = Image.new("RGBA", (2, 2), (*RED_IN_WIDE, 9))
    assert np.asarray(read_image(file(clear, WIDE)))[0, 0].tolist() == [*RED, 9]
    palette = Image.new("RGB", (2, 3), RED_IN_WIDE).quantize(2)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_image(file(palette, WIDE, exif=exif))
    assert found.size == (3, 2) and np.asarray(found)[0, 0].tolist() == list(RED)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_stays_grey(mode: str) -> None:
    image = Image.new("I;16", (2, 2), 55 << 8) if mode == "I;16" else Image.new("L", (2, 2), 55).convert(mode)
    if mode == "I;16":
        image.putpixel((0, 0), 65535)
    content = file(image, GREY)
    found = read_image(content)
    assert found.mode == ("LA" if mode == "LA" else "L")
    assert np.asarray(found.getchannel(0))[1, 1] == (0 if mode == "1" else 128)
    assert profile_note(open_image(content)) == "converted to sRGB from Linear grey"


def test_inks_become_what_their_profile_says() -> None:
    for inks, expected in (((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), (255,) * 3)):
        for kind in ("TIFF", "JPEG"):
            found = read_image(file(Image.new("CMYK", (8, 8), inks), INKS, kind))
            assert found.mode == "RGB"
            np.testing.assert_allclose(np.asarray(found)[4, 4], expected, atol=4 if kind == "JPEG" else 1)


def test_srgb_keeps_its_bits() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (9, 9, 3), np.uint8)
    content = file(Image.fromarray(pixels), SRGB)
    np.testing.assert_array_equal(np.asarray(read_image(content)), pixels)
    assert profile_note(open_image(content)) == ""
    image = Image.fromarray(pixels)
    assert to_srgb(image, SRGB) is image and to_srgb(image, None) is image


@pytest.mark.parametrize("profile", [b"x", WIDE[:200], GREY, INKS, b"\0" * 5000, WIDE[:128] + bytes(400)])
def test_profiles_that_do_not_fit_are_ignored_and_noted(profile: bytes) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (9, 9, 3), np.uint8)
    content = file(Image.fromarray(pixels), profile)
    np.testing.assert_array_equal(np.asarray(read_image(content)), pixels)
    assert profile_note(open_image(content)) == UNUSABLE
