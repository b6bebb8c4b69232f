"""Where pictures go: grids, names, refusals."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from torch_utils.output import Output, cells, check_output, in_words, parse_grid, replaces, require_folder


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


def test_what_is_replaced_is_counted_and_sources_never_are(tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert replaces([a, b]) == ""
    a.touch()
    assert replaces([a, b]) == "; replaces 1 older file" and "a.png; replaces 1" in in_words(
        Output(str(tmp_path)), [a.name]
    )
    b.touch()
    assert replaces([a, b], [3, tmp_path / "c.png"]) == "; replaces 2 older files"
    with pytest.raises(UserError, match="b.png is what the results are made from"):
        replaces([a, b], [3, tmp_path / "x" / ".." / "b.png"])


def test_a_folder_is_tried_and_nothing_is_left(tmp_path):
    require_folder(tmp_path / "a/b/c")
    require_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/a/b"):
        with pytest.raises(UserError, match="file is a file; name a folder with --out"):
            require_folder(folder, "--out")
    if Path("/proc/self").exists():
        with pytest.raises(UserError, match="cannot write to /proc/a/b: no folder can be made in /proc; name another"):
            require_folder(Path("/proc/a/b"))
        with pytest.raises(UserError, match="cannot write to /proc: no file can be made there"):
            require_folder(Path("/proc"))
