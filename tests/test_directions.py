"""The commands that find directions and go along them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import directions
import generate
import stylegan
from stylegan.config import ModelConfig, progan_config
from stylegan.directions.file import load_directions
from stylegan.latents import z_for_seeds
from stylegan.networks import build_generator
from stylegan.snapshot import save_snapshot
from training.archive import ArchiveWriter

TINY = ModelConfig(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
CONFIGS = {"faces": TINY, "others": TINY, "digits": replace(TINY, channels=1, num_classes=3),
           "small": replace(TINY, resolution=8), "progan": progan_config(16, z_dim=8, fmap_max=16)}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for number, (name, cfg) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        G = build_generator(cfg)
        save_snapshot(folder / f"{name}.safetensors", G, config=cfg, resolution=cfg.resolution, alpha=1.0, kimg=5.0,
                      data=name)  # fmt: skip
    return folder


@pytest.fixture
def run(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))

    def run(name: str, command: str, *options: object) -> Result:
        words = [command, "--network", models / f"{name}.safetensors", "--device", "cpu", *options]
        return CliRunner().invoke(directions.main, [str(word) for word in words])

    return run


@pytest.fixture
def pca(run) -> str:
    assert run("faces", "find", "--samples", 300, "--count", 3, "--dest", "a.direction.safetensors").exit_code == 0
    return "a.direction.safetensors"


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(("options", "names"), [
    ("--method pca", "pc0"), ("--method sefa --layers 1-3", "sefa0"), ("--method activations --layer 1", "layer1-pc0"),
])  # fmt: skip
def test_find_info_and_sheet(run, tmp_path, options, names):
    result = run("faces", "find", *options.split(), "--samples", 200, "--count", 2, "--dest", "a.direction.safetensors")
    assert result.exit_code == 0 and "2 directions, " in result.stdout, result.output
    listed = CliRunner().invoke(directions.main, ["info", "a.direction.safetensors"]).stdout
    assert names in listed and ("layers 1-3" if "sefa" in names else "layers 0-5") in listed
    words = ["--directions", "a.direction.safetensors", "--seeds", "3,8", "--strengths", "-1:1:3", "--outdir", "out"]
    assert run("faces", "sheet", *words).exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["sheet-seed0003.png", "sheet-seed0008.png"]
    assert pixels("out/sheet-seed0003.png").shape[1] > 3 * 96


def test_apply_at_strength_0_is_the_picture_of_generate_to_the_bit(run, models, tmp_path, pca):
    words = ["--directions", pca, "--name", "pc1", "--seeds", "5,17", "--strengths", "-2,0,2", "--trunc", 0.5]
    result = run("faces", "apply", *words, "--cells", "--save-latents", "--outdir", "out", "--batch", 3)
    assert result.exit_code == 0, result.output
    drawn = ["--network", models / "faces.safetensors", "--device", "cpu", "--outdir", "plain", "--trunc", 0.5]
    CliRunner().invoke(generate.main, [str(word) for word in [*drawn, "--seeds", "5,17"]])
    table = pixels("out/grid.png")
    assert table.shape == (32, 48, 3)
    for row, seed in enumerate((5, 17)):
        expected = pixels(f"plain/seed{seed:04d}.png")
        np.testing.assert_array_equal(pixels(f"out/seed{seed:04d}.png"), expected)
        np.testing.assert_array_equal(table[row * 16 : row * 16 + 16, 16:32], expected)
        for column, name in ((0, "-2pc1"), (2, "+2pc1")):
            cell = table[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            np.testing.assert_array_equal(cell, pixels(f"out/seed{seed:04d}{name}.png"))
            assert (cell != expected).any()
    again = [*drawn[:-2], "--seeds", "out/moved.latent.safetensors", "--outdir", "again"]
    assert CliRunner().invoke(generate.main, [str(word) for word in again]).exit_code == 0
    np.testing.assert_array_equal(pixels("again/seed0017+2pc1.png"), pixels("out/seed0017+2pc1.png"))


def test_apply_makes_films_and_captions_from_latents_in_some_layers(run, pca):
    words = ["--directions", pca, "--name", 0, "--outdir", "out"]
    assert run("faces", "apply", *words, "--seeds", "1", "--save-latents").exit_code == 0
    more = ["--seeds", "out/moved.latent.safetensors", "--strengths", "0,1", "--layers", "coarse", "--captions"]
    result = run("faces", "apply", *words, *more, "--film", "a.webp", "--frames", 4, "--outdir", "next")
    assert result.exit_code == 0, result.output
    with Image.open("next/a.webp") as film:
        assert film.n_frames == 4 and film.size == (48, 32)  # five latents, about square
    assert pixels("next/grid.png").shape[1] > 2 * 96


def test_labels_from_a_csv_and_from_folders_give_their_direction_and_its_accuracy(run, models):
    pytest.importorskip("sklearn")
    G = stylegan.load(models / "faces.safetensors").G
    w = G.mapping(z_for_seeds(range(400), 8))
    normal = torch.nn.functional.normalize(torch.randn(8, generator=torch.Generator().manual_seed(5)), dim=0)
    side = ((w - w.mean(dim=0)) @ normal).tolist()
    rows = [f"{seed},{value},{int(value > 0)}" for seed, value in enumerate(side)]
    Path("seeds.csv").write_text("\n".join(["seed,amount,has", *rows]))
    result = run("faces", "find", "--method", "labels", "--labels", "seeds.csv", "--dest", "a.direction.safetensors")
    assert result.exit_code == 0, result.output
    assert sum(result.stdout.count(f"held-out accuracy {number}") for number in ("0.9", "1.0")) == 2
    found = load_directions(Path("a.direction.safetensors"), None)
    assert found.names == ("amount", "has") and (found.vectors[:, 0] @ normal > 0.95).all()
    for seed, value in enumerate(side[:80]):
        folder = Path("smile", "yes" if value > 0 else "no")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed{seed:04d}.png").touch()
    assert run("faces", "find", "--method", "labels", "--labels", "smile", "--boundary", "svm", "--dest",
               "b.direction.safetensors").exit_code == 0  # fmt: skip
    assert load_directions(Path("b.direction.safetensors"), None).vectors[0, 0] @ normal > 0.8
    words = ["--directions", "a.direction.safetensors", "--name", "has", "--without", "amount"]
    assert run("faces", "conditional", *words, "--dest", "c.direction.safetensors").exit_code == 0
    apart = load_directions(Path("c.direction.safetensors"), None).vectors[0, 0]
    assert abs(float(apart @ found.vectors[0, 0])) < 1e-5


def test_channels_are_listed_and_can_be_applied(run, models):
    Path("seeds.csv").write_text("seed,has\n" + "\n".join(f"{seed},{seed % 2}" for seed in range(40)))
    result = run("faces", "channels", "--labels", "seeds.csv", "--count", 3, "--dest", "a.direction.safetensors")
    assert result.exit_code == 0 and result.stdout.count("standard deviations with has") == 3, result.output
    words = ["--directions", "a.direction.safetensors", "--name", 0, "--seeds", "1", "--strengths", "0,5", "--outdir"]
    assert run("faces", "apply", *words, "out", "--save-latents", "--cells").exit_code == 0
    table = pixels("out/grid.png")
    assert (table[:, :16] != table[:, 16:]).any()
    again = ["--network", models / "faces.safetensors", "--seeds",
             "out/moved.latent.safetensors", "--outdir", "again", "--device", "cpu"]  # fmt: skip
    CliRunner().invoke(generate.main, [str(word) for word in again])
    np.testing.assert_array_equal(pixels("again/seed0001.png"), table[:, :16])
    (other,) = [p for p in Path("again").iterdir() if "+5" in p.name]
    np.testing.assert_array_equal(pixels(other), table[:, 16:])


def test_a_classifier_is_learnt_and_tells_of_generated_pictures(run):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, 120)
    with ArchiveWriter("a.zip") as writer:
        for value in bright:
            writer.add((rng.integers(0, 100, (16, 16, 3)) + 120 * value).astype(np.uint8))
    names = [f"img{i:08d}.png,{value}" for i, value in enumerate(bright)]
    Path("a.csv").write_text("\n".join(["file,bright", *names]))
    words = ["learn", "--data", "a.zip", "--table", "a.csv", "--held-out", "30", "--epochs", "4", "--batch", "16",
             "--dest", "a.attributes.safetensors", "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(directions.main, words)
    assert result.exit_code == 0 and "bright           held-out accuracy " in result.stdout, result.output
    result = run("faces", "find", "--method", "labels", "--labels", "a.attributes.safetensors", "--samples", 200,
                 "--dest", "a.direction.safetensors")  # fmt: skip
    assert (result.exit_code, "bright" in result.output) in ((0, True), (2, True))  # it may find all of them dark
    assert result.exit_code == 0 or "single class" in result.output


LABELS = "find --method labels --dest a.direction.safetensors --labels"


@pytest.mark.parametrize(("name", "options", "says"), [
    ("faces", "find --method pca", "--dest is missing"),
    ("faces", "find --samples 50 --dest a.safetensors", "must end in"),
    ("faces", "find --dest no/a.direction.safetensors", "there is no folder no"),
    ("faces", "find --count 9 --samples 50 --dest a.direction.safetensors", "8 principal components, not 9"),
    ("faces", "find --method sefa --layers 4-6 --dest a.direction.safetensors", "no layer 6: this network has 6"),
    ("faces", "find --method activations --layer 6 --dest a.direction.safetensors", "no layer 6"),
    ("progan", "find --dest a.direction.safetensors", "ProGAN has no styles"),
    ("digits", "find --dest a.direction.safetensors", "3 classes; choose with --class"),
    ("faces", f"{LABELS} none.csv", "no none.csv"), ("faces", f"{LABELS} words.csv", "'often'"),
    ("faces", f"{LABELS} unknown.csv", "'eva' in unknown.csv is no seed"),
    ("faces", f"{LABELS} single.csv", "'smile' is a single class: 5 pictures have it and 0 have not"),
    ("faces", f"{LABELS} single.csv --attributes yaw", "no column 'yaw'; it has seed, smile"),
    ("faces", f"{LABELS} single.csv --attributes smile>often", "no number"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out", "pc0, pc1; choose one with"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name x", "no direction 'x'"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name 0 --layers 6", "no layer 6"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name 0 --film a.avi", "a film is"),
    ("others", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name 0", "another network"),
    ("small", "sheet --directions pca.direction.safetensors --seeds 1 --outdir out --force", "this network has 4 lay"),
    ("faces", "sheet --directions none.direction.safetensors --seeds 1 --outdir out", "cannot read none"),
    ("faces", "sheet --directions single.csv --seeds 1 --outdir out", "not a whole safetensors file"),
    ("faces", "conditional --directions pca.direction.safetensors --name pc0 --without pc0 --dest "
     "a.direction.safetensors", "nothing is left"),
])  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(run, tmp_path, name, options, says):
    if LABELS in options:
        pytest.importorskip("sklearn")
    Path("single.csv").write_text("seed,smile\n" + "\n".join(f"{seed},1" for seed in range(5)))
    Path("unknown.csv").write_text("seed,smile\neva,1\n")
    Path("words.csv").write_text("seed,smile\n1,often\n")
    if "pca" in options.split("--method")[0]:
        run("faces", "find", "--samples", 100, "--count", 2, "--dest", "pca.direction.safetensors")
    before = sorted(tmp_path.rglob("*"))
    result = run(name, *options.split())
    assert result.exit_code == 2 and says in result.stderr.splitlines()[-1], result.output
    assert sorted(tmp_path.rglob("*")) == before
