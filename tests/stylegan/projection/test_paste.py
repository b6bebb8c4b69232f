"""An edited image goes back to where it is from, fades in there, and leaves all else of the photograph as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.latents.latents import Crop, Latents, joined, load_latents, mixed, save_latents
from stylegan.projection.alignment import cut_out
from stylegan.projection.paste import EDGE, pasted, photographs_of
from stylegan.projection.photos import opened, read_photos
from tests.stylegan.tiny import trained
from torch_utils.errors import UserError

SIZE = (96, 72)


def photograph(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth, and different in every place."""
    y, x = np.mgrid[: size[1], : size[0]] / 30
    bands = np.stack([np.sin(x + y), np.cos(y - 2 * x), np.sin(x * y), np.cos(x) / 2 + 0.4], axis=2)
    return Image.fromarray((bands * 60 + 128).astype(np.uint8), "RGBA").convert(mode)


def crop_of(corners: np.ndarray, size: tuple[int, int] = SIZE) -> Crop:
    return Crop("a", size, tuple((float(x), float(y)) for x, y in corners))


def turned(degrees: float, side: float, middle: tuple[float, float]) -> np.ndarray:
    a = np.radians(degrees)
    x, y = side / 2 * np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    return np.array(middle) + np.array([-x - y, y - x, x + y, x - y])


