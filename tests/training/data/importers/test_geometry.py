from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from training.data.importers.geometry import DoesNotFit, Size, parse_size, place

side = st.integers(1, 3000)
grown = st.builds(
    lambda k, short, long, wide: Size(short << k, long << k) if wide else Size(long << k, short << k),
    st.integers(0, 8), st.integers(4, 7), st.integers(7, 12), st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize(("text", "size"), [("64", Size(64, 64)), ("192x128", Size(128, 192)), (" 8X4 ", Size(4, 8))])
def test_sizes_are_typed_as_width_by_height(text: str, size: Size) -> None:
    assert parse_size(text) == size
    assert parse_size(str(size)) == size


@pytest.mark.parametrize("text", ["", "x", "6k", "64x", "64x64x3", "-4", "64.0"])
def test_other_text_is_no_size(text: str) -> None:
    with pytest.raises(UserError):
        parse_size(text)


@given(side, side, grown, st.sampled_from(["center", "fit"]))
def test_a_placement_lies_inside_picture_and_target(height: int, width: int, target: Size, crop: str) -> None:
    placed = place(Size(height, width), target, crop, upscale=True)
    left, top, right, bottom = placed.box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert 0 <= placed.left <= placed.left + placed.size.width <= target.width
    assert 0 <= placed.top <= placed.top + placed.size.height <= target.height
    if crop == "center":
        assert placed.size == target and (right - left == width or bottom - top == height)
    else:
        assert (left, top, right, bottom) == (0, 0, width, height)
        assert placed.size.width == target.width or placed.size.height == target.height


@given(side, side, grown, st.sampled_from(["center", "fit"]))
def test_nothing_is_enlarged_unasked(height: int, width: int, target: Size, crop: str) -> None:
    try:
        placed = place(Size(height, width), target, crop, upscale=False)
    except DoesNotFit:
        assert height < target.height or width < target.width
        return
    assert placed.box[2] - placed.box[0] >= placed.size.width - 1
    assert placed.box[3] - placed.box[1] >= placed.size.height - 1


def test_a_picture_of_the_right_size_is_copied() -> None:
    for crop in ("center", "fit", "none"):
        placed = place(Size(64, 96), Size(64, 96), crop, upscale=False)
        assert placed.box == (0, 0, 96, 64) and placed.size == Size(64, 96)
    with pytest.raises(DoesNotFit, match="not 96x64"):
        place(Size(64, 97), Size(64, 96), "none", upscale=True)
