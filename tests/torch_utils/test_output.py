"""Where images and films go: grids, names, refusals, and the files themselves.

The formats are in test_images.py, a full disk and Ctrl-C in test_generate.py.
"""

import errno
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from torch_utils import output
from torch_utils.errors import UserError
from torch_utils.images import encode
from torch_utils.output import (  # fmt: skip
    Output,
    check_film,
    check_output,
    grid_shape,
    parse_grid,
    planned_files,
    replaces,
    require_folder,
    write_film,
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


# Films hold the frames they were given, and an unfinished one leaves nothing behind


def frames(count: int = 5, channels: int = 3, size: tuple[int, int] = (12, 16)) -> list[np.ndarray]:
    """A bright bar that moves down over a gradient."""
    made = []
    for number in range(count):
        picture = np.full((*size, channels), 40 + 5 * number, np.uint8)
        picture[2 * number : 2 * number + 3] = 200
        made.append(picture)
    return made


def shown(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(image)]


@pytest.mark.parametrize(("name", "error"), [("a.gif", 8), ("a.webp", 40), ("a.apng", 0), ("a.PNG", 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pillow_films_show_every_frame_for_its_time(tmp_path, name, error, channels):
    made, path = frames(channels=channels), tmp_path / "new" / name
    check_film(path, 25, channels)
    write_film(path, iter(made), fps=25)
    found = shown(path)
    assert len(found) == 5 and [p.name for p in path.parent.iterdir()] == [name]
    for a, b in zip(made, found, strict=True):
        assert abs(np.broadcast_to(a, b.shape).astype(int) - b).max() <= error
    with Image.open(path) as image:
        assert image.info.get("loop") == 0
        image.seek(1)
        image.load()  # WebP tells times only then
        assert image.info["duration"] == 40


def test_mp4_shows_every_frame_in_even_sizes(tmp_path):
    av = pytest.importorskip("av")
    for channels, size in ((3, (32, 48)), (1, (33, 47))):
        path = tmp_path / f"{channels}.mp4"
        check_film(path, 29.97, channels)
        write_film(path, frames(channels=channels, size=size), fps=29.97)
        with av.open(str(path)) as found:
            pictures = [frame.to_ndarray(format="rgb24") for frame in found.decode(video=0)]
            assert abs(float(found.streams.video[0].average_rate) - 29.97) < 0.01
        assert len(pictures) == 5 and pictures[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        for a, b in zip(frames(channels=channels, size=size), pictures, strict=True):
            assert abs(a.astype(int) - b[: size[0], : size[1]]).mean() < 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.mp4", "3.mp4"]


def test_a_folder_of_frames(tmp_path):
    made, path = frames(channels=4), tmp_path / "film"
    check_film(path, 30, 4)
    write_film(path, iter(made), 30)
    names = sorted(p.name for p in path.iterdir())
    assert names == [f"frame{number:05d}.png" for number in range(5)]
    for picture, name in zip(made, names, strict=True):
        with Image.open(path / name) as image:
            np.testing.assert_array_equal(np.asarray(image), picture)
    with pytest.raises(UserError, match="exists already"):
        check_film(path, 30, 4)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.apng", "a.mp4", "folder"])
def test_a_film_that_is_not_finished_does_not_get_the_name(tmp_path, name):
    if name == "a.mp4":
        pytest.importorskip("av")
    if "." in name:
        (tmp_path / name).write_bytes(b"of an earlier run")

    def interrupted() -> Iterator[np.ndarray]:
        yield from frames(size=(32, 32))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_film(tmp_path / name, interrupted(), 30)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({name: b"of an earlier run"} if "." in name else {})


@pytest.mark.parametrize(("name", "fps", "channels", "says"), [
    ("a.avi", 30, 3, r"expected \.mp4, \.gif"), ("a.gif", 60, 3, "at most 50"), ("a.webp", 0, 3, "got 0"),
    ("a.webp", float("nan"), 3, "frames a second"), ("a.mp4", 30, 3, r"pip install 'stylegan-engine\[video\]'"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_before_anything_is_drawn(tmp_path, monkeypatch, name, fps, channels, says):
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=says):
        check_film(tmp_path / name, fps, channels)


def test_mp4_has_no_alpha(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="alpha"):
        check_film(tmp_path / "a.mp4", 30, 4)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(UserError, match="cannot write to"):
        write_film(tmp_path / "file" / "a.gif", frames(), 30)


def test_a_full_disk_leaves_whole_images_only(tmp_path, monkeypatch):
    written = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "2.png" not in path.name:
            return written(path, content)
        written(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="cannot write to .*: the disk is full; make room"):
        write_images(Output(str(tmp_path)), ["1.png", "2.png"], [np.zeros((2, 4, 4, 3), np.uint8)])
    assert [path.name for path in tmp_path.iterdir()] == ["1.png"]


def test_an_error_about_another_folder_does_not_blame_this_one(tmp_path):
    with pytest.raises(UserError, match="^/cache/kernels: permission is denied"), output.writing_to(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "/cache/kernels")
