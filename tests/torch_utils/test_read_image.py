"""The reader: a table of file kinds and the exact pixels that each of them gives, and the files that it refuses."""

from __future__ import annotations

import io
import math
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import BadImage
from torch_utils.images import (
    MODES,
    centred_box,
    decode,
    is_sideways,
    open_image,
    read_image,
    with_channels,
)  # fmt: skip

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def image(mode: str, *pixels: int | Sequence[int]) -> Image.Image:
    """An image of 2x2 pixels."""
    made = Image.new(mode, (2, 2))
    made.putdata(pixels)
    return made


def file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def grey16(*values: int, dtype: type = np.uint16, kind: str = "PNG") -> bytes:
    return file(Image.fromarray(np.array(values, dtype).reshape(2, 2)), kind)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(image("L", 10, 20, 30, 40), exif=exif)


def png(depth: int, colour: int, rows: Sequence[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of 2x2 pixels by hand, for kinds that Pillow reads and does not write."""
    header = struct.pack(">IIBBBBB", 2, 2, depth, colour, 0, 0, 0)
    whole = [
        (b"IHDR", header),
        *chunks,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in whole]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff12(*values: int) -> bytes:
    """A TIFF file of 2x2 pixels with 12 bits each."""
    pixels = b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in (values[:2], values[2:]))
    tags = [(256, 2), (257, 2), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


CMYK = (0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 0, 0)
PALETTE = image("P", 0, 1, 2, 3)
PALETTE.putpalette([*RED, *GREEN, *BLUE, *WHITE])

GOLDEN = {
    # Grey
    "black and white": (file(image("1", 0, 255, 255, 0)), "L", [0, 255, 255, 0]),
    "grey": (file(image("L", 0, 7, 128, 255)), "L", [0, 7, 128, 255]),
    "grey and alpha": (file(image("LA", (0, 9), (7, 0), (8, 255), (9, 1))), "LA", [(0, 9), (7, 0), (8, 255), (9, 1)]),
    "grey, one value is transparent": (
        file(image("L", 0, 7, 128, 255), transparency=7), "LA", [(0, 255), (7, 0), (128, 255), (255, 255)],
    ),
    "PBM": (b"P4\n2 2\n" + bytes([0b01 << 6, 0b10 << 6]), "L", [255, 0, 0, 255]),
    "PGM": (b"P5\n2 2\n255\n" + bytes([0, 1, 2, 255]), "L", [0, 1, 2, 255]),
    # Grey with more bits
    "16 bits, PNG": (grey16(0, 255, 256, 65535), "L", [0, 0, 1, 255]),
    "16 bits, TIFF": (grey16(257, 511, 40000, 65279, kind="TIFF"), "L", [1, 1, 156, 254]),
    "16 bits, PGM": (b"P5\n2 2\n65535\n" + struct.pack(">4H", 0, 255, 256, 65535), "L", [0, 0, 1, 255]),
    "16 bits in 32, TIFF": (grey16(0, 255, 256, 65535, dtype=np.int32, kind="TIFF"), "L", [0, 0, 1, 255]),
    "12 bits in 16, PNG": (grey16(0, 15, 16, 4095), "L", [0, 0, 1, 255]),
    "12 bits in 16, TIFF": (grey16(16, 256, 2048, 4000, kind="TIFF"), "L", [1, 16, 128, 250]),
    "12 bits, TIFF": (tiff12(0, 15, 16, 4095), "L", [0, 0, 1, 255]),
    "12 bits, PGM": (b"P5\n2 2\n4095\n" + struct.pack(">4H", 0, 15, 16, 4095), "L", [0, 0, 1, 255]),
    "8 bits in 16, PNG": (grey16(0, 1, 128, 255), "L", [0, 1, 128, 255]),
    "8 bits in 32, TIFF": (grey16(0, 1, 128, 255, dtype=np.int32, kind="TIFF"), "L", [0, 1, 128, 255]),
    "black in 16 bits": (grey16(0, 0, 0, 0), "L", [0, 0, 0, 0]),
    "RGB with 16 bits": (
        png(16, 2, [struct.pack(">6H", 65535, 255, 256, 0, 0, 0), struct.pack(">6H", 0, 511, 512, 1, 2, 3)]),
        "RGB", [(255, 0, 1), (0, 0, 0), (0, 1, 2), (0, 0, 0)],
    ),
    # Colours
    "palette": (file(PALETTE), "RGB", [RED, GREEN, BLUE, WHITE]),
    "palette, one entry is transparent": (
        file(PALETTE, transparency=1), "RGBA", [(*RED, 255), (*GREEN, 0), (*BLUE, 255), (*WHITE, 255)],
    ),
    "palette with alpha": (
        png(8, 3, [b"\0\1", b"\2\0"], (b"PLTE", bytes([*RED, *GREEN, *BLUE])), (b"tRNS", bytes([9, 0, 77]))),
        "RGBA", [(*RED, 9), (*GREEN, 0), (*BLUE, 77), (*RED, 9)],
    ),
    "RGB": (file(image("RGB", RED, GREEN, BLUE, (1, 2, 3))), "RGB", [RED, GREEN, BLUE, (1, 2, 3)]),
    "RGB, one colour is transparent": (
        file(image("RGB", RED, GREEN, BLUE, WHITE), transparency=GREEN),
        "RGBA", [(*RED, 255), (*GREEN, 0), (*BLUE, 255), (*WHITE, 255)],
    ),
    "RGBA": (
        file(image("RGBA", (1, 2, 3, 0), (4, 5, 6, 7), (8, 9, 10, 255), (0, 0, 0, 128))),
        "RGBA", [(1, 2, 3, 0), (4, 5, 6, 7), (8, 9, 10, 255), (0, 0, 0, 128)],
    ),
    "CMYK, TIFF": (file(image("CMYK", *CMYK), "TIFF"), "RGB", [RED, GREEN, BLUE, WHITE]),
    "BMP": (file(image("RGB", RED, GREEN, BLUE, (1, 2, 3)), "BMP"), "RGB", [RED, GREEN, BLUE, (1, 2, 3)]),
    "PPM": (b"P6\n2 2\n255\n" + bytes([*RED, *GREEN, *BLUE, *WHITE]), "RGB", [RED, GREEN, BLUE, WHITE]),
    "TGA": (file(image("RGB", RED, GREEN, BLUE, WHITE), "TGA"), "RGB", [RED, GREEN, BLUE, WHITE]),
    "WebP": (file(image("RGB", RED, GREEN, BLUE, WHITE), "WEBP", lossless=True), "RGB", [RED, GREEN, BLUE, WHITE]),
    "JPEG, a single grey": (file(image("L", 77, 77, 77, 77), "JPEG"), "L", [77] * 4),
    "JPEG in CMYK": (file(image("CMYK", *[(0, 0, 0, 0)] * 4), "JPEG"), "RGB", [WHITE] * 4),
    # First frames
    "animated GIF": (
        file(image("RGB", *[RED] * 4), "GIF", save_all=True, append_images=[image("RGB", *[BLUE] * 4)]),
        "RGB", [RED] * 4,
    ),
    "animated WebP": (
        file(image("RGB", *[RED] * 4), "WEBP", save_all=True, append_images=[image("RGB", *[BLUE] * 4)], lossless=True),
        "RGB", [RED] * 4,
    ),
    "TIFF of two pages": (
        file(image("L", 1, 2, 3, 4), "TIFF", save_all=True, append_images=[image("L", 5, 6, 7, 8)]), "L", [1, 2, 3, 4],
    ),
    # EXIF
    **{
        f"EXIF orientation {number}": (turned(number), "L", pixels)
        for number, pixels in enumerate(
            [[10, 20, 30, 40], [20, 10, 40, 30], [40, 30, 20, 10], [30, 40, 10, 20],
             [10, 30, 20, 40], [30, 10, 40, 20], [40, 20, 30, 10], [20, 40, 10, 30]], start=1,
        )
    },
    "EXIF orientation that does not exist": (turned(9), "L", [10, 20, 30, 40]),
    "damaged EXIF": (file(image("L", 10, 20, 30, 40), exif=b"Exif\0\0II*\0\xff\xff"), "L", [10, 20, 30, 40]),
}  # fmt: skip


@pytest.mark.parametrize("kind", GOLDEN)
def test_every_kind_of_file_gives_exactly_these_pixels(kind: str) -> None:
    content, mode, pixels = GOLDEN[kind]
    found = read_image(content)
    assert (found.mode, found.size) == (mode, (2, 2))
    np.testing.assert_array_equal(np.asarray(found).reshape(4, -1), np.array(pixels).reshape(4, -1))


def test_what_pillow_warns_of_is_not_shown(tmp_path: Path) -> None:
    """In a process of its own, because pytest has filters of its own."""
    damaged = file(image("L", 10, 20, 30, 40), exif=b"Exif\0\0II*\0\x08\0\0\0")
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.warns(UserWarning):
        read_image(damaged)
    program = "import sys, torch_utils.images as i; print(i.read_image(open(sys.argv[1], 'rb').read()).size)"
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "a.png"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2, 2)\n", "")


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_pixels_are_taken_as_they_are(channels: int | None) -> None:
    shape = (2, 3) if channels in (None, 1) else (2, 3, channels)
    pixels = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(np.asarray(read_image(pixels)), pixels)


HUGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
HUGE += struct.pack(">I", zlib.crc32(HUGE[12:])) + b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 256, (99, 99, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"just some words", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n", "not an image"),
        (HUGE, "more than 179 million pixels"),
        (grey16(0, 0, 0, 65536, dtype=np.int32, kind="TIFF"), "signed 32-bit pixels from 0 to 65536, .* 0:65536"),
        (grey16(0, 0, 0, -1, dtype=np.int32, kind="TIFF"), "signed 32-bit pixels from -1 to 0, .* -1:0"),
        (grey16(0, 1, 7, 60, dtype=np.float32, kind="TIFF"), "floating-point pixels from 0 to 60, .* --levels 0:60"),
        (grey16(0, 1, 1, math.nan, dtype=np.float32, kind="TIFF"), "values that are infinite or no numbers"),
        (file(NOISE, "JPEG")[:900], "truncated"),
        (file(NOISE)[:900], "truncated"),
        (file(NOISE)[:45], "truncated|broken .*"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=f"^({reason})$"):
        read_image(content)


@settings(max_examples=200)
@given(st.data())
def test_damage_is_a_reason_and_never_a_crash(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    content = bytearray(file(NOISE.resize((20, 20)), kind, **options))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_image(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except BadImage as reason:
        assert str(reason)
    else:
        assert found.mode in ("L", "LA", "RGB", "RGBA")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sideways_images_are_known_before_they_are_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file(Image.new("L", (3, 2)), exif=exif)
    stored = open_image(content)
    decode(stored)
    assert stored.size == (3, 2) and is_sideways(stored) == (read_image(content).size == (2, 3))


@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize(("source", "white", "dropped"), [
    (image("L", *[100] * 4), 100, 100), (image("LA", *[(100, 0)] * 4), 255, 100),
    (image("RGB", *[(100, 100, 100)] * 4), 100, 100), (image("RGBA", *[(100, 100, 100, 0)] * 4), 255, 100),
])  # fmt: skip
def test_channels_and_transparency(source: Image.Image, channels: int, white: int, dropped: int) -> None:
    for alpha, expected in (("white", white), ("drop", dropped), ("keep", dropped)):
        found = with_channels(source, channels, alpha)
        pixels = np.asarray(found).reshape(4, channels)
        assert found.mode == MODES[channels]
        assert (pixels[:, : min(channels, 3)] == expected).all()
        if channels == 4:
            opaque = alpha == "white" or source.mode in ("L", "RGB")
            assert (pixels[:, 3] == (255 if opaque else 0)).all()


side = st.integers(1, 3000)


@given(side, side, side, side)
def test_the_centred_box_is_the_largest_part_of_the_aspect(width: int, height: int, to_w: int, to_h: int) -> None:
    left, top, right, bottom = centred_box((width, height), (to_w, to_h))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left == width or bottom - top == height
    assert left in (width - right, width - right - 1) and top in (height - bottom, height - bottom - 1)
    scale = min(width / to_w, height / to_h)
    assert abs(right - left - to_w * scale) <= 1 and abs(bottom - top - to_h * scale) <= 1


def test_the_centred_box_of_an_image_that_fits_is_all_of_it() -> None:
    assert centred_box((64, 48), (64, 48)) == centred_box((64, 48), (128, 96)) == (0, 0, 64, 48)
