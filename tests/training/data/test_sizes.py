"""Image sizes: how they are typed, which can be trained on, and what the message about the others says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from training.data.sizes import Size, base_for, nearest_size, parse_size, power_of_two

side = st.integers(1, 3000)


@pytest.mark.parametrize(
    "size, base",
    [((64, 64), (4, 4)), ((128, 192), (4, 6)), ((192, 128), (6, 4)), ((96, 96), (6, 6)), ((8, 8), (4, 4)),
     ((28, 28), (7, 7)), ((576, 1024), (9, 16)), ((64, 1600), (4, 100))],
)  # fmt: skip
def test_the_base_is_the_size_halved_while_possible(size, base):
    assert base_for(*size) == base


@given(st.integers(4, 15), st.integers(4, 40), st.integers(1, 8), st.booleans())
def test_every_small_base_times_a_power_of_two_is_accepted(short, long, doublings, upright):
    height, width = (long, short) if upright else (short, long)
    h, w = base_for(height << doublings, width << doublings)
    assert h * width == w * height and (h, w) <= (height, width)


@given(side, side)
def test_the_base_doubles_up_to_the_size(height, width):
    try:
        h, w = base_for(height, width)
    except UserError:
        return
    doublings = (height // h).bit_length() - 1
    assert (h << doublings, w << doublings) == (height, width) and doublings > 0
    assert 4 <= min(h, w) <= 15 and (h % 2 or w % 2 or min(h, w) < 8), "and no smaller base does"


@given(side, side)
def test_the_nearest_size_has_a_base_as_small_as_can_be(height, width):
    near = nearest_size(height, width)
    assert 4 <= min(base_for(*near)) <= 7
    assert nearest_size(*near) == near


@pytest.mark.parametrize(
    "wrong, right",
    [((100, 100), "96"), ((1000, 1000), "1024"), ((500, 500), "512"), ((3, 3), "8"), ((7, 7), "8"), ((1, 1), "8"),
     ((720, 1280), "1280x768"), ((63, 64), "64")],
)  # fmt: skip
def test_other_sizes_are_refused_with_the_nearest_that_is_not(wrong, right):
    with pytest.raises(UserError) as error:
        base_for(*wrong)
    assert f"{wrong[1]}x{wrong[0]}" in str(error.value) and str(error.value).endswith(f" --resolution {right}")


@pytest.mark.parametrize(("text", "size"), [("64", Size(64, 64)), ("192x128", Size(128, 192)), (" 8X4 ", Size(4, 8))])
def test_sizes_are_typed_as_width_by_height(text: str, size: Size) -> None:
    assert parse_size(text) == size
    assert parse_size(str(size)) == parse_size(size.typed) == size


@pytest.mark.parametrize("text", ["", "x", "6k", "64x", "64x64x3", "-4", "64.0"])
def test_other_text_is_not_a_size(text: str) -> None:
    with pytest.raises(UserError, match="Invalid resolution .*: expected N or WIDTHxHEIGHT"):
        parse_size(text)


@given(st.integers(1, 5000))
def test_the_power_of_two_below(number: int) -> None:
    power = power_of_two(number)
    assert power.bit_count() == 1 and power >= 4 and (power == 4 or power <= number < 2 * power)
