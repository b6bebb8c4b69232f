"""Where images go: grids, names, refusals, and the files themselves.

The formats are in test_images.py, a full disk and Ctrl-C in test_generate.py.
"""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from torch_utils.images import encode
from torch_utils.output import (
    Output,
    check_output,
    grid_shape,
    parse_grid,
    planned_files,
    replaces,
    require_folder,
    write_images,
)


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
    columns, rows = grid_shape("auto", count) or (0, 0)
    assert columns * rows >= count > columns * (rows - 1)
    assert columns - rows in (0, 1)


@pytest.mark.parametrize("kind, suffix", [("png", "png"), ("jpg", "jpg"), ("npy", "npy"), ("zip", "png")])
def test_names_end_like_the_pictures_inside(kind, suffix):
    assert Output("out", kind).names(["a", "b"]) == [f"a.{suffix}", f"b.{suffix}"]


@pytest.mark.parametrize("to, channels, says", [
    (Output("out", "jpg"), 4, "alpha"), (Output("out", grid=(2, 2)), 3, "room for 4 images, not 5"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_before(to, channels, says):
    check_output(to, 4, 3)
    with pytest.raises(UserError, match=says):
        check_output(to, 5, channels)


def test_the_words_name_every_file():
    assert planned_files(Output("out"), ["a.png"]) == "out/a.png"
    assert (
        planned_files(Output("out", "zip", "auto"), ["a.png", "b.png"])
        == "out/images.zip (a.png ... b.png), out/grid.png (2x1)"
    )


def test_what_is_replaced_is_counted_and_sources_never_are(tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert replaces([a, b]) == ""
    a.touch()
    assert replaces([a, b]) == "; replaces 1 older file" and "a.png; replaces 1" in planned_files(
        Output(str(tmp_path)), [a.name]
    )
    b.touch()
    assert replaces([a, b], [3, tmp_path / "c.png"]) == "; replaces 2 older files"
    with pytest.raises(UserError, match="b.png is one of the inputs"):
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
        with pytest.raises(UserError, match="cannot write to /proc/a/b: cannot create a folder in /proc; name another"):
            require_folder(Path("/proc/a/b"))
        with pytest.raises(UserError, match="cannot write to /proc: files cannot be created there"):
            require_folder(Path("/proc"))


IMAGES = np.random.RandomState(0).randint(0, 256, (12, 4, 6, 3), np.uint8)
NAMES = [f"{i}.png" for i in range(12)]


@given(st.lists(st.integers(0, 4), max_size=6).filter(lambda sizes: 0 < sum(sizes) <= 12))
def test_every_name_gets_its_image_however_they_come(tmp_path_factory, sizes):
    folder, count = tmp_path_factory.mktemp("out"), sum(sizes)
    starts = np.cumsum([0, *sizes])
    batches = [IMAGES[start : start + size] for start, size in zip(starts, sizes)]
    write_images(Output(str(folder)), NAMES[:count], batches)
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert written == {name: encode(image, "png") for name, image in zip(NAMES[:count], IMAGES)}


def test_a_zip_holds_the_same_files_and_the_grid_stands_beside_it(tmp_path: Path):
    write_images(Output(str(tmp_path), "zip", "auto"), NAMES, [IMAGES])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "images.zip"]
    with ZipFile(tmp_path / "images.zip") as archive:
        assert [archive.read(name) for name in NAMES] == [encode(image, "png") for image in IMAGES]


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to .*file"):
        write_images(Output(str(tmp_path / "file")), NAMES, [IMAGES])
