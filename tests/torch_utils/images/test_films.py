"""Frames of films come out in the right number, colours, direction and time, and no film opens anything else."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torch_utils.errors import BadImage
from torch_utils.images.films import Film, container_of, film_at, frames_in

av = pytest.importorskip("av")
CORNERS = np.array([[[220, 40, 40], [40, 200, 60]], [[40, 60, 210], [200, 200, 80]]], np.uint8)


def pixels(height: int, width: int) -> np.ndarray:
    """A colour in each corner."""
    return CORNERS.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def video(path: Path, kind: str, codec: str, height: int = 64, width: int = 96, **about: Any) -> Path:
    """Five frames or more, 29.97 a second."""
    hd = height >= 720
    with av.open(str(path), "w", format=kind) as film:
        stream = film.add_stream(codec, rate=Fraction(30000, 1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        if "turn" in about:
            stream.set_display_rotation(about["turn"])
        if "aspect" in about:
            stream.codec_context.sample_aspect_ratio = about["aspect"]
        for number in range(about.get("frames", 5)):
            noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise if "noise" in about else pixels(height, width), format="rgb24")
            film.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709" if hd else "ITU601")))
        film.mux(stream.encode())
    return path


def corners(image: Image.Image) -> np.ndarray:
    x, y = image.width // 4, image.height // 4
    return np.asarray(image.convert("RGB"))[y :: 2 * y, x :: 2 * x][:2, :2].astype(int)


@pytest.mark.parametrize(("kind", "codec"), [
    ("mov", "libx264"), ("mp4", "libx264"), ("webm", "libvpx-vp9"), ("matroska", "libx264"), ("avi", "mpeg4"),
])  # fmt: skip
def test_video_files_whatever_their_name(kind, codec, tmp_path):
    frames = list(frames_in(film_at(video(tmp_path / "film.bin", kind, codec))))
    assert [frame.seconds for frame in frames] == [Fraction(1001, 30000)] * 5
    assert all(frame.image.size == (96, 64) and abs(corners(frame.image) - CORNERS).max() < 12 for frame in frames)


@pytest.mark.parametrize(("about", "size", "shown"), [
    ({"turn": 90}, (64, 96), np.rot90(CORNERS)), ({"turn": -90}, (64, 96), np.rot90(CORNERS, -1)),
    ({"turn": 180}, (96, 64), np.rot90(CORNERS, 2)), ({"aspect": Fraction(4, 3)}, (128, 64), CORNERS),
    ({"height": 720, "width": 96}, (96, 720), CORNERS),
])  # fmt: skip
def test_frames_look_as_in_a_player(about, size, shown, tmp_path):
    first = next(iter(frames_in(film_at(video(tmp_path / "film.mov", "mov", "libx264", **about)))))
    assert first.image.size == size and abs(corners(first.image) - shown).max() < 12


@pytest.mark.parametrize(("suffix", "durations", "seconds"), [
    ("gif", [30, 40, 30], "0.03 0.04 0.03"), ("gif", [10, 0, 20], "0.1 0.1 0.02"),
    ("webp", [5, 700, 33], "0.005 0.7 0.033"), ("png", [30, 40, 30], "0.03 0.04 0.03"),
])  # fmt: skip
def test_animated_images_keep_their_times_and_frames(suffix, durations, seconds, tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), 60 * i + 30, np.uint8)) for i in range(3)]
    path, lossless = tmp_path / f"film.{suffix}", {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, **lossless)
    found = list(frames_in(film_at(path)))
    assert " ".join(f"{float(frame.seconds):g}" for frame in found) == seconds
    assert [frame.image.convert("RGB").getpixel((0, 0))[0] for frame in found] == [30, 90, 150]


def test_what_is_no_film(tmp_path):
    pages = [Image.new("L", (8, 8), i) for i in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "one.webp")
    (tmp_path / "text.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    assert [film_at(path) for path in sorted(tmp_path.iterdir())] == [None] * 3
    assert container_of(b"\0\0\0\x20ftypheic") == container_of(b"\0\0\0\x20ftypavif") == ""


@pytest.mark.parametrize("container", ["mov", "matroska", "avi"])
def test_a_playlist_in_disguise_opens_nothing(container, tmp_path):
    (tmp_path / "other.mp4").write_bytes(video(tmp_path / "film.mp4", "mp4", "libx264").read_bytes())
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {tmp_path}/other.mp4\n")
    with pytest.raises(BadImage):
        list(frames_in(Film(playlist, container)))


def test_a_cut_film_is_an_error_and_not_a_shorter_film(tmp_path):
    (tmp_path / "cut.mov").write_bytes(video(tmp_path / "film.mov", "mov", "libx264").read_bytes()[:600])
    with pytest.raises(BadImage, match="broken after 0 frames"):
        list(frames_in(film_at(tmp_path / "cut.mov")))
    for kind, codec in (("avi", "mpeg4"), ("matroska", "libx264")):
        whole = video(tmp_path / "film", kind, codec, 240, 320, noise=True, frames=30).read_bytes()
        (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
        assert len(list(frames_in(film_at(tmp_path / "film")))) == 30
        with pytest.raises(BadImage, match="cut off|broken after"):
            list(frames_in(film_at(tmp_path / "cut")))
    frames = [Image.effect_noise((64, 64), 90) for _ in range(4)]
    for suffix in ("gif", "png"):
        frames[0].save(tmp_path / f"film.{suffix}", save_all=True, append_images=frames[1:])
        content = (tmp_path / f"film.{suffix}").read_bytes()
        (tmp_path / "cut").write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(BadImage, match="truncated"):
            list(frames_in(film_at(tmp_path / "cut")))
