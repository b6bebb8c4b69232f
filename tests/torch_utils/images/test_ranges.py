"""One range for all images of a source, from the values that they use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import UserError
from torch_utils.images import shown_values
from torch_utils.images.ranges import BYTES, WHOLE, decide, values_of, widest
from torch_utils.text import AUTO_LEVELS, LevelsRule, Range, parse_levels

FULL = LevelsRule("full")


@given(st.sampled_from([8, 10, 12, 14, 16]), st.lists(st.integers(0, 2**16 - 1), min_size=1))
def test_integers_have_the_fewest_bits_that_all_values_fit_into(bits: int, values: list[int]) -> None:
    brightest = [value % 2**bits for value in values] + [2**bits - 1]
    used = widest(("16-bit", Range(0, value)) for value in brightest)
    assert decide(used, AUTO_LEVELS).ranges == {"16-bit": (0, 2**bits - 1)}


def test_a_single_brighter_image_decides_for_all() -> None:
    used = widest([("16-bit", Range(9, 4095)), ("16-bit", Range(3, 5000)), (BYTES, Range(0, 9))])
    assert used == {"16-bit": (3, 5000), BYTES: (0, 9)}
    assert decide(used, AUTO_LEVELS).ranges == {"16-bit": (0, 2**14 - 1), BYTES: (0, 255)}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, (0, 1)), (0.0, 0.01, (0, 1)), (0.0, 255.0, (0, 255)), (7.5, 130.0, (0, 255))],
)
def test_floating_point_values_have_a_known_range(low: float, high: float, expected: tuple[float, float]) -> None:
    assert decide({"floating-point": Range(low, high)}, AUTO_LEVELS).ranges == {"floating-point": expected}


@pytest.mark.parametrize(("depth", "low", "high", "expected"), [
    ("16-bit", 32844, 33652, (32844, 33652)), ("floating-point", 0.50, 0.51, (0.50, 0.51)),
    ("16-bit", 30000, 40000, (0, 65535)), ("16-bit", 0, 9, (0, 255)), ("16-bit", 2, 9, (0, 255)),
    ("16-bit", 33000, 33000, (0, 65535)), ("floating-point", 0.0, 0.01, (0, 1)), (BYTES, 120, 125, (0, 255)),
])  # fmt: skip
def test_a_narrow_band_far_from_black_is_spread(
    depth: str, low: float, high: float, expected: tuple[float, float]
) -> None:
    assert decide({depth: Range(low, high)}, AUTO_LEVELS).ranges == {depth: expected}
    assert decide({depth: Range(low, high)}, FULL).ranges == {depth: WHOLE[depth]}


def test_dead_and_hot_pixels_are_not_among_most_values() -> None:
    pixels = np.tile(np.arange(1000, 1100, dtype=np.uint16), (100, 1))
    pixels[3, 5], pixels[7, 2] = 0, 65535
    assert values_of(pixels) == ((0, 65535), (1000, 1099))
    colours = np.zeros((999, 1001, 3), np.uint8)
    colours[..., 1] = 9  # a sample of many pixels has all of their channels
    assert values_of(colours) == ((0, 9), (0, 9))


@pytest.mark.parametrize(
    ("depth", "used"),
    [("floating-point", (0.0, 1.01)), ("floating-point", (-0.5, 0.5)), ("floating-point", (0.0, 60.0)),
     ("floating-point", (0.0, 4095.0)),
     ("signed 16-bit", (-1, 9)), ("32-bit", (0, 65536))],
)  # fmt: skip
def test_what_has_no_known_range_is_refused_with_the_option_that_helps(depth: str, used: tuple[float, float]) -> None:
    levels = decide({depth: Range(*used), BYTES: Range(0, 255)}, AUTO_LEVELS)
    assert levels.ranges == {BYTES: (0, 255)}
    assert f"--levels {used[0]:g}:{used[1]:g}" in levels.reasons[depth] and depth in levels.reasons[depth]
    assert decide({depth: Range(*used)}, FULL).ranges == {depth: WHOLE[depth]}


def test_a_given_range_holds_for_all_that_is_deep_and_for_bytes_if_there_is_nothing_else() -> None:
    used = {"16-bit": Range(0, 9), "floating-point": Range(0.0, 9.0), BYTES: Range(0, 200)}
    rule = parse_levels("2:9")
    assert decide(used, rule).ranges == {"16-bit": (2, 9), "floating-point": (2, 9), BYTES: (0, 255)}
    assert decide({BYTES: Range(0, 9)}, rule).ranges == {BYTES: (2, 9)}
    with pytest.raises(UserError, match="8 bits"):
        decide({BYTES: Range(0, 9)}, parse_levels("0:4095"))


@pytest.mark.parametrize("text", ["auto", "full", "0:4095", "-1024:3071", "0:0.5", "1e-3:2"])
def test_rules_read_back_as_they_are_shown(text: str) -> None:
    assert parse_levels(str(parse_levels(text))) == parse_levels(text)


@pytest.mark.parametrize("text", ["", "Auto", "5", "0:", "9:9", "9:1", "nan:1", "0:inf", "0:1e999", "a:b", "1:2:3"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="Invalid levels"):
        parse_levels(text)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_the_range_of_every_mode_with_8_bits(mode: str) -> None:
    grey = [Image.new("L", (2, 1))] * 3
    image = Image.merge("LAB", grey) if mode == "LAB" else Image.new("RGB", (2, 1)).convert(mode)
    used, most = shown_values(image)
    assert 0 <= used.low <= most.low <= most.high <= used.high <= 255
