"""The command that makes the style-mixing matrix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import generate
import style_mixing
from stylegan import points
from stylegan.config import ModelConfig, progan_config
from stylegan.networks import build_generator
from stylegan.projection import project_photos
from stylegan.snapshot import save_snapshot

TINY = ModelConfig(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
CONFIGS = {"faces": TINY, "digits": replace(TINY, channels=1, num_classes=10), "icons": replace(TINY, channels=4),
           "progan": progan_config(16, z_dim=8, fmap_max=16)}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, cfg in CONFIGS.items():
        torch.manual_seed(0)
        G = build_generator(cfg)
        save_snapshot(folder / f"{name}.safetensors", G, config=cfg, resolution=16, alpha=1.0, kimg=5.0, data="them")
    return folder


@pytest.fixture
def run(models, tmp_path):
    def run(command, name: str, *options: object) -> Result:
        words = ["--network", models / f"{name}.safetensors", "--outdir", tmp_path / "out", "--device", "cpu", *options]
        return CliRunner().invoke(command.main, [str(word) for word in words])

    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def cell(matrix: np.ndarray, row: int, col: int) -> np.ndarray:
    return matrix[row * 16 : row * 16 + 16, col * 16 : col * 16 + 16]


def test_the_matrix_its_sources_and_its_cells(run, tmp_path):
    out = tmp_path / "out"
    result = run(
        style_mixing, "faces", "--rows", "85,100", "--cols", "55,8,21", "--styles", "0-1", "--cells", "--batch", 4
    )
    assert result.exit_code == 0 and "2x3 mixed in layers 0-1" in result.stdout, result.output
    run(generate, "faces", "--seeds", "85,100,55,8,21", "--outdir", tmp_path / "seeds")
    matrix = pixels(out / "grid.png")
    assert matrix.shape == (3 * 16, 4 * 16, 3) and not cell(matrix, 0, 0).any()
    for place, seed in {(1, 0): 85, (2, 0): 100, (0, 1): 55, (0, 2): 8, (0, 3): 21}.items():
        np.testing.assert_array_equal(cell(matrix, *place), pixels(tmp_path / f"seeds/seed{seed:04d}.png"))
    names = [[f"row{row}-col{col}.png" for col in (55, 8, 21)] for row in (85, 100)]
    assert sorted(p.name for p in out.iterdir()) == sorted(["grid.png", *names[0], *names[1]])
    for row in range(2):
        for col in range(3):
            np.testing.assert_array_equal(cell(matrix, row + 1, col + 1), pixels(out / names[row][col]))
    run(style_mixing, "faces", "--rows", "100", "--cols", "8", "--styles", "0-1", "--outdir", tmp_path / "one")
    np.testing.assert_array_equal(cell(pixels(tmp_path / "one/grid.png"), 1, 1), cell(matrix, 2, 2))


@pytest.mark.parametrize("styles, place", [("0-5", (0, 1)), ("coarse,middle", (0, 1))])
def test_all_layers_are_the_column(run, tmp_path, styles, place):
    run(style_mixing, "faces", "--rows", "1,2", "--cols", "3", "--styles", styles)
    matrix = pixels(tmp_path / "out/grid.png")
    np.testing.assert_array_equal(cell(matrix, 2, 1), cell(matrix, *place))


def test_cells_saved_as_latents_are_drawn_again_by_generate_and_are_rows_of_another(run, tmp_path):
    assert run(style_mixing, "faces", "--rows", "1,2", "--cols", "3-4", "--save-latents", "--cells").exit_code == 0
    saved = tmp_path / "out/mixed.latent.safetensors"
    assert run(generate, "faces", "--seeds", saved, "--outdir", tmp_path / "again").exit_code == 0
    for name in ("row1-col3.png", "row2-col4.png"):
        np.testing.assert_array_equal(pixels(tmp_path / "again" / name), pixels(tmp_path / "out" / name))
    result = run(
        style_mixing, "faces", "--rows", f"7,{saved}", "--cols", saved, "--styles", 2, "--outdir", tmp_path / "next"
    )
    assert result.exit_code == 0 and pixels(tmp_path / "next/grid.png").shape == (6 * 16, 5 * 16, 3)


def test_classes_of_rows_and_columns(run, tmp_path):
    words = ["--rows", "5,5,6", "--row-class", "3,1,4", "--cols", "2,9", "--styles", "0"]
    assert run(style_mixing, "digits", *words, "--col-class", 7).exit_code == 0
    matrix = pixels(tmp_path / "out/grid.png")
    for seed, number, place in ((5, 3, (1, 0)), (5, 1, (2, 0)), (6, 4, (3, 0)), (2, 7, (0, 1)), (9, 7, (0, 2))):
        folder = tmp_path / f"{seed}-{number}"
        run(generate, "digits", "--seeds", seed, "--class", number, "--outdir", folder)
        np.testing.assert_array_equal(cell(matrix, *place), pixels(folder / f"seed{seed:04d}.png"))
    assert run(style_mixing, "digits", *words, "--class", 7, "--outdir", tmp_path / "b").exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "b/grid.png"), matrix)


def test_dry_run_says_what_would_be_made_and_makes_nothing(run, tmp_path):
    result = run(style_mixing, "faces", "--rows", "0-4", "--cols", "5,6", "--cells", "--save-latents", "-n")
    for part in ("10 of 16x16", "layers 0-3 of 6", "grid.png (3x6)", "10 of", "mixed.latent"):
        assert part in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "options", "says"), [
    ("faces", "--cols 1", "--rows is missing"),
    ("faces", "--rows 1 --cols 2 --styles fine", "no fine styles at 16x16"),
    ("faces", "--rows 1 --cols 2 --styles 0-6", "no layer 6: this network has 6 layers"),
    ("faces", "--rows 1 --cols 2 --styles rough", "'rough' is no layer"),
    ("faces", "--rows 1 --cols 2 --resolution 8 --styles 4", "4 layers at 8x8"),
    ("faces", "--rows 1 --cols no.latent.safetensors", "no.latent.safetensors"),
    ("faces", "--rows 1 --cols no.png", "no photograph no.png"),
    ("faces", "--rows 1 --cols 2 --row-class 0", "unconditional"),
    ("digits", "--rows 1 --cols 2 --row-class 0", "10 classes; choose"),
    ("digits", "--rows 1-3 --cols 2 --row-class 0,1 --col-class 0", "2 classes for 3 seeds"),
    ("icons", "--rows 1 --cols 2 --cells --format jpg", "alpha"),
    ("progan", "--rows 1 --cols 2", "ProGAN has no styles"),
    ("faces", "--rows 1 --cols 2 --batch 0", "--batch 0"),
])  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(run, tmp_path, name, options, says):
    result = run(style_mixing, name, *options.split())
    assert result.exit_code == 2 and says in result.stderr.splitlines()[-1], result.output
    assert list(tmp_path.iterdir()) == []


def test_an_outdir_that_is_a_file(run, tmp_path):
    (tmp_path / "out").write_text("here first")
    result = run(style_mixing, "faces", "--rows", 1, "--cols", 2)
    assert result.exit_code == 2 and f"cannot write to {tmp_path / 'out'}" in result.stderr


def test_photographs_are_projected_but_not_for_a_plan(run, models, tmp_path, monkeypatch):
    asked = []

    def projecting(c):
        def project(paths, painter):
            asked.append(([path.name for path in paths], list(c)))
            return replace(points.of_seeds(range(30, 30 + len(paths)), painter), names=("eva",), origins=("photo eva",))

        return project

    monkeypatch.setattr(project_photos, "projecting", projecting)
    (tmp_path / "eva.png").touch()
    words = ["--rows", f"1,{tmp_path / 'eva.png'}", "--cols", "2", "--cells"]
    assert "2 of 16x16" in run(style_mixing, "faces", *words, "-n").stdout and asked == []
    assert run(style_mixing, "faces", *words).exit_code == 0 and asked == [(["eva.png"], [])]
    assert (tmp_path / "out/roweva-col2.png").exists()
    run(generate, "faces", "--seeds", 30, "--outdir", tmp_path / "seed")
    np.testing.assert_array_equal(cell(pixels(tmp_path / "out/grid.png"), 2, 0), pixels(tmp_path / "seed/seed0030.png"))
