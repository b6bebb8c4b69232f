"""Images of a run: every cell can be made again, and the film shows the whole run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.editing.film_files import WebPFrame, webp_frame
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.images import to_uint8
from training.data.archive import Archive
from training.data.dataset import Dataset
from training.runs import report
from training.runs.report import (
    FIRST,
    MAX_FRAME_PIXELS,
    MAX_FRAMES,
    about_growth,
    growth_frame,
    save_fakes,
    save_film,
    save_growth,
    save_key,
    save_reals,
    seeds_and_classes,
)
from training.state import fresh_state

CPU = torch.device("cpu")


def cells(path: Path, columns: int, size: tuple[int, int]) -> np.ndarray:
    """The images of a grid file, [N,H,W,...]."""
    image = np.array(Image.open(path))
    rows = image.shape[0] // size[0]
    grid = image.reshape(rows, size[0], columns, size[1], *image.shape[2:])
    return grid.swapaxes(1, 2).reshape(-1, *size, *image.shape[2:])


@pytest.mark.parametrize("cond", [False, True])
@pytest.mark.parametrize("resolution, alpha", [(4, 1.0), (8, 0.4), (16, 1.0)])
def test_every_cell_is_the_picture_of_its_seed(tiny, tmp_path, cond: bool, resolution: int, alpha: float) -> None:
    cfg = tiny(data__cond=cond)
    G = fresh_state(cfg, CPU).G_ema
    stage = Stage(resolution, alpha)
    save_fakes(tmp_path / "fakes.png", G, stage)
    save_key(tmp_path / "fakes.json", cfg.model)
    key = json.loads((tmp_path / "fakes.json").read_text())
    found = cells(tmp_path / "fakes.png", key["columns"], (16, 16))
    assert len(found) == len(key["seeds"])
    for cell in (0, 5, len(found) - 1):
        c = torch.tensor([key["classes"][cell]]) if cond else None
        alone = to_uint8(Renderer.of(G, stage).render([key["seeds"][cell]], c, psi=key["trunc"]))[0]
        factor = 16 // resolution
        assert np.abs(found[cell][::factor, ::factor].astype(int) - alone).max() <= 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("classes, columns", [(0, 8), (1, 8), (3, 3), (10, 10), (100, 16)])
def test_classes_have_a_column_each(tiny, classes: int, columns: int) -> None:
    seeds, found, c = seeds_and_classes(tiny(model__num_classes=classes).model)
    assert found == columns and len(seeds) % columns == 0
    if classes > 1:
        assert c.reshape(-1, columns).eq(torch.arange(columns)).all()
    elif classes:
        assert c.max() < classes


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_reals_are_pictures_of_the_data(new_images, tiny, tmp_path, channels: int) -> None:
    archive = Archive.open(new_images(size=(16, 24), channels=channels))
    cfg = tiny(archive.path)
    save_reals(tmp_path / "reals.png", Dataset(archive), cfg.model)
    known = {archive.read(i).tobytes() for i in range(len(archive))}
    found = cells(tmp_path / "reals.png", 8, (16, 24))
    assert len({cell.tobytes() for cell in found}) == len(archive)
    assert {cell.tobytes() for cell in found} == known


def test_the_film_goes_from_the_first_picture_to_the_last(tiny, tmp_path) -> None:
    model = tiny().model
    _, (height, width) = growth_frame(model)
    count = 2 * MAX_FRAMES
    for number in range(count + 1):
        name = FIRST if number == count else f"fakes{number:06d}.png"
        grey = 255 if number == count else number * 200 // count
        Image.new("L", (width, height), grey).save(tmp_path / name)
    save_growth(tmp_path, model)
    film = Image.open(tmp_path / "growth.webp")
    assert MAX_FRAMES / 2 <= film.n_frames <= MAX_FRAMES and film.size == (width, height)
    greys, times = [], []
    for frame in range(film.n_frames):
        film.seek(frame)
        greys.append(np.array(film.convert("L"), int).mean())
        times.append(film.info["duration"])
    assert abs(greys[0] - 255) < 3 and abs(greys[-1] - 200) < 3
    assert np.all(np.diff(greys[1:]) > -1)
    assert times == [120] * (film.n_frames - 1) + [3000]
    assert not list(tmp_path.glob(".*"))


def test_what_is_damaged_or_of_another_size_is_not_in_the_film(tmp_path) -> None:
    good, cut, other, palette = (tmp_path / f"{name}.png" for name in ("good", "cut", "other", "palette"))
    Image.new("RGB", (16, 8), "red").save(good)
    Image.new("P", (16, 8)).save(palette)
    Image.new("RGB", (8, 8)).save(other)
    cut.write_bytes(good.read_bytes()[:50])
    save_film(tmp_path / "a.webp", [cut, good, other, tmp_path / "missing.png", palette, good], 1, (8, 16))
    with Image.open(tmp_path / "a.webp") as film:
        assert film.n_frames == 3
    save_film(tmp_path / "none.webp", [cut, other], 1, (8, 16))
    assert not (tmp_path / "none.webp").exists()


@pytest.mark.parametrize("resolution, smaller", [(64, 1), (256, 1), (512, 2), (1024, 4)])
def test_frames_of_large_networks_are_reduced(resolution: int, smaller: int) -> None:
    model = StyleGAN1Config(resolution=resolution)
    found, (height, width) = growth_frame(model)
    assert found == smaller and height * width <= MAX_FRAME_PIXELS
    assert ("of their size" in about_growth(model)) == (smaller > 1) and f"{width}x{height}" in about_growth(model)


def test_reduced_frames_are_averages(tmp_path) -> None:
    stripes = np.zeros((16, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    save_film(tmp_path / "a.webp", [tmp_path / "a.png"], 4, (4, 8))
    with Image.open(tmp_path / "a.webp") as film:
        assert film.size == (8, 4) and np.abs(np.asarray(film.convert("L"), int) - 100).max() <= 2


def test_frames_of_the_film_before_are_taken_from_there_and_change_nothing(tmp_path, monkeypatch) -> None:
    encoded: list[bytes] = []

    def counting(pixels: np.ndarray, options: dict[str, int], key: bytes) -> WebPFrame:
        encoded.append(key)
        return webp_frame(pixels, options, key)

    monkeypatch.setattr(report, "webp_frame", counting)
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for number, file in enumerate(files):
        Image.new("RGB", (16, 8), (40 * number, 0, 0)).save(file)
    for count, new in ((4, 4), (6, 2), (6, 0)):
        save_film(tmp_path / "a.webp", files[:count], 1, (8, 16))
        assert len(encoded) == new
        encoded.clear()
    Image.new("RGB", (16, 8), "blue").save(files[2])  # of the same name
    save_film(tmp_path / "a.webp", files, 1, (8, 16))
    assert len(encoded) == 1
    save_film(tmp_path / "b.webp", files, 1, (8, 16))
    whole = (tmp_path / "b.webp").read_bytes()
    assert (tmp_path / "a.webp").read_bytes() == whole
    with Image.open(tmp_path / "a.webp") as film:
        assert film.n_frames == 6
    for damaged in (b"", whole[: len(whole) // 2], whole[:-7], b"RIFF" + bytes(60), whole.replace(b"ANMF", b"ANMX", 1)):
        (tmp_path / "a.webp").write_bytes(damaged)
        save_film(tmp_path / "a.webp", files, 1, (8, 16))
        assert (tmp_path / "a.webp").read_bytes() == whole
