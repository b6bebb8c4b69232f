"""Images go into networks and files without loss, and into grids. The tests of the reader: test_read_image.py."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import UserError
from torch_utils.images import CHANNELS, MODES, captioned, encode, enlarge, grid, to_float, to_pil, to_uint8


def pixels_of(channels: int = 3, n: int | None = None) -> np.ndarray:
    shape = (6, 4, channels) if n is None else (n, 6, 4, channels)
    return np.random.RandomState(channels).randint(0, 256, shape, np.uint8)


def test_every_value_survives_the_way_in_and_out():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    inside = to_float(values)
    assert (inside.min(), inside.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(inside)[0, :, :, 0], values[0, 0].numpy())


def test_values_are_rounded_and_clipped():
    values = torch.tensor([-9.0, -1, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0, 1, 9]).reshape(1, 1, 1, 7)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_channels_move_to_the_end(dtype):
    images = torch.zeros(2, 3, 4, 6, dtype=dtype)
    images[:, 1] = 1
    out = to_uint8(images)
    assert (out.shape, out.dtype) == ((2, 4, 6, 3), np.uint8)
    assert out[0, 0, 0].tolist() == [128, 255, 128]


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pil_images(channels, mode):
    pixels = pixels_of(channels)
    image = to_pil(pixels)
    assert (image.mode, image.size) == (mode, (4, 6))
    np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_lossless_files_give_every_pixel_back(kind, channels, mode):
    pixels = pixels_of(channels)
    with Image.open(io.BytesIO(encode(pixels, kind))) as image:
        assert image.format == kind.upper()
        np.testing.assert_array_equal(np.asarray(image.convert(mode)).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpg_is_near(channels):
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32, 1).repeat(channels, axis=2).astype(np.uint8)
    with Image.open(io.BytesIO(encode(smooth, "jpg"))) as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).reshape(smooth.shape).astype(int) - smooth).max() < 16


def test_jpg_holds_no_alpha():
    with pytest.raises(UserError, match="alpha"):
        encode(pixels_of(4), "jpg")


def test_npy_holds_the_array():
    np.testing.assert_array_equal(np.load(io.BytesIO(encode(pixels_of(), "npy"))), pixels_of())


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 3))
def test_a_grid_holds_every_image_at_its_place(n, columns, extra_rows):
    images = pixels_of(3, n)
    rows = -(-n // columns) + extra_rows
    whole = grid(images, columns, rows)
    assert whole.shape == (rows * 6, columns * 4, 3)
    for i in range(rows * columns):
        y, x = i // columns * 6, i % columns * 4
        np.testing.assert_array_equal(whole[y : y + 6, x : x + 4], images[i] if i < n else 0)


@pytest.mark.parametrize("n, columns, rows", [(1, 1, 1), (2, 2, 1), (5, 3, 2), (9, 3, 3), (10, 4, 3)])
def test_a_grid_is_about_square_by_default(n, columns, rows):
    assert grid(pixels_of(1, n)).shape == (rows * 6, columns * 4, 1)


def test_enlarge_repeats_pixels():
    pixels = pixels_of(3, 2)
    large = enlarge(pixels, 3)
    assert large.shape == (2, 18, 12, 3)
    for dy in range(3):
        np.testing.assert_array_equal(large[:, dy::3, dy::3], pixels)


def test_modes_and_channels_are_one_map():
    assert {mode: channels for channels, mode in MODES.items()} == CHANNELS == {"L": 1, "RGB": 3, "RGBA": 4}


def cells(size: int, channels: int = 3, count: int = 6) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8))


@pytest.mark.parametrize(("size", "factor"), [(16, 6), (64, 2), (128, 1)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_captioned_images_are_enlarged_and_unchanged(size, factor, channels):
    images = cells(size, channels)
    table = captioned(images, ["one", "two"], ["a", "b", "c"])
    side = size * factor
    top, left = table.shape[0] - 2 * side, table.shape[1] - 3 * side
    assert top > 10 and left > 10 and table.shape[2] == max(3, channels)
    for row in range(2):
        for column in range(3):
            found = table[top + row * side : top + (row + 1) * side, left + column * side : left + (column + 1) * side]
            expected = enlarge(images[row * 3 + column][None], factor)[0]
            np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_captions_are_beside_their_row_and_above_their_column():
    table = captioned(cells(128), ["here", ""], ["", "there", ""])
    top, left = table.shape[0] - 256, table.shape[1] - 384
    dark = table[..., :3].min(axis=2) < 128
    assert dark[top : top + 128, :left].any() and not dark[top + 128 :, :left].any()
    assert dark[:top, left + 128 : left + 256].any() and not dark[:top, left : left + 128].any()


def test_long_captions_do_not_reach_into_the_next_column():
    table = captioned(cells(128), ["", ""], ["", "a very long name of a column indeed", ""])
    top, left = table.shape[0] - 256, table.shape[1] - 384
    dark = table[..., :3].min(axis=2) < 128
    assert not dark[:top, left : left + 127].any() and not dark[:top, left + 257 :].any()
