"""Any image file becomes a target in the size and channels of the network, and then stands where seeds stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.render import View, gather
from stylegan.model import Model
from stylegan.networks.config import Stage
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from stylegan.projection.alignment import aligned, corners_of
from stylegan.projection.photos import (
    Align,
    as_targets,
    fitted,
    left_out_of,
    levels_of,
    photos_in,
    project_photos,
    projecting,
    read_photo,
    read_photos,
    standing_in,
)
from stylegan.projection.projector import WStatistics
from stylegan.projection.settings import ProjectionSettings
from torch_utils.errors import UserError
from torch_utils.text import parse_levels
from training.data.importers.image import Target, convert_image
from training.data.importers.rules import Rules
from training.data.sizes import Size

original = WStatistics._measure
FAST = ProjectionSettings(num_steps=4, w_samples=50)


def snapshot(channels: int = 3, base: tuple[int, int] = (4, 4), stage: Stage | None = None,
             num_classes: int = 0) -> Snapshot:  # fmt: skip
    torch.manual_seed(0)
    cfg = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16,
                      channels=channels, base=base, num_classes=num_classes)  # fmt: skip
    return Snapshot(build_generator(cfg).eval().requires_grad_(False), None, cfg, stage or cfg.full, 1.0, "faces")


def saved(path: Path, mode: str = "RGB", size: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    shape = (size[1], size[0], len(Image.new(mode, (1, 1)).getbands()))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels if shape[2] > 1 else pixels[:, :, 0], mode).save(path)
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_that_fits_is_not_changed(channels, tmp_path):
    path = saved(tmp_path / "a.png", {1: "L", 3: "RGB", 4: "RGBA"}[channels])
    pixels, notes = read_photo(path, snapshot(channels))
    assert notes == () and np.array_equal(pixels, np.asarray(Image.open(path)).reshape(16, 16, channels))
    photos, _ = read_photos([path], snapshot(channels))
    targets = as_targets(photos)
    assert targets.shape == (1, channels, 16, 16) and float(targets.min()) >= -1 and float(targets.max()) <= 1
    torch.testing.assert_close((targets[0].permute(1, 2, 0) + 1) * 127.5, torch.from_numpy(pixels).float())


@pytest.mark.parametrize(("mode", "channels", "said"), [
    ("L", 3, "grey made RGB"), ("RGB", 1, "colour made grey"), ("RGBA", 3, "laid on white"), ("L", 4, "grey made RGBA"),
    ("RGB", 4, "RGB made RGBA"), ("LA", 1, "laid on white"), ("RGBA", 1, "laid on white, colour made grey"),
])  # fmt: skip
def test_other_channels_are_converted_with_a_note(mode, channels, said, tmp_path):
    pixels, notes = read_photo(saved(tmp_path / "a.png", mode), snapshot(channels))
    assert notes == (said,) and pixels.shape == (16, 16, channels)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_grey_in_16_bits_keeps_its_greys(bits, tmp_path):
    grey = np.linspace(0, 2**bits - 1, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    pixels, _ = read_photo(tmp_path / "a.png", snapshot())
    assert np.array_equal(pixels[:, :, 0], grey >> (bits - 8))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1", "I;16"])
@pytest.mark.parametrize("size", [(16, 16), (30, 41), (7, 9)])
def test_a_photo_has_the_pixels_that_an_archive_would_have(mode, size, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    grey = noise[:, :, 0].astype(np.uint16) * 250
    image = Image.fromarray(grey) if mode == "I;16" else Image.fromarray(noise).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.tif", exif=exif)
    for channels in (1, 3):
        pixels, _ = read_photo(tmp_path / "a.tif", snapshot(channels))
        archived = convert_image((tmp_path / "a.tif").read_bytes(), Target(Size(16, 16), channels, Rules(upscale=True)))
        np.testing.assert_array_equal(pixels, archived)


@pytest.mark.parametrize(("size", "said"), [
    ((32, 32), "32x32 resized to 16x16"), ((40, 32), "40x32 cut to 32x32 resized to 16x16"),
    ((10, 30), "10x30 cut to 10x10 resized to 16x16"), ((1, 1), "1x1 resized to 16x16"),
])  # fmt: skip
def test_other_sizes_are_cropped_and_resized_with_a_note(size, said, tmp_path):
    pixels, notes = read_photo(saved(tmp_path / "a.png", size=size), snapshot())
    assert notes == (said,) and pixels.shape == (16, 16, 3)


def test_a_whole_number_of_times_larger_is_averaged_about_the_centre():
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, 8:40] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    found, _ = fitted(Image.fromarray(pixels), 16, 16)
    mean = pixels[:, 8:40].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(found, float) - mean).max() <= 1


def test_networks_that_are_not_square(tmp_path):
    pixels, notes = read_photo(saved(tmp_path / "a.png", size=(48, 48)), snapshot(base=(6, 4)))
    assert pixels.shape == (24, 16, 3) and notes == ("48x48 cut to 32x48 resized to 16x24",)


def test_a_half_grown_network_takes_images_of_the_size_that_it_generates(tmp_path):
    pixels, notes = read_photo(saved(tmp_path / "a.png"), snapshot(stage=Stage(8, 0.4)))
    assert pixels.shape == (8, 8, 3) and notes == ("16x16 resized to 8x8",)


def test_a_photo_is_turned_upright_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    image.save(tmp_path / "a.png", exif=exif)
    pixels, _ = read_photo(tmp_path / "a.png", snapshot(1))
    assert np.array_equal(pixels[:, :, 0], np.asarray(image)[::-1, ::-1])


def cutting(box: tuple[int, int, int, int]) -> Align:
    return lambda image: (image.crop(box), f"aligned {image.mode}", corners_of(box))


def test_alignment_comes_first_and_has_a_note(tmp_path):
    path = saved(tmp_path / "a.png", "L", (64, 48))
    pixels, notes = read_photo(path, snapshot(), cutting((0, 0, 16, 16)))
    assert notes == ("aligned RGB",) and pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_alignment_does_not_show_what_is_below_transparency(mode, channels, tmp_path):
    hidden = Image.new("RGBA", (64, 48), (255, 0, 0, 0)).convert(mode)
    hidden.paste(Image.new(mode, (8, 48), "black"), (0, 0))
    hidden.save(tmp_path / "a.png")
    pixels, notes = read_photo(tmp_path / "a.png", snapshot(channels), cutting((0, 0, 16, 16)))
    assert pixels[:, :8, :3].max() == 0 and notes[-1 if channels == 4 else 0].startswith(
        "aligned RGBA" * (channels == 4)
    )
    if channels == 4:
        assert pixels[:, 8:, 3].max() == 0 and pixels[:, :8, 3].min() == 255
    else:
        assert pixels[:, 8:].min() == 255 and "laid on white" in notes


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_faces_are_looked_for_on_white(mode, tmp_path):
    seen = []

    def find(image: Image.Image) -> list[np.ndarray]:
        seen.append(image)
        return [np.array([[20, 20], [30, 20], [20, 30], [30, 30]], np.float64)]

    Image.new("RGBA", (64, 48), (255, 0, 0, 0)).convert(mode).save(tmp_path / "a.png")
    for channels in (3, 4):
        pixels, _ = read_photo(tmp_path / "a.png", snapshot(channels), lambda image: aligned(image, find, 16))
        assert seen[-1].mode == "RGB" and np.asarray(seen[-1]).min() == 255
        assert (pixels[:, :, 3] == 0).all() if channels == 4 else (pixels == 255).all()


def test_the_part_of_the_photograph_is_kept(tmp_path):
    path = saved(tmp_path / "a.png", size=(40, 30))
    (photo,), _ = read_photos([path], snapshot())
    assert photo.crop is not None and photo.crop.size == (40, 30)
    assert photo.crop.corners == ((5, 0), (5, 30), (35, 30), (35, 0))
    turned = np.array([[10.0, 4], [2, 10], [8, 18], [16, 12]])
    (photo,), _ = read_photos([path], snapshot(base=(4, 2)), lambda image: (image.crop((0, 0, 20, 20)), "", turned))
    assert photo.crop is not None
    np.testing.assert_allclose(photo.crop.corners, [[11.5, 6], [3.5, 12], [6.5, 16], [14.5, 10]])
    (other,), _ = read_photos([saved(tmp_path / "b.png", size=(40, 30), seed=1)], snapshot())
    assert other.crop is not None and other.crop.photo != photo.crop.photo


def test_each_face_of_a_photograph_is_one_with_a_name_of_its_own(tmp_path):
    paths = [saved(tmp_path / name, size=(64, 48)) for name in ("a.png", "a.webp")]
    aligns = {2: cutting((0, 0, 16, 16)), 1: cutting((16, 0, 32, 16))}
    photos, _ = read_photos(paths, snapshot(), aligns)
    assert [photo.name for photo in photos] == ["a-face2", "a-face1", "a-face2-2", "a-face1-2"]
    assert [photo.face for photo in photos] == [2, 1, 2, 1]
    assert not np.array_equal(photos[0].pixels, photos[1].pixels)


def test_a_photograph_keeps_the_name_that_it_has(tmp_path):
    first, newer = saved(tmp_path / "a.png"), saved(tmp_path / "a.jpg")
    photos, _ = read_photos([newer, first], snapshot(), names={(first.resolve(), None): "a"})
    assert [photo.name for photo in photos] == ["a-2", "a"]
    photos, _ = read_photos([newer], snapshot(), names={(first.resolve(), None): "a", (newer.resolve(), 1): "b"})
    assert [photo.name for photo in photos] == ["a"]  # which a job then refuses


def test_broken_files_have_reasons_and_the_others_unique_names(tmp_path):
    for name in ("b.png", "B.webp", "b.jpg"):
        saved(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "d.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:400])
    for name in ("notes.txt", "._b.jpg"):
        (tmp_path / name).touch()
    paths = photos_in(tmp_path)
    photos, faults = read_photos(paths, snapshot())
    assert len({photo.name.lower() for photo in photos}) == 3 and {photo.name[0] for photo in photos} == {"b", "B"}
    assert {path.name for path in faults} == {"c.png", "d.jpg"}
    assert all(str(path) in reason and "\n" not in reason for path, reason in faults.items())
    assert "d.jpg: broken (Truncated File Read)" in faults[tmp_path / "d.jpg"]


def test_where_there_is_no_image(tmp_path):
    with pytest.raises(UserError, match="There are no images in"):
        photos_in(tmp_path)
    with pytest.raises(UserError, match="There is no file or folder"):
        photos_in(tmp_path / "absent.png")


# Projected in one call, and in place of seeds


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "eva.png", tmp_path / "tom.png"]
    for seed, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return paths


def test_latents_are_called_after_their_photos(photos):
    snap = snapshot()
    found = project_photos(snap, photos, FAST, "pixels")
    assert found.names == ("eva", "tom") and found.origins == ("photo eva.png", "photo tom.png")
    assert found.psi == 1 and len(found.noise) == 6 and found.ws.shape == (2, 6, 8)
    short = Model(snap).project(str(photos[1]), num_steps=4)
    assert short.names == ("tom",) and snap.renderer.draw(short.ws, short.noise).shape == (1, 3, 16, 16)


def test_classes_are_counted_round(photos):
    found = project_photos(snapshot(num_classes=3), photos, FAST, "pixels", c=[2])
    assert found.c is not None and found.c.tolist() == [2, 2]
    with pytest.raises(UserError, match="3 classes"):
        project_photos(snapshot(num_classes=3), photos, FAST)


def test_a_file_that_is_not_an_image_is_named(photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(UserError, match="broken.png"):
        project_photos(snapshot(), [*photos, tmp_path / "broken.png"], FAST)


def test_photos_and_seeds_are_gathered_together(photos, capsys):
    view = View.of(snapshot(), psi=1.0)
    found = gather([photos[0], 5, photos[0]], view, project=projecting(4))
    assert found.names[0] == "eva" and torch.equal(found.ws[0], found.ws[2])
    torch.testing.assert_close(view.draw(found)[1:2], view.render([5]))
    assert "Projecting 1 photo:" in capsys.readouterr().err


def test_batches_share_what_is_computed_once(photos, monkeypatch):
    measured = []
    monkeypatch.setattr(WStatistics, "_measure", lambda self, kind: measured.append(kind) or original(self, kind))
    view = View.of(snapshot(), psi=1.0)
    one_by_one = gather(photos, view, project=projecting(4, batch=1))
    assert measured == [None]
    together = gather(photos, view, project=projecting(4))
    torch.testing.assert_close(one_by_one.ws, together.ws, rtol=1e-2, atol=2e-3)


def test_a_photo_that_cannot_be_aligned_is_named(photos):
    def align(image: Image.Image) -> tuple[Image.Image, str, np.ndarray]:
        raise UserError("no face was found")

    _, faults = read_photos(photos, snapshot(), align)
    assert [str(faults[path]) for path in photos] == [f"{path}: no face was found" for path in photos]


def test_what_was_changed_is_said_before_photographs_take_the_place_of_seeds(tmp_path, capsys):
    view = View.of(snapshot(1))
    standing_in([grey16(tmp_path / "a.png", 300 << 6), grey16(tmp_path / "b.png", 30)], view, ())
    assert capsys.readouterr().err == (
        "a.png: 16-bit values, 0:65535 as black to white\n"
        "b.png: 16-bit values, 0:65535 as black to white, dark, with next to nothing brighter than a quarter of white; "
        "project.py --levels MIN:MAX says what is white\n"
    )


# What the files of photographs need


PROFILES = Path(__file__).parents[2] / "data/profiles"


def grey16(path: Path, highest: int) -> Path:
    Image.fromarray(np.linspace(0, highest, 256).astype(np.uint16).reshape(16, 16)).save(path)
    return path


def test_all_photographs_of_a_command_have_the_same_levels(tmp_path):
    paths = [grey16(tmp_path / "a.png", 4095), grey16(tmp_path / "b.png", 300), saved(tmp_path / "c.png", "L")]
    photos, faults = read_photos(paths, snapshot(1))
    assert faults == {} and [photo.pixels.max() for photo in photos[:2]] == [255, 300 >> 4]
    assert photos[0].notes == ("16-bit values, 0:4095 as black to white",) and photos[2].notes == ()
    assert "dark" in photos[1].notes[0] and "--levels" in photos[1].notes[0]
    narrow = tmp_path / "narrow.png"
    Image.fromarray(np.linspace(32844, 33652, 256).astype(np.uint16).reshape(16, 16)).save(narrow)
    (photo,), _ = read_photos([narrow], snapshot(1))
    assert photo.pixels.min() == 0 and photo.pixels.max() == 255
    (photo,), _ = read_photos([narrow], snapshot(1), levels=levels_of([narrow], parse_levels("full")))
    assert "almost one grey, 128 to 131 of 255; project.py --levels 32844:33652" in photo.notes[0]
    for rule, brightest in (("full", [15, 1]), ("0:300", [255, 255])):
        photos, _ = read_photos(paths, snapshot(1), levels=levels_of(paths, parse_levels(rule)))
        assert [photo.pixels.max() for photo in photos[:2]] == brightest
    Image.fromarray(np.full((16, 16), -3, np.int32)).save(tmp_path / "d.tif")
    _, faults = read_photos([*paths, tmp_path / "d.tif"], snapshot(1))
    assert "signed 32-bit pixels from -3 to -3" in faults[tmp_path / "d.tif"]


def test_photographs_in_place_of_seeds_have_the_same_levels_in_every_batch(tmp_path):
    paths = [grey16(tmp_path / "a.png", 4095), grey16(tmp_path / "b.png", 300)]
    view = View.of(snapshot(1))
    together = projecting(2, batch=2)(paths, view, [])
    apart = projecting(2, batch=1)(paths, view, [])
    torch.testing.assert_close(together.ws, apart.ws, rtol=0, atol=1e-2)


def test_colours_become_srgb_and_further_frames_are_noted(tmp_path):
    wide = (PROFILES / "wide.icc").read_bytes()
    Image.new("RGB", (16, 16), (200, 80, 60)).save(tmp_path / "a.png", icc_profile=wide)
    pixels, notes = read_photo(tmp_path / "a.png", snapshot())
    assert pixels[0, 0].tolist() == [230, 79, 56] and notes == ("converted to sRGB from Wide colours",)
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "white")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    assert read_photo(tmp_path / "b.gif", snapshot())[1] == ("the first of 3 images in the file",)


def test_what_else_is_in_a_folder_is_named(tmp_path):
    saved(tmp_path / "a.png")
    assert left_out_of(tmp_path) == left_out_of(tmp_path / "a.png") == ""
    (tmp_path / "more").mkdir()
    (tmp_path / "a.txt").touch()
    assert "1 other file (1 .txt) and 1 folder left out" in left_out_of(tmp_path)
    (tmp_path / "lost.png").symlink_to("nowhere")
    assert photos_in(tmp_path) == [tmp_path / "a.png", tmp_path / "lost.png"]
    photos, faults = read_photos(photos_in(tmp_path), snapshot())
    assert len(photos) == 1 and list(faults) == [tmp_path / "lost.png"]
