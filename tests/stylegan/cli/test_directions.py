"""The commands that find directions and move images along them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import stylegan
from stylegan.cli import directions, generate
from stylegan.editing.boundaries import across
from stylegan.editing.directions import load_directions
from stylegan.networks.sampling import z_for_seeds
from training.attributes import load_classifier
from training.data.archive import ArchiveWriter


@pytest.fixture(scope="module", autouse=True)
def z_drawn_once() -> Iterator[None]:
    """Keep what was drawn for the same seeds: most commands here begin with the same 20,000, which take seconds."""
    kept = lru_cache(maxsize=None)(z_for_seeds)

    def draw(seeds: Sequence[int], z_dim: int) -> torch.Tensor:
        return kept(tuple(seeds), z_dim).clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stylegan.editing.search.z_for_seeds", draw)
        yield


@pytest.fixture
def run(models, tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))

    def run(name: str, command: str, *options: object) -> Result:
        defaults = {"--network": models / f"{name}.safetensors", "--device": "cpu"}
        return CliRunner().invoke(directions.main, [command, *command_line(defaults, *options)])

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


def test_what_is_replaced_and_how_much_each_direction_accounts_for_is_said(run, pca):
    result = run("faces", "find", "--count", 8, "--dest", pca)
    assert result.stdout.splitlines()[-1].endswith(f"{pca}; replaces 1 older file"), result.output
    shares = [float(part) for part in re.findall(r"([\d.]+)% of the variation$", result.stdout, re.MULTILINE)]
    assert len(shares) == 8 and shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=1)
    words = ["--directions", pca, "--seeds", 3, "--outdir", "out"]
    first, again = (run("faces", "sheet", *words, "--count", 1).stdout for _ in range(2))
    assert f"{shares[0]}% of the variation" in first and "1 sheet: " in first and "replaces" not in first
    assert "replaces 1 older file" in again
    result = run("faces", "conditional", "--directions", pca, "--name", "pc1", "--without", "pc0", "--dest", pca)
    assert "pc1 shares nothing with the others: it stays as it was" in result.stdout


def test_apply_at_strength_0_is_the_image_of_generate_to_the_bit(run, models, tmp_path, pca):
    words = ["--directions", pca, "--name", "pc1", "--seeds", "5,17", "--strengths", "-2,0,2", "--trunc", 0.5]
    result = run("faces", "apply", *words, "--cells", "--save-latents", "--outdir", "out", "--batch", 3)
    assert result.exit_code == 0, result.output
    drawn = ["--network", models / "faces.safetensors", "--device", "cpu", "--outdir"]
    words = [*drawn, "plain", "--trunc", 0.5, "--seeds", "5,17"]
    assert CliRunner().invoke(generate.main, [str(word) for word in words]).exit_code == 0
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
    again = [*drawn, "again", "--seeds", "out/moved.latent.safetensors"]
    assert CliRunner().invoke(generate.main, [str(word) for word in again]).exit_code == 0
    np.testing.assert_array_equal(pixels("again/seed0017+2pc1.png"), pixels("out/seed0017+2pc1.png"))


def test_photographs_are_moved_but_not_for_a_plan(run, tmp_path, pca):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save("eva.png")
    before = sorted(tmp_path.rglob("*"))
    words = ["--directions", pca, "--seeds", "1,eva.png", "--num-steps", 3, "--outdir"]
    for command, count in (("apply", 10), ("sheet", 30)):
        planned = run("faces", command, *words, "out", *["--name", 0] * (command == "apply"), "-n")
        assert planned.exit_code == 0 and f"{count} of 16x16" in planned.stdout, planned.output
        assert "eva.png: each projected into W in 3 steps" in planned.stdout and "Files:      out" in planned.stdout
    assert sorted(tmp_path.rglob("*")) == before
    assert run("faces", "apply", *words, "out", "--name", 0, "--cells").exit_code == 0
    assert Path("out/eva.png").exists() and pixels("out/grid.png").shape == (32, 80, 3)
    own = run("faces", "apply", *words, ".", "--name", 0, "--cells")
    assert own.exit_code == 2 and "eva.png is one of the inputs" in own.stderr
    assert "photographs" in CliRunner().invoke(directions.main, ["apply", "--help"]).stdout


def test_apply_makes_films_and_captions_from_latents_in_some_layers(run, pca):
    words = ["--directions", pca, "--name", 0, "--outdir"]
    assert run("faces", "apply", *words, "out", "--seeds", "1", "--save-latents").exit_code == 0
    more = ["--seeds", "out/moved.latent.safetensors", "--strengths", "0,1", "--layers", "coarse", "--captions"]
    result = run("faces", "apply", *words, "next", *more, "--film", "a.webp", "--frames", 4)
    assert result.exit_code == 0 and "next/a.webp (4 frames, 0.13 s)" in result.stdout, result.output
    with Image.open("next/a.webp") as film:
        assert film.n_frames == 4 and film.size == (48, 32)  # five latents, about square
    assert pixels("next/grid.png").shape[1] > 2 * 96


def test_several_directions_in_one_command_and_a_film_through_them(run, pca):
    words = ["--directions", pca, "--seeds", "1,2", "--captions", "--film", "a.gif", "--frames", 6, "--outdir"]
    result = run("faces", "apply", *words, "both", "--name", "pc1:1.5,pc0:-1", "--save-latents", "--cells")
    assert result.exit_code == 0 and "pc1, pc0: " in result.stdout and "grid.png (3x2)" in result.stdout, result.output
    assert {"seed0001.png", "seed0001+1.5pc1.png", "seed0001+1.5pc1-1pc0.png"} < {
        p.name for p in Path("both").iterdir()
    }
    with Image.open("both/a.gif") as film:
        assert film.n_frames == 6 and film.size == (32, 16)
    result = run("faces", "apply", *words, "rows", "--name", "pc1", "--name", "2", "--strengths", "0,1")
    assert result.exit_code == 0 and "pc1, pc2: " in result.stdout and "grid.png (2x4)" in result.stdout, result.output
    refused = run("faces", "apply", *words, "no", "--name", "pc1:1.5", "--strengths", "0,1")
    assert refused.exit_code == 2 and "both say how far" in refused.stderr and not Path("no").exists()


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
    crossing = torch.nn.functional.normalize(across(normal[None], torch.cov(w.T).double())[0].float(), dim=0)
    assert found.names == ("amount", "has") and (found.vectors[:, 0] @ crossing > 0.95).all()
    for seed, value in enumerate(side[:80]):
        folder = Path("smile", "yes" if value > 0 else "no")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed{seed:04d}.png").touch()
    assert run("faces", "find", "--method", "labels", "--labels", "smile", "--boundary", "svm", "--dest",
               "b.direction.safetensors").exit_code == 0  # fmt: skip
    assert load_directions(Path("b.direction.safetensors"), None).vectors[0, 0] @ crossing > 0.8
    words = ["--directions", "a.direction.safetensors", "--name", "has", "--without", "amount"]
    result = run("faces", "conditional", *words, "--dest", "c.direction.safetensors")
    assert result.exit_code == 0 and "has turned by " in result.stdout
    apart = load_directions(Path("c.direction.safetensors"), None).vectors[0, 0]
    many = torch.cov(G.mapping(z_for_seeds(range(20_000), 8)).double().T)
    normal_of_amount = torch.linalg.solve(many, found.vectors[0, 0].double())  # a move that keeps its amount
    assert abs(float(torch.nn.functional.normalize(normal_of_amount, dim=0) @ apart.double())) < 1e-3


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


def test_a_classifier_is_learnt_and_labels_generated_images(run, models):
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
    refused = CliRunner().invoke(directions.main, ["0" if word == "16" else word for word in words])
    assert refused.exit_code == 2 and "--batch must be more than 0, got 0" in refused.stderr
    result = CliRunner().invoke(directions.main, words)
    assert result.exit_code == 0 and "bright           held-out accuracy " in result.stdout, result.output
    result = run("faces", "find", "--method", "labels", "--labels", "a.attributes.safetensors", "--samples", 200,
                 "--dest", "a.direction.safetensors")  # fmt: skip
    assert (result.exit_code, "bright" in result.output) in ((0, True), (2, True))  # it may find all of them dark
    assert result.exit_code == 0 or "single class" in result.output
    words = ["--labels", "a.attributes.safetensors", "--samples", 20, "--count", 2]
    result = run("faces", "channels", *words, "--dest", "b.direction.safetensors")
    assert result.exit_code == 0 and result.stdout.count("in its score, for one standard deviation") == 2, result.output
    judge, model = load_classifier(Path("a.attributes.safetensors")), stylegan.load(models / "faces.safetensors")
    found, ws = load_directions(Path("b.direction.safetensors"), None)[:1], model.ws(range(20))
    draw = model.snapshot.renderer.draw
    before, after = (
        judge.scores(draw(ws, edits=[s * strength * found.scales[0] for s in found.styles])).mean()
        for strength in (0.0, 0.05)
    )
    assert after > before  # a direction has more of the attribute at positive strengths


LABELS = "find --method labels --dest a.direction.safetensors --labels"


@pytest.mark.parametrize(("name", "options", "says"), [
    ("faces", "find --method pca", "--dest is missing"),
    ("faces", "find --samples 50 --dest a.safetensors", "must end in"),
    ("faces", "find --dest no/a.direction.safetensors", "there is no folder no"),
    ("faces", "find --count 9 --samples 50 --dest a.direction.safetensors", "--count must be at most 8, the"),
    ("faces", "find --method sefa --layers 4-6 --dest a.direction.safetensors", "no layer 6: this network has 6"),
    ("faces", "find --method activations --layer 6 --count 2 --dest a.direction.safetensors", "no layer 6"),
    ("progan", "find --dest a.direction.safetensors", "this ProGAN network has no styles"),
    ("digits", "find --count 2 --dest a.direction.safetensors", "10 classes; choose with --class"),
    ("pets", "find --count 2 --class bird --dest a.direction.safetensors", "--class bird: no class has that name"),
    ("faces", f"{LABELS} none.csv", "no file or folder none.csv"), ("faces", f"{LABELS} words.csv", "'often'"),
    ("faces", f"{LABELS} unknown.csv", "'eva' in unknown.csv is not a seed"),
    ("faces", f"{LABELS} single.csv", "'smile' is a single class: 5 images with it, 0 without"),
    ("faces", f"{LABELS} single.csv --attributes yaw", "no column 'yaw'; it has seed, smile"),
    ("faces", f"{LABELS} single.csv --attributes smile>often", "not a number"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out", "pc0, pc1; choose one with"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name x", "no direction 'x'"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name 0 --layers 6", "no layer 6"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name 0 --film a.avi", "Invalid"),
    ("others", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name 0", "another network"),
    ("small", "sheet --directions pca.direction.safetensors --seeds 1 --outdir out --force", "but this network has 4"),
    ("faces", "find --trunc 1 --dest a.direction.safetensors", "No such option"),
    ("faces", "find --layer 1 --dest a.direction.safetensors", "--layer is for --method activations, not pca"),
    ("faces", "find --boundary svm --dest a.direction.safetensors", "--boundary is for --method labels, not pca"),
    ("faces", f"{LABELS} single.csv --count 3", "--count is for --method pca or activations or sefa, not labels"),
    ("faces", f"{LABELS} single.csv --samples 50", "--samples is for a classifier"),
    ("faces", f"{LABELS} notes.md", "notes.md is not a CSV with a column 'seed'"),
    ("faces", "channels --dest a.direction.safetensors --labels single.csv --count 0", "--count must be at least 1"),
    ("faces", "channels --dest a.direction.safetensors --labels single.csv --count 9999", "channels, not 9999"),
    ("faces", "channels --dest a.direction.safetensors --labels single.csv --rank gradient", "needs a classifier"),
    ("faces", "apply --directions pca.direction.safetensors --seeds 1 --outdir out --name 0 --frames 5", "for --film"),
    ("missing", "sheet --directions pca.direction.safetensors --seeds 1 --outdir out --count 0", "--count must be at"),
    ("missing", "apply --directions x.direction.safetensors --seeds 1 --outdir out --film a.gif --frames 1", "least 2"),
    ("missing", "sheet --directions pca.direction.safetensors --seeds 1 --outdir single.csv", "is a file"),
    ("faces", "sheet --directions none.direction.safetensors --seeds 1 --outdir out", "there is no file none"),
    ("faces", "sheet --directions single.csv --seeds 1 --outdir out", "single.csv is not a safetensors file"),
    ("faces", "conditional --directions pca.direction.safetensors --name pc0 --without pc0 --dest "
     "a.direction.safetensors", "nothing is left"),
])  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(run, tmp_path, name, options, says):
    if LABELS in options:
        pytest.importorskip("sklearn")
    Path("single.csv").write_text("seed,smile\n" + "\n".join(f"{seed},1" for seed in range(5)))
    Path("unknown.csv").write_text("seed,smile\neva,1\n")
    Path("notes.md").write_text("# Notes\nof another kind\n")
    Path("words.csv").write_text("seed,smile\n1,often\n")
    if "pca" in options.split("--method")[0]:
        run("faces", "find", "--samples", 100, "--count", 2, "--dest", "pca.direction.safetensors")
    before = sorted(tmp_path.rglob("*"))
    result = run(name, *options.split())
    assert result.exit_code == 2 and says in result.stderr.splitlines()[-1], result.output
    assert sorted(tmp_path.rglob("*")) == before
