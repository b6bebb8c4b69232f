"""Frames of films are targets like photographs, and each search starts where it is told to."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.editing.film_files import write_film
from stylegan.latents.latents import SUFFIX, Latents, save_latents
from stylegan.projection.sequences import film_files, in_sequence, read_footage, start_files, starts_for, write_found
from tests.stylegan.tiny import snapshot, trained
from torch_utils.errors import UserError
from torch_utils.images.films import film_at, frames_in


def test_frames_come_in_the_order_of_their_numbers():
    names = ["f10.png", "f9.png", "f1.png", "a2b10.png", "a2b9.png", "10.png", "9.png"]
    ordered = ["9.png", "10.png", "a2b9.png", "a2b10.png", "f1.png", "f9.png", "f10.png"]
    found = [path.name for path in in_sequence([Path(name) for name in names])]
    assert found == sorted(found, key=ordered.index) and len(found) == len(names)


def film(path: Path, count: int = 3, fps: float = 20, size: tuple[int, int] = (16, 16)) -> Path:
    write_film(path, (np.full((*size, 3), 40 * i + 20, np.uint8) for i in range(count)), fps)
    return path


def latents_of(*names: str) -> Latents:
    ws = torch.randn(len(names), 1, 8).expand(-1, 6, -1)
    return Latents(ws, names, names)


def test_frames_of_a_film_are_targets_in_the_memory_of_a_few(tmp_path):
    path = film(tmp_path / "my.walk.webp", 3, 20, (32, 40))
    footage = read_footage(film_at(path), snapshot())
    assert [photo.name for photo in footage.photos] == ["my.walk-00001", "my.walk-00002", "my.walk-00003"]
    assert [photo.pixels[0, 0, 0] for photo in footage.photos] == [20, 60, 100]
    assert footage.photos[0].pixels.shape == (16, 16, 3) and footage.fps == 20
    maps = {id(photo.pixels.base) for photo in footage.photos}
    assert all(isinstance(photo.pixels, np.memmap) for photo in footage.photos) and len(maps) == 1
    assert footage.said() == [
        "my.walk.webp: 3 frames, 20 a second", "my.walk.webp: 40x32 cut to 32x32 resized to 16x16"
    ]  # fmt: skip
    assert len({photo.crop.photo for photo in footage.photos}) == 3
    still = tmp_path / "still.webp"
    write_film(still, [np.zeros((16, 16, 3), np.uint8)] * 2, 20)
    assert len({photo.crop.photo for photo in read_footage(film_at(still), snapshot()).photos}) == 2


def test_frames_without_a_face_are_counted_and_show_the_one_before(tmp_path):
    def align(image: Image.Image) -> tuple[Image.Image, str, np.ndarray]:
        if image.getpixel((0, 0))[0] in (60, 100):
            raise UserError("no face was found")
        return image, "", np.zeros((4, 2))

    snap = trained()
    footage = read_footage(film_at(film(tmp_path / "a.webp", 4)), snap, {1: align, 2: align})
    assert [photo.name for photo in footage.photos] == [
        "a-00001-face1", "a-00001-face2", "a-00004-face1", "a-00004-face2"
    ]  # fmt: skip
    assert footage.said()[-1] == "a.webp: skipped 2 frames (2-3): no face was found"
    out = tmp_path / "out"
    out.mkdir()
    for photo in footage.photos:
        save_latents(out / f"{photo.name}{SUFFIX}", latents_of(photo.name), snap)
    first, second = write_found(footage, out, snap, False)
    assert [first, second] == list(film_files(footage, out, 3).values())
    shown = [np.asarray(frame.image) for frame in frames_in(film_at(first))]
    assert [frame.seconds for frame in frames_in(film_at(first))] == [
        Fraction(1, 20)
    ] * 4 and first.name == "a-face1.webp"
    assert all(np.array_equal(shown[0], frame) for frame in shown[:3]) and not np.array_equal(shown[0], shown[3])
    with pytest.raises(UserError, match=r"none of its 1 frame|no face"):
        read_footage(film_at(film(tmp_path / "b.webp", 4)), snap, lambda image: align(image.point(lambda v: 60)))


def test_starts_are_found_by_name_or_in_order():
    a, b, c = latents_of("a", "b"), latents_of("c"), latents_of("d")
    starts, line = starts_for(["c", "a", "b"], [("x", a), ("y", b), ("z", c)])
    assert [start.names for start in starts] == [("c",), ("a",), ("b",)]
    assert line == "starts found by their names; 1 latent of no such photograph left out"
    starts, line = starts_for(["p", "q"], [("x", a)])
    assert [start.names for start in starts] == [("a",), ("b",)] and line == "starts in order: p at a, q at b"
    starts, _ = starts_for(["z", "y"], [("y", b), ("z", c)])  # as the files are called
    assert [start.names for start in starts] == [("d",), ("c",)]
    (start,), line = starts_for(["p", "q", "r"], [("x", b)])  # one for all
    assert start.names == ("c",) and line == ""


@pytest.mark.parametrize(("names", "message"), [
    (["p", "q"], "there are 3 latents to start at, for 2 photographs, and other names"),
    (["a", "q", "b"], "but not for q; give"), (["a", "b"], "there are 2 latents to start at for b; give one"),
])  # fmt: skip
def test_starts_that_do_not_fit(names, message):
    with pytest.raises(UserError, match=message):
        starts_for(names, [("x", latents_of("a", "b")), ("y", latents_of("b"))])


def test_a_folder_of_latents_to_start_at(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "photos/a.png")
    said: list[str] = []
    with pytest.raises(UserError, match="there is no latent file .* in the folder"):
        start_files([str(tmp_path / "photos")], said.append)
    (tmp_path / f"b{SUFFIX}").touch()
    (tmp_path / f"a{SUFFIX}").touch()
    assert [path.name for path in start_files([str(tmp_path), "c"], said.append)] == [f"a{SUFFIX}", f"b{SUFFIX}", "c"]
    assert "photos" in said[0]
