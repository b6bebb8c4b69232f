"""Where pictures go: grids, names, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from torch_utils.output import Output, cells, check_output, in_words, parse_grid


@given(st.integers(1, 99), st.integers(1, 99))
def test_grids_are_parsed(columns, rows):
    assert parse_grid(f" {columns}X{rows} ") == (columns, rows)


@given(st.text(max_size=6))
def test_other_text_is_no_grid(text):
    try:
        parsed = parse_grid(text)
    except UserError:
        return
    assert parsed == "auto" or min(parsed) > 0


@given(st.integers(1, 500))
def test_grids_are_about_square_and_hold_everything(count):
    columns, rows = cells("auto", count) or (0, 0)
    assert columns * rows >= count > columns * (rows - 1)
    assert columns - rows in (0, 1)


@pytest.mark.parametrize("kind, suffix", [("png", "png"), ("jpg", "jpg"), ("npy", "npy"), ("zip", "png")])
def test_names_end_like_the_pictures_inside(kind, suffix):
    assert Output("out", kind).names(["a", "b"]) == [f"a.{suffix}", f"b.{suffix}"]


@pytest.mark.parametrize("output, channels, says", [
    (Output("out", "jpg"), 4, "alpha"), (Output("out", grid=(2, 2)), 3, "holds 4 pictures, not 5"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_before(output, channels, says):
    check_output(output, 4, 3)
    with pytest.raises(UserError, match=says):
        check_output(output, 5, channels)


def test_the_words_name_every_file():
    assert in_words(Output("out"), ["a.png"]) == "out/a.png"
    assert (
        in_words(Output("out", "zip", "auto"), ["a.png", "b.png"])
        == "out/images.zip (a.png ... b.png), out/grid.png (2x1)"
    )
