"""Exact values of pixels with more than 8 bits, whatever the kind of file, and the bytes that they become."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import BadImage
from torch_utils.images import open_image, read_image
from torch_utils.images.deep import depth_of, read_deep, scaled, spread
from torch_utils.images.ranges import BYTES, WHOLE, Levels
from torch_utils.text import Range

RANDOM = np.random.RandomState(0)
COLOURS = {1: (0, "L"), 2: (4, "LA"), 3: (2, "RGB"), 4: (6, "RGBA")}  # PNG's number and Pillow's name, by channels


def values(channels: int, highest: int = 65535) -> np.ndarray:
    made = RANDOM.randint(0, highest + 1, (3, 5, channels))
    made[0, 0] = highest
    return made


def png16(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """[H,W,C] -> a PNG file with 16 bits, which Pillow cannot write in colour."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, COLOURS[channels][0], 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def tiff(pixels: np.ndarray, order: str, sample_format: int = 1, alpha: int = 0, planes: int = 1) -> bytes:
    """[H,W,C] -> an uncompressed TIFF file. alpha: 1 if colours are multiplied by it, 2 if they are not."""
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = 8 * pixels.dtype.itemsize
    extra = 8 + len(data)
    tags = [
        (256, 3, 1, width), (257, 3, 1, height),
        (258, 3, channels, bits if channels == 1 else extra), (259, 3, 1, 1),
        (262, 3, 1, 1 if channels == 1 else 2), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height),
        (279, 4, 1, len(data)), (284, 3, 1, planes), *([(338, 3, 1, alpha)] if alpha else []),
        (339, 3, channels, sample_format if channels == 1 else extra + 2 * channels),
    ]  # fmt: skip
    lists = struct.pack(f"{order}{channels}H", *[bits] * channels)
    lists += struct.pack(f"{order}{channels}H", *[sample_format] * channels)
    entries = b""
    for tag, kind, count, value in tags:
        short = kind == 3 and count * 2 <= 4
        entries += struct.pack(f"{order}HHI", tag, kind, count)
        if short and count == 1:
            entries += struct.pack(f"{order}HH", value, 0)
        elif short:
            entries += struct.pack(f"{order}HH", bits if tag == 258 else sample_format, bits if tag == 258 else 1)
        else:
            entries += struct.pack(f"{order}I", value)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, extra + len(lists))
    return head + data + lists + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def exactly(content: bytes) -> tuple[str, str, np.ndarray]:
    image = open_image(content)
    deep = read_deep(image, content)
    assert depth_of(open_image(content)) == deep.depth
    return deep.depth, deep.mode, deep.values.reshape(*deep.values.shape[:2], -1)


@pytest.mark.parametrize("channels", COLOURS)
def test_png_keeps_all_16_bits_of_every_colour(channels: int) -> None:
    pixels = values(channels)
    depth, mode, found = exactly(png16(pixels))
    assert (depth, mode) == ("16-bit", COLOURS[channels][1])
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "sample_format", "depth"), [
    ("u2", 1, "16-bit"), ("i2", 2, "signed 16-bit"), ("i4", 2, "signed 32-bit"), ("f4", 3, "floating-point"),
])  # fmt: skip
def test_tiff_keeps_all_values_of_grey(order: str, dtype: str, sample_format: int, depth: str) -> None:
    pixels = (values(1) - (30_000 if "signed" in depth else 0)).clip(-(2**15), 2**15 - 1).astype(dtype)
    found = exactly(tiff(pixels, order, sample_format))
    assert found[:2] == (depth, "L")
    np.testing.assert_array_equal(found[2], pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_keeps_all_16_bits_of_colours(order: str, channels: int) -> None:
    pixels = values(channels).astype("u2")
    found = exactly(tiff(pixels, order, alpha=2 if channels == 4 else 0))
    np.testing.assert_array_equal(found[2], pixels)


def test_colours_that_were_multiplied_by_alpha_are_divided_again() -> None:
    pixels = np.full((2, 2, 4), 4095, "u2")
    pixels[0, 0] = (1024, 0, 512, 2048)
    _, _, found = exactly(tiff(pixels, "<", alpha=1))
    np.testing.assert_array_equal(found[0, 0], (2048, 0, 1024, 2048))
    np.testing.assert_array_equal(found[1, 1], [4095] * 4)


def test_colours_in_planes_are_refused_because_pillow_confuses_their_bytes() -> None:
    content = tiff(values(3).astype("u2"), "<", planes=2)
    with pytest.raises(BadImage, match="16-bit colours of a kind"):
        read_image(content)


def test_a_key_colour_becomes_transparent() -> None:
    pixels = values(3)
    key = struct.pack(">3H", *pixels[1, 1])
    _, mode, found = exactly(png16(pixels, (b"tRNS", key)))
    assert mode == "RGBA"
    np.testing.assert_array_equal(found[..., 3] == 0, (pixels == pixels[1, 1]).all(-1))


def test_alpha_has_a_range_of_its_own() -> None:
    pixels = np.array([[[4095, 0, 16, 65535], [32, 48, 64, 0]]])
    content = png16(pixels)
    assert read_deep(open_image(content), content).shown.used == (0, 4095)
    np.testing.assert_array_equal(np.asarray(read_image(content)), [[[255, 0, 1, 255], [2, 3, 4, 0]]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_colours_of_12_bits_are_as_bright_as_grey_of_12_bits(kind: str) -> None:
    pixels = values(3, 4095)
    content = png16(pixels) if kind == "PNG" else tiff(pixels.astype("u2"), "<")
    np.testing.assert_array_equal(np.asarray(read_image(content)), pixels >> 4)


@given(st.integers(-500, 500), st.integers(1, 5000), st.lists(st.integers(-1000, 6000), min_size=1))
def test_scaling_is_monotonic_from_black_to_white(low: int, span: int, numbers: list[int]) -> None:
    to = Range(low, low + span)
    for dtype in (np.int32, np.float32):
        found = scaled(np.array(sorted(numbers) + [low, low + span], dtype), to)
        assert found.dtype == np.uint8 and (np.diff(found[:-2].astype(int)) >= 0).all()
        assert found[-2] == 0 and found[-1] == 255


def test_bytes_are_spread_and_alpha_is_not() -> None:
    image = Image.fromarray(np.array([[[0, 10, 20, 7], [30, 5, 15, 20]]], np.uint8))
    found = spread(image, Levels({BYTES: Range(0, 15)}))
    np.testing.assert_array_equal(np.asarray(found), [[[0, 170, 255, 7], [255, 85, 255, 20]]])
    assert spread(image, Levels({BYTES: Range(*WHOLE[BYTES])})) is image


def test_cut_files_are_truncated_or_broken() -> None:
    for content in (png16(values(3)), png16(values(2)), tiff(values(3).astype("u2"), "<")):
        with pytest.raises(BadImage, match="truncated|broken|kind of TIFF"):
            read_image(content[: len(content) * 2 // 3])


def test_a_tiff_that_pillow_does_not_know_is_called_that() -> None:
    with pytest.raises(BadImage, match="a kind of TIFF .* 8 or 16 bits"):
        read_image(tiff(values(3).astype("f4"), "<", 3))


def test_levels_of_the_source_hold_for_each_image() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), 1000, np.uint16)).save(buffer, "PNG")
    for white, expected in ((1023, 250), (4095, 62), (65535, 3)):
        found = read_image(buffer.getvalue(), Levels({"16-bit": Range(0, white)}))
        assert np.asarray(found).tolist() == [[expected] * 2] * 2
