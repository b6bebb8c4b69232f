"""Films hold the frames they were given, for their time, and an unfinished one leaves nothing behind."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from stylegan.editing import film_files
from stylegan.editing.film_files import check_film, delays, film_seconds, frames_and_seconds, too_fast, write_film
from torch_utils import images
from torch_utils.errors import UserError


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


SLOW = [np.full((12, 16, 3), 100 + number // 2, np.uint8) for number in range(30)]
"""Brightens by half a level a frame."""


def durations(path: Path) -> list[float]:
    """Milliseconds of each frame."""
    with Image.open(path) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()  # WebP tells times only then
            found.append(image.info["duration"])
        return found


@pytest.mark.parametrize(("name", "error"), [("a.gif", 8), ("a.webp", 0), ("a.apng", 0), ("a.PNG", 0)])
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
    assert durations(path) == [40] * 5


@pytest.mark.parametrize("kind", ["gif", "webp", "apng"])
@pytest.mark.parametrize("made", [SLOW, SLOW[:1] * 30, SLOW[:1]], ids=["slow", "still", "one frame"])
def test_no_frame_is_lost_however_alike_they_are(tmp_path, kind, made):
    path = tmp_path / f"a.{kind}"
    write_film(path, iter(made), 12.5)
    assert durations(path) == [80] * len(made)
    np.testing.assert_array_equal(shown(path), made)


@pytest.mark.parametrize("kind", ["gif", "webp", "apng"])
def test_what_is_transparent_does_not_show_the_frame_before(tmp_path, kind):
    made = np.zeros((3, 16, 16, 4), np.uint8)
    for number in range(3):
        made[number, 4 * number : 4 * number + 4] = (200, 30, 60, 255)
    write_film(tmp_path / f"a.{kind}", iter(made), 10)
    with Image.open(tmp_path / f"a.{kind}") as image:
        found = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
    np.testing.assert_array_equal([frame[..., 3] for frame in found], made[..., 3])
    assert all((frame[visible] == (200, 30, 60, 255)).all() for frame, visible in zip(found, made[..., 3] > 0))


@given(st.floats(0.01, 50), st.integers(1, 400))
def test_frames_end_when_they_should_to_half_a_hundredth(fps, count):
    ends = np.cumsum(list(islice(delays(fps, 100), count)))
    assert np.abs(ends - 100 * np.arange(1, count + 1) / fps).max() <= 0.5 + 1e-6
    assert film_seconds(Path("a.gif"), count, fps) == pytest.approx(ends[-1] / 100)


@pytest.mark.parametrize("fps", [0.01, 12.5, 29.97, 30, 40])
@pytest.mark.parametrize("kind", ["gif", "webp", "apng", "mp4"])
def test_the_time_that_is_said_is_the_time_that_the_film_takes(tmp_path, kind, fps):
    path, made = tmp_path / f"a.{kind}", frames(7, size=(32, 32))
    if kind == "mp4":
        av = pytest.importorskip("av")
        write_film(path, made, fps)
        with av.open(str(path)) as film:
            lasts = float(film.streams.video[0].duration * film.streams.video[0].time_base)
    else:
        write_film(path, made, fps)
        lasts = sum(durations(path)) / 1000
    assert film_seconds(path, 7, fps) == pytest.approx(lasts, rel=1e-4) == pytest.approx(7 / fps, abs=0.0051)
    assert frames_and_seconds(path, 7, fps) == f"7 frames, {lasts:.2f} s"


@pytest.mark.parametrize("kind", ["gif", "webp", "apng", "mp4", "folder"])
def test_a_film_needs_the_memory_of_few_frames(tmp_path, monkeypatch, kind):
    if kind == "mp4":
        pytest.importorskip("av")
    alive, most = 0, 0

    def watched(frame):
        nonlocal alive, most
        weakref.finalize(frame, gone)
        alive += 1
        most = max(most, alive)
        return frame

    def gone() -> None:
        nonlocal alive
        alive -= 1

    monkeypatch.setattr(images, "to_pil", lambda pixels: watched(Image.fromarray(pixels)))
    made = (watched(np.full((96, 96, 3), number, np.uint8)) for number in range(40))
    write_film(tmp_path / ("film" if kind == "folder" else f"a.{kind}"), made, 30)
    assert most <= 4


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (180, 60, 70), (90, 120, 200)]


@pytest.mark.parametrize(("lines", "matrix"), [(256, 6), (718, 6), (720, 1), (1024, 1)])
def test_mp4_has_the_colours_of_the_images_and_says_which_they_are(tmp_path, lines, matrix):
    av = pytest.importorskip("av")
    image = np.asarray(COLOURS, np.uint8).repeat(32, axis=0)[None].repeat(lines, axis=0)
    write_film(tmp_path / "a.mp4", [image] * 2, 30)
    with av.open(str(tmp_path / "a.mp4")) as film:
        video = film.streams.video[0].codec_context
        assert (video.colorspace, video.color_range, video.color_primaries, video.color_trc) == (matrix, 1, 1, 13)
        frame = next(film.decode(video=0))
        told = frame.to_ndarray(format="rgb24")  # as a player that reads the marks
        guess = "ITU709" if lines >= 720 else "ITU601"  # as one that goes by the size
        guessed = frame.reformat(format="rgb24", src_colorspace=guess).to_ndarray()
    assert b"colrnclx" in (tmp_path / "a.mp4").read_bytes()
    for found in (told, guessed):
        assert np.abs(found[lines // 2, 16::32].astype(int) - COLOURS).max() <= 3


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
    ("a.webp", float("nan"), 3, "frames a second"), ("a.gif", 0.009, 3, "from 0.01 to 1000"),
    ("a.mp4", 30, 3, r"pip install 'stylegan-engine\[video\]'"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_before_anything_is_drawn(tmp_path, monkeypatch, name, fps, channels, says):
    monkeypatch.setattr(film_files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=says):
        check_film(tmp_path / name, fps, channels)


@pytest.mark.parametrize(("kind", "most"), [("webp", 16383), ("gif", 65535), ("mp4", 16384)])
def test_frames_that_are_too_large_for_a_format_are_refused(tmp_path, monkeypatch, kind, most):
    monkeypatch.setattr(film_files, "find_spec", lambda name: name)
    check_film(tmp_path / f"a.{kind}", 30, 3, (64, most))
    with pytest.raises(UserError, match=f"can have {most} pixels a side, but its frames would have {most + 1}"):
        check_film(tmp_path / f"a.{kind}", 30, 3, (most + 1, 64))
    check_film(tmp_path / "a.apng", 30, 3, (most + 1, 64))


def test_mp4_has_no_alpha(tmp_path, monkeypatch):
    monkeypatch.setattr(film_files, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="alpha"):
        check_film(tmp_path / "a.mp4", 30, 4)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(UserError, match="cannot write to"):
        write_film(tmp_path / "file" / "a.gif", frames(), 30)


@pytest.mark.parametrize(("name", "fps", "slow"), [
    ("a.webp", 90, False), ("a.webp", 91, True), ("a.apng", 1000, True), ("a.mp4", 1000, False), ("a.gif", 50, False),
])  # fmt: skip
def test_browsers_play_frames_of_ten_milliseconds_slowly(name, fps, slow):
    shortest = min(islice(delays(fps, 1000), 400))
    assert ("--fps 90 or less" in too_fast(Path(name), fps)) is slow
    assert slow is (shortest <= 10) or not name.endswith("webp")
