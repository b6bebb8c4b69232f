"""Films hold the frames they were given, and no half of one is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from torch_utils import video as film
from torch_utils.errors import UserError
from torch_utils.video import check_film, write_film


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
    monkeypatch.setattr(film, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=says):
        check_film(tmp_path / name, fps, channels)


def test_mp4_has_no_alpha(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="alpha"):
        check_film(tmp_path / "a.mp4", 30, 4)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(UserError, match="cannot write to"):
        write_film(tmp_path / "file" / "a.gif", frames(), 30)