PLACES = {
    "upright": turned(0, 40, (50, 36)), "turned": turned(25, 40, (50, 36)), "upside down": turned(180, 44, (40, 30)),
    "over the edge": turned(-15, 50, (80, 60)), "larger than the photograph": turned(5, 160, (48, 36)),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("side", [32, 128])
def test_what_was_cut_out_goes_back_to_its_place(place, side):
    photo, corners = photograph(), PLACES[place]
    found = pasted(photo, cut_out(photo, corners - 0.5, side), crop_of(corners))
    difference = np.abs(np.asarray(found, int) - np.asarray(photo, int))
    assert found.size == SIZE and found.mode == "RGB"
    coarse = side == 32 or place.startswith("larger")
    assert np.median(difference) <= 1 + place.startswith("larger")
    assert np.percentile(difference, 99) <= (12 if coarse else 6)


@pytest.mark.parametrize("place", PLACES)
def test_it_fades_and_what_is_outside_stays_to_the_bit(place):
    photo, corners = Image.new("RGB", SIZE, "black"), PLACES[place]
    found = np.asarray(pasted(photo, Image.new("RGB", (32, 32), "white"), crop_of(corners)))[:, :, 0].astype(int)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    beside, below = corners[3] - corners[0], corners[1] - corners[0]
    s, t = ((x - corners[0][0]) * v[0] + (y - corners[0][1]) * v[1] for v in (beside, below))
    depth = np.minimum.reduce(
        [s / (beside @ beside), 1 - s / (beside @ beside), t / (below @ below), 1 - t / (below @ below)]
    )
    assert (found[depth <= 0] == 0).all() and (found[depth >= EDGE] == 255).all()
    steps = max(np.abs(np.diff(found, axis=axis)).max() for axis in (0, 1))
    assert steps < 255 * 2 / (EDGE * np.linalg.norm(beside)) + 2  # no frame is seen


@pytest.mark.parametrize("photo, image, mode", [
    ("L", "L", "L"), ("L", "RGB", "RGB"), ("RGB", "L", "RGB"), ("LA", "L", "LA"), ("RGBA", "RGB", "RGBA"),
    ("RGB", "RGBA", "RGBA"), ("RGBA", "RGBA", "RGBA"), ("LA", "RGB", "RGBA"),
])  # fmt: skip
def test_colours_and_transparency(photo, image, mode):
    before, middle = photograph(photo), (36, 50)
    found = pasted(before, Image.new(image, (16, 16), "white"), crop_of(PLACES["turned"]))
    assert found.mode == mode and np.asarray(found)[middle].max() == 255
    if mode in ("LA", "RGBA"):
        alpha, own = np.asarray(found)[:, :, -1], np.asarray(before.convert("RGBA"))[:, :, 3]
        assert alpha[middle] == (255 if image == "RGBA" else own[middle]) and alpha[2, 2] == own[2, 2]


def test_an_image_with_transparency_of_its_own_shows_no_hidden_colours():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    found = np.asarray(pasted(Image.new("RGB", SIZE, "blue"), image, crop_of(PLACES["turned"])))
    assert found[36, 50, 3] == 0 and found[:, :, 0].max() == 0 and found[2, 2].tolist() == [0, 0, 255, 255]


def test_a_part_outside_changes_nothing_and_one_without_area_is_an_error():
    photo, image = photograph(), Image.new("RGB", (16, 16))
    outside = crop_of(PLACES["upright"] + 500)
    assert pasted(photo, image, outside).tobytes() == photo.tobytes()
    with pytest.raises(UserError, match="without any area"):
        pasted(photo, image, crop_of(np.full((4, 2), 5.0)))


# Which photograph


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    paths = [tmp_path / "eva.png", tmp_path / "tom.png"]
    for path, mode in zip(paths, ("RGB", "L"), strict=True):
        photograph(mode).save(path)
    return paths


def latents_of(paths: list[Path]) -> Latents:
    found, _ = read_photos(paths, SNAPSHOT)
    ws = SNAPSHOT.renderer.map(torch.randn(len(paths), 8))
    return Latents(
        ws, tuple(p.name for p in found), tuple(p.path.name for p in found), crops=tuple(p.crop for p in found)
    )


SNAPSHOT = trained()


def test_latents_keep_their_crops_through_files_and_edits(photos, tmp_path):
    latents = latents_of(photos)
    save_latents(tmp_path / "a.latent.safetensors", latents, SNAPSHOT)
    assert load_latents(tmp_path / "a.latent.safetensors", SNAPSHOT).crops == latents.crops
    plain = replace(latents, crops=())
    assert joined([plain, latents[1:]]).crops == (None, None, latents.crops[1]) and joined([plain, plain]).crops == ()
    assert mixed(latents, plain, [0, 1], [(0, 1), (1, 0)]).crops == latents.crops


@pytest.mark.parametrize("change", [
    {"corners": ((0.0, 0.0),)}, {"corners": ((float("nan"), 0.0),) * 4}, {"corners": ((1e9, 0.0),) * 4},
    {"size": (0, 5)},
])  # fmt: skip
def test_damaged_crops_are_refused(change, photos, tmp_path):
    latents = latents_of(photos)
    crops = (replace(latents.crops[0], **change), None)
    save_latents(tmp_path / "a.latent.safetensors", replace(latents, crops=crops), SNAPSHOT)
    with pytest.raises(UserError, match="parts of photographs are not numbers of pixels"):
        load_latents(tmp_path / "a.latent.safetensors", SNAPSHOT)
    save_latents(tmp_path / "a.latent.safetensors", replace(latents, crops=latents.crops[:1]), SNAPSHOT)
    with pytest.raises(UserError, match="parts of photographs"):
        load_latents(tmp_path / "a.latent.safetensors", SNAPSHOT)


def test_each_of_the_latents_finds_its_photograph(photos):
    latents = latents_of(photos)
    assert [path for path, _ in photographs_of(latents, photos[::-1])] == photos
    with pytest.raises(UserError, match="eva.png is not the file that tom is of .*--force another one of 96x72"):
        photographs_of(latents, photos[:1])
    assert [path for path, _ in photographs_of(latents, photos[:1], force=True)] == [photos[0]] * 2
    Image.new("RGB", (50, 50)).save(photos[1])
    with pytest.raises(UserError, match="is not the file that tom is of"):
        photographs_of(latents[1:], photos[1:], force=True)
    with pytest.raises(UserError, match="the latents of eva .* do not say where"):
        photographs_of(replace(latents, crops=()), photos)


def test_a_photograph_is_known_by_the_content_of_its_file(photos, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(photos[0].read_bytes())
    assert opened(copy)[1] == opened(photos[0])[1] != opened(photos[1])[1]


def test_the_fade_begins_and_ends_without_a_step():
    found = pasted(
        Image.new("L", (200, 200)), Image.new("L", (8, 8), 255), crop_of(turned(0, 200, (100, 100)), (200, 200))
    )
    row, quarter = np.asarray(found)[100].astype(int), int(200 * EDGE / 4)
    assert row[0] <= 1 and row[quarter] == pytest.approx(40, abs=2) and row[4 * quarter - 1] >= 250
