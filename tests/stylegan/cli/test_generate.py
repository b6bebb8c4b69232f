"""The command that generates images."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import stylegan
from stylegan.checkpoints.snapshot import load_snapshot, store
from stylegan.cli import generate
from stylegan.networks.inference import Renderer
from stylegan.projection.pivotal_tuning import Delta, save_delta
from torch_utils.images import grid

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def run(models, tmp_path, command_line):
    def run(name: str, *options: object) -> Result:
        network = models / f"{name}.safetensors"
        defaults = {"--network": network, "--outdir": tmp_path / "out", "--device": "cpu"}
        return CliRunner().invoke(generate.main, command_line(defaults, *options))

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pixels(content: bytes | Path) -> np.ndarray:
    with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
        return np.asarray(image)


def test_a_file_for_each_seed_the_same_in_any_batch(run, models, tmp_path):
    for batch in (1, 3, 8):
        result = run("faces", "--seeds", "0-4,17", "--batch", batch, "--outdir", tmp_path / f"{batch}")
        assert result.exit_code == 0, result.output
        assert "6 images" in result.stdout and f"{tmp_path / f'{batch}'}" in result.stdout
    assert files(tmp_path / "1") == files(tmp_path / "3") == files(tmp_path / "8")
    assert sorted(files(tmp_path / "1")) == [f"seed{seed:04d}.png" for seed in (0, 1, 2, 3, 4, 17)]
    expected = stylegan.load(models / "faces.safetensors").generate([17])[0]
    np.testing.assert_array_equal(pixels(tmp_path / "1/seed0017.png"), np.asarray(expected))


def test_in_bf16_images_are_nearly_the_same(run, models, tmp_path):
    assert run("faces", "--seeds", "0-4", "--precision", "bf16").exit_code == 0
    short = np.array([pixels(tmp_path / f"out/seed{seed:04d}.png") for seed in range(5)]).astype(int)
    exact, same = (
        np.array(
            [np.asarray(image) for image in stylegan.load(models / "faces.safetensors", "cpu", p).generate(range(5))]
        )
        for p in ("fp32", "bf16")
    )
    assert np.array_equal(short, same) and 0 < np.abs(short - exact).mean() < 1


def test_what_has_no_effect_and_what_was_not_learned_is_said(run, models, tmp_path):
    assert run("digits", "--seeds", 1, "--class", 3, "--save-latents").exit_code == 0
    saved = tmp_path / "out" / generate.SAVED
    assert saved.is_file()
    said = run("digits", "--seeds", saved, "--trunc", 0.5, "--outdir", tmp_path / "other").stdout
    assert "--trunc 0.5 is not applied: it is for seeds" in said
    plan = run("digits", "--seeds", saved, "--outdir", tmp_path / "other", "-n").stdout
    assert "Truncation: none, as there are no seeds" in plan
    assert "not applied" not in run("digits", "--seeds", f"{saved},1", "--class", 3, "--trunc", 0.5, "-n").stdout

    snap = load_snapshot(models / "digits.safetensors")
    store(tmp_path / "gaps.safetensors", replace(snap, data="pets", empty_classes=(3, 5)))
    for seeds, classes, says in ((1, 3, "not learned them: 3\n"), ("0-5", "0-9", "not learned them: 3, 5\n"),
                                 (1, 2, ""), (saved, None, "not learned them: 3\n")):  # fmt: skip
        options = [] if classes is None else ["--class", classes]
        said = run("digits", "--network", tmp_path / "gaps.safetensors", "--seeds", seeds, *options, "-n", "--force")
        assert said.exit_code == 0 and (says in said.stdout if says else "learned" not in said.stdout), said.output


@pytest.mark.parametrize("name, mode, size", [("faces", "RGB", (16, 16)), ("icons", "RGBA", (24, 16))])
@pytest.mark.parametrize("kind", ["png", "webp", "npy"])
def test_formats_hold_the_same_pixels(run, tmp_path, name, mode, size, kind):
    assert run(name, "--seeds", 3, "--format", kind).exit_code == 0
    path = tmp_path / f"out/seed0003.{kind}"
    found = np.load(path) if kind == "npy" else pixels(path)
    assert found.shape == (size[1], size[0], len(mode))
    run(name, "--seeds", 3, "--outdir", tmp_path / "png")
    np.testing.assert_array_equal(found, pixels(tmp_path / "png/seed0003.png"))


def test_jpg(run, tmp_path):
    assert run("faces", "--seeds", 3, "--format", "jpg").exit_code == 0
    assert pixels(tmp_path / "out/seed0003.jpg").shape == (16, 16, 3)


def test_zip_holds_what_the_folder_would_and_nothing_else_is_left(run, tmp_path):
    assert run("faces", "--seeds", "0-10", "--format", "zip", "--batch", 4).exit_code == 0
    assert run("faces", "--seeds", "0-10", "--outdir", tmp_path / "png").exit_code == 0
    assert list(files(tmp_path / "out")) == ["images.zip"]
    with ZipFile(tmp_path / "out/images.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files(tmp_path / "png")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_unfinished_zip_does_not_get_the_name(run, tmp_path, monkeypatch, error):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images.zip").write_bytes(b"of an earlier run")
    draw, drawn = Renderer.pixels, []

    def fails_later(self, ws, *rest):
        drawn.extend(ws)
        if len(drawn) > 4:
            raise error
        return draw(self, ws, *rest)

    monkeypatch.setattr(Renderer, "pixels", fails_later)
    result = run("faces", "--seeds", "0-10", "--format", "zip", "--batch", 4)
    assert result.exit_code == (2 if isinstance(error, OSError) else 130)
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("shape, columns, rows", [("6x2", 6, 2), ("3x4", 3, 4), (None, 4, 3)])
def test_grid(run, tmp_path, shape, columns, rows):
    assert run("icons", "--seeds", "0-9", "--grid", *[shape] * bool(shape), "--batch", 4).exit_code == 0
    cells = [pixels(tmp_path / f"out/seed{seed:04d}.png") for seed in range(10)]
    np.testing.assert_array_equal(pixels(tmp_path / "out/grid.png"), grid(cells, columns, rows))


def test_classes_go_with_the_seed(run, tmp_path):
    assert run("digits", "--seeds", "0-11", "--class", "0-2").exit_code == 0
    assert run("digits", "--seeds", "7,2", "--class", "0-2", "--outdir", tmp_path / "other").exit_code == 0
    assert run("digits", "--seeds", "7", "--class", "1", "--outdir", tmp_path / "single").exit_code == 0
    name = "seed0007.png"
    assert files(tmp_path / "out")[name] == files(tmp_path / "other")[name] == files(tmp_path / "single")[name]
    assert pixels(tmp_path / "out" / name).shape == (16, 16)


def test_a_class_has_a_name_and_a_seed_can_be_in_each(run, tmp_path):
    assert run("pets", "--seeds", 5, "--class", "dog", "--outdir", tmp_path / "dog").exit_code == 0
    assert run("pets", "--seeds", 5, "--class", 1, "--outdir", tmp_path / "number").exit_code == 0
    image = files(tmp_path / "dog")["seed0005.png"]
    assert image == files(tmp_path / "number")["seed0005.png"]
    assert run("pets", "--seeds", 5, "--each-class", "--save-latents").exit_code == 0
    found = files(tmp_path / "out")
    del found["pictures.latent.safetensors"]
    assert sorted(found) == [f"seed0005-{name}.png" for name in ("Dog", "cat", "class3", "sea_lion_Zalophus")]
    assert found["seed0005-Dog.png"] == image
    planned = run("pets", "--seeds", "0-1", "--class", "3,sea lion", "--each-class", "-n").stdout
    assert "4 of 16x16" in planned and "Classes:    2 sea lion, Zalophus, 3" in planned
    refused = run("pets", "--seeds", 5, "--class", "bird")
    assert refused.exit_code == 2 and "--class bird: no class has that name; there are 0 cat, 1 Dog" in refused.stderr


def test_seeds_come_in_parts_and_from_folders(run, tmp_path):
    for outdir in ("one", "two"):
        words = ["--seeds", "3,4", "--save-latents", "--outdir", tmp_path / outdir]
        assert run("faces", *words).exit_code == 0
    result = run("faces", "--seeds", 1, "--seeds", tmp_path / "one", "--seeds", "7-8")
    assert result.exit_code == 0 and "1 latent file taken, 2 left out: seed0003.png, seed0004.png" in result.stderr
    assert sorted(files(tmp_path / "out")) == [f"seed000{seed}.png" for seed in (1, 3, 4, 7, 8)]


def test_noise_and_truncation_reach_the_network(run, tmp_path):
    results = {}
    for words in ["", "--noise-mode none", "--noise-mode random", "--trunc 1", "--trunc 0.7 --trunc-cutoff 2"]:
        outdir = tmp_path / words.replace(" ", "_")
        assert run("faces", "--seeds", 1, "--outdir", outdir, *words.split()).exit_code == 0
        results[words] = files(outdir)["seed0001.png"]
    assert results[""] != results["--trunc 1"]
    assert results[""] != results["--trunc 0.7 --trunc-cutoff 2"]
    run("faces", "--seeds", 1, "--trunc", 0.7)
    assert files(tmp_path / "out")["seed0001.png"] == results[""]


def test_progan_is_not_truncated_unless_asked_and_then_says_why_not(run, tmp_path):
    assert run("progan", "--seeds", 1).exit_code == 0
    assert run("progan", "--seeds", 1, "--trunc", 1).exit_code == 0
    result = run("progan", "--seeds", 1, "--trunc", 0.7, "--outdir", tmp_path / "no")
    says = "ProGAN has no w, because it generates images from z directly; leave out the truncation of 0.7"
    assert result.exit_code == 2 and says in result.stderr
    assert not (tmp_path / "no").exists()


def test_a_half_grown_network_draws_at_its_stage(run, models, tmp_path):
    run("half", "--seeds", 1)
    expected = stylegan.load(models / "half.safetensors").generate([1])[0]
    assert expected.size == (8, 8)
    np.testing.assert_array_equal(pixels(tmp_path / "out/seed0001.png"), np.asarray(expected))
    run("half", "--seeds", 1, "--resolution", 4, "--outdir", tmp_path / "small")
    assert pixels(tmp_path / "small/seed0001.png").shape == (4, 4, 3)
    run("half", "--seeds", 1, "--alpha", 1, "--outdir", tmp_path / "full")
    assert files(tmp_path / "full") != files(tmp_path / "out")


def test_a_published_network_is_taken_directly(tmp_path):
    words = ["--network", str(DATA / "stylegan_r32.pkl"), "--seeds", "0", "--outdir", str(tmp_path), "--grid"]
    result = CliRunner().invoke(generate.main, words)
    if "classes; choose" in result.output:
        result = CliRunner().invoke(generate.main, [*words, "--class", "0"])
    assert result.exit_code == 0, result.output
    assert pixels(tmp_path / "grid.png").shape[:2] == (32, 32)


def test_dry_run_says_what_would_be_made_and_makes_nothing(run, tmp_path):
    result = run("digits", "--seeds", "0-35,40", "--class", "3", "--grid", "-n")
    assert result.exit_code == 0, result.output
    for part in ("37 of 16x16, grey", "0.7", "seed0040.png", "grid.png (7x6)", "5 kimg of pictures"):
        assert part in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("faces", "", "--seeds is missing"),
        ("faces", "--seeds 5-1", "Invalid range 5-1"),
        ("faces", "--seeds x", "x"),
        ("faces", "--seeds 1,2,1", "seed 1 occurs 2 times"),
        ("faces", "--seeds 4294967296", "from 0 to 4294967295"),
        ("faces", "--seeds 0 --class 0", "unconditional"),
        ("digits", "--seeds 0", "10 classes"),
        ("digits", "--seeds 0 --class 10", "0 to 9"),
        ("digits", "--seeds 0 --class -1", "class"),
        ("icons", "--seeds 0 --format jpg", "alpha"),
        ("faces", "--seeds 0-6 --grid 3x2", "room for 6 images, not 7"),
        ("faces", "--seeds 0 --grid 3", "COLUMNSxROWS"),
        ("faces", "--seeds 0 --grid 0x3", "COLUMNSxROWS"),
        ("faces", "--seeds 0 --batch 0", "got 0"),
        ("faces", "--seeds 0 --trunc nan", "--trunc must be from -10 to 10, got nan"),
        ("faces", "--seeds 0 --trunc 1e30", "--trunc must be from -10 to 10, got 1e+30"),
        ("faces", "--seeds 1,,2", "'1,,2' has an empty item at a comma; write a list such as 0-7,12"),
        ("faces", "--seeds no.latent.safetensors", "Error: there is no file no.latent.safetensors"),
        ("faces", "--seeds no.png", "no photograph no.png"),
        ("faces", "--seeds 0 --trunc-cutoff 7", "from 0 to 6, the number of layers of this network, got 7"),
        ("faces", "--seeds 0 --trunc-cutoff -1", "from 0 to 6, the number of layers of this network, got -1"),
        ("half", "--seeds 0 --resolution 16", "4, 8"),
        ("faces", "--seeds 0 --resolution 12", "4, 8, 16"),
        ("faces", "--seeds 0 --alpha 1.5", "0 to 1"),
        ("faces", "--seeds 0 --device gpu", "Invalid --device gpu"),
        ("faces", "--seeds 0 --noise-mode loud", "noise-mode"),
        ("faces", "--seeds 0 --precision tf32", "--precision tf32 is for GPUs; a CPU computes in fp32"),
        ("faces", "--seeds 0 --precision fp16", "--precision fp16 is for GPUs; a CPU computes in fp32"),
        ("missing", "--seeds 0", "missing.safetensors"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(run, tmp_path, name, options, says):
    result = run(name, *options.split())
    assert result.exit_code == 2
    assert says in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_an_outdir_that_is_a_file(run, tmp_path):
    (tmp_path / "out").write_text("here first")
    result = run("faces", "--seeds", 0)
    assert result.exit_code == 2 and f"cannot write to {tmp_path / 'out'}" in result.stderr
    assert (tmp_path / "out").read_text() == "here first"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_outdir_that_cannot_be_written(run, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    result = run("faces", "--seeds", 0)
    assert result.exit_code == 2 and "cannot write" in result.stderr


def test_latent_files_stand_beside_seeds(run, tmp_path):
    saved = run("faces", "--seeds", "17,3", "--trunc", 0.3, "--save-latents", "--outdir", tmp_path / "own")
    assert saved.exit_code == 0 and "pictures.latent.safetensors" in saved.stdout
    (tmp_path / "own/pictures.latent.safetensors").rename(tmp_path / "me.latent.safetensors")
    words = ["--seeds", f"3,{tmp_path / 'me.latent.safetensors'}", "--trunc", 0.7]
    assert run("faces", *words).exit_code == 0
    run("faces", "--seeds", "3", "--trunc", 0.7, "--outdir", tmp_path / "seed")
    expected = {"seed0003.png": files(tmp_path / "seed")["seed0003.png"],
                "seed0017.png": files(tmp_path / "own")["seed0017.png"],
                "seed0003-2.png": files(tmp_path / "own")["seed0003.png"]}  # fmt: skip
    assert files(tmp_path / "out") == expected
    refused = run("icons", *words)
    assert refused.exit_code == 2 and "another network" in refused.stderr
    assert run("icons", *words, "--force").exit_code == 0


def test_photographs_stand_beside_seeds_and_are_never_replaced(run, tmp_path):
    photo = tmp_path / "eva.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)).save(photo)
    words = ["--seeds", f"3,{photo}", "--num-steps", 3]
    planned = run("faces", *words, "-n")
    assert "2 of 16x16" in planned.stdout and "eva.png: each projected into W in 3 steps" in planned.stdout
    result = run("faces", *words)
    assert result.exit_code == 0 and "Projecting 1 photo: 3/3 step" in result.stderr, result.output
    assert sorted(files(tmp_path / "out")) == ["eva.png", "seed0003.png"]
    before = photo.read_bytes()
    refused = run("faces", *words, "--outdir", tmp_path)
    assert refused.exit_code == 2 and "eva.png is one of the inputs" in refused.stderr
    assert photo.read_bytes() == before
    assert "10 classes; choose with --class" in run("digits", "--seeds", photo, "-n").stderr
    says = "ProGAN has no w, because it generates images from z directly; use a StyleGAN network for this"
    assert says in run("progan", "--seeds", photo).stderr


def test_what_is_replaced_is_said(run):
    first, again = (run("faces", "--seeds", "3-4", "--grid").stdout for _ in range(2))
    assert "2 images: " in first and "replaces" not in first and "; replaces 3 older files" in again
    assert "1 image: " in run("faces", "--seeds", 3).stdout


def test_a_network_that_is_none_is_named_with_what_to_give(run, tmp_path):
    (tmp_path / "README.md").write_text("# A text, and no network\n")
    refused = run("faces", "--seeds", 0, "--network", tmp_path / "README.md")
    assert "README.md is not a safetensors file; give a snapshot (.safetensors), a published" in refused.stderr


def test_tuned_weights_of_another_network_are_refused_unless_forced(run, models, tmp_path):
    path = tmp_path / "a.delta.safetensors"
    save_delta(path, Delta({}), load_snapshot(models / "others.safetensors"))
    refused = run("faces", "--seeds", 0, "--delta", path)
    assert refused.exit_code == 2 and "belongs to another network" in refused.stderr and "--force" in refused.stderr
    assert run("faces", "--seeds", 0, "--delta", path, "--force").exit_code == 0
