"""The command that makes the style-mixing matrix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from stylegan.cli import generate
from stylegan.cli import mix as style_mixing
from stylegan.latents.render import View, gather
from stylegan.projection import photos


@pytest.fixture
def run(models, tmp_path, command_line):
    def run(command, name: str, *options: object) -> Result:
        network = models / f"{name}.safetensors"
        defaults = {"--network": network, "--outdir": tmp_path / "out", "--device": "cpu"}
        return CliRunner().invoke(command.main, command_line(defaults, *options))

    run.models = models
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


def test_classes_by_name(run, tmp_path):
    words = ["--rows", "5,6", "--cols", "2", "--styles", "0", "--row-class"]
    for outdir, rows, col in (("names", "cat,sea lion", "dog"), ("numbers", "0,2", "1")):
        assert run(style_mixing, "pets", *words, rows, "--col-class", col, "--outdir", tmp_path / outdir).exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "names/grid.png"), pixels(tmp_path / "numbers/grid.png"))


def test_dry_run_says_what_would_be_made_and_makes_nothing(run, tmp_path):
    result = run(style_mixing, "faces", "--rows", "0-4", "--cols", "5,6", "--cells", "--save-latents", "-n")
    for part in ("10 of 16x16", "layers 0-3 of 6", "grid.png (3x6)", "10 of", "mixed.latent"):
        assert part in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "options", "says"), [
    ("faces", "--cols 1", "--rows is missing"),
    ("faces", "--rows 1 --cols 2 --styles fine", "no fine styles at 16x16"),
    ("faces", "--rows 1 --cols 2 --styles 0-6", "no layer 6: this network has 6 layers"),
    ("faces", "--rows 1 --cols 2 --styles rough", "Invalid layer 'rough': expected layers as in 0-6"),
    ("faces", "--rows 1 --cols 2 --resolution 8 --styles 4", "4 layers at 8x8"),
    ("faces", "--rows 1 --cols no.latent.safetensors", "there is no file no.latent.safetensors"),
    ("faces", "--rows 1 --cols no.png", "no photograph no.png"),
    ("faces", "--rows 1 --cols 2 --row-class 0", "--row-class: this network is unconditional"),
    ("digits", "--rows 1 --cols 2 --row-class 0", "10 classes; choose with --col-class"),
    ("digits", "--rows 1-3 --cols 2 --row-class 0,1 --col-class 0", "--row-class: there are 2 classes for 3 seeds"),
    ("icons", "--rows 1 --cols 2 --cells --format jpg", "alpha"),
    ("progan", "--rows 1 --cols 2", "this ProGAN network has no styles"),
    ("faces", "--rows 1 --cols 2 --batch 0", "got 0"), ("faces", "--rows 1,,2 --cols 2", "'1,,2' has an empty item"),
    ("faces", "--rows 1 --cols 2 --format webp", "--format webp is the format of the cells"),
    ("faces", "--rows 1 --cols 2 --trunc 1e30", "--trunc must be from -10 to 10, got 1e+30"),
])  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(run, tmp_path, name, options, says):
    result = run(style_mixing, name, *options.split())
    assert result.exit_code == 2 and says in result.stderr.splitlines()[-1], result.output
    assert list(tmp_path.iterdir()) == []


def test_an_outdir_that_is_a_file(run, tmp_path):
    (tmp_path / "out").write_text("here first")
    result = run(style_mixing, "faces", "--rows", 1, "--cols", 2)
    assert result.exit_code == 2 and f"cannot write to {tmp_path / 'out'}" in result.stderr


@pytest.fixture
def eva(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "photos/eva.png")
    return tmp_path / "photos/eva.png"


def test_photographs_are_projected_once_but_not_for_a_plan(run, eva, tmp_path, monkeypatch):
    asked = []

    def project(targets, projector, c, watch):
        asked.append(([photo.path.name for photo in targets], projector.settings.num_steps, c))
        latents = gather([30], View.of(projector.snapshot))
        return replace(latents, names=("eva",), origins=("photo eva",))

    monkeypatch.setattr(photos, "latents_of", project)
    words = ["--rows", f"1,{eva}", "--cols", f"2,{eva}", "--cells", "--num-steps", 7]
    planned = run(style_mixing, "faces", *words, "-n")
    assert "4 of 16x16" in planned.stdout and asked == []
    assert "Photos:     eva.png: each projected into W in 7 steps, distance discriminator" in planned.stdout
    (tmp_path / "faces.safetensors").symlink_to(run.models / "faces.safetensors")
    assert run(style_mixing, "faces", *words).exit_code == 0 and asked == [(["eva.png"], 7, None)]
    assert (tmp_path / "out/roweva-col2.png").exists()
    run(generate, "faces", "--seeds", 30, "--outdir", tmp_path / "seed")
    np.testing.assert_array_equal(cell(pixels(tmp_path / "out/grid.png"), 2, 0), pixels(tmp_path / "seed/seed0030.png"))


def test_what_cannot_be_is_said_before_any_photograph_is_projected(run, eva, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "latents_of", None)  # would fail
    (tmp_path / "photos/broken.png").write_bytes(b"no picture")
    for name, words, says in (
        ("faces", ["--cols", "no.latent.safetensors"], "there is no file no.latent.safetensors"),
        ("faces", ["--cols", tmp_path / "photos/broken.png"], "broken.png: not an image"),
        ("digits", ["--cols", 2, "--row-class", 3], "10 classes; choose with --col-class"),
        ("digits", ["--cols", 2], "10 classes; choose with --class"),
        ("faces", ["--cols", 2, "--num-steps", 0], "--num-steps must be at least 2, got 0"),
        ("faces", ["--cols", 2, "--outdir", eva], "is a file; name a folder with --outdir"),
        ("faces", ["--cols", 2, "--outdir", "/proc/x"], "cannot create a folder in /proc; name another folder with"),
    ):
        result = run(style_mixing, name, "--rows", eva, *words)
        assert result.exit_code == 2 and says in result.stderr.splitlines()[-1], result.output
    assert not (tmp_path / "out").exists()


def test_what_is_replaced_is_said_and_never_what_it_is_made_from(run, tmp_path):
    words = ["--rows", "1,2", "--cols", "3", "--cells", "--save-latents"]
    first, planned, again = (run(style_mixing, "faces", *words, *more).stdout for more in ([], ["-n"], []))
    assert "2 cells as" in first and "replaces" not in first
    assert "; replaces 4 older files" in planned and "; replaces 4 older files" in again
    saved = tmp_path / "out/mixed.latent.safetensors"
    before = saved.read_bytes()
    result = run(style_mixing, "faces", "--rows", saved, "--cols", 3, "--save-latents")
    assert result.exit_code == 2 and "mixed.latent.safetensors is one of the inputs" in result.stderr
    assert saved.read_bytes() == before
