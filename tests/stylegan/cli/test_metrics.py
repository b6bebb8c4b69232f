"""The command that measures networks."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from stylegan.checkpoints.snapshot import Snapshot, store
from stylegan.cli import metrics as calc_metrics
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from training.config import DataConfig, RunConfig
from training.data.archive import Archive, ArchiveWriter
from training.runs.run_dir import write_options

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with its data, and a feature network `quarters:embed`."""
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "quarters.py").write_text(
        "import torch.nn.functional as F\n"
        "def embed(images):\n    return F.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "quarters", raising=False)
    rng = np.random.default_rng(0)
    with ArchiveWriter(tmp_path / "blotches.zip") as writer:
        for _ in range(30):
            writer.add(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
    folder = tmp_path / "00000-blotches"
    folder.mkdir()
    torch.manual_seed(0)
    store(
        folder / "network-snapshot-000001.safetensors",
        Snapshot(build_generator(TINY), None, TINY, TINY.full, 1.0, "blotches"),
    )
    data = DataConfig(str(tmp_path / "blotches.zip"), content_hash=Archive.open(tmp_path / "blotches.zip").content_hash)
    write_options(folder, RunConfig(model=TINY, data=data))
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(
        calc_metrics.main, [str(w) for w in (*words, "--device", "cpu", "--features", "quarters:embed")]
    )


def test_a_run_is_measured_against_its_own_data_and_keeps_the_lines(run_dir):
    result = run("--network", run_dir, "--metrics", "kid40_full,fid40_full,msssim4")
    assert result.exit_code == 0, result.output
    assert "kid40_full-quarters-embed " in result.output and "fid40_full-quarters-embed " in result.output
    line = json.loads((run_dir / "metric-fid40_full-quarters-embed.jsonl").read_text())
    assert line["snapshot_pkl"].endswith("network-snapshot-000001.safetensors") and line["psi"] == 1.0
    assert line["data"].endswith("blotches.zip") and not line["mirror"]


def test_without_the_data_of_a_run_all_that_needs_none_is_measured(run_dir, tmp_path):
    (tmp_path / "blotches.zip").rename(tmp_path / "elsewhere.zip")
    result = run("--network", run_dir, "--metrics", "kid20,msssim4")
    assert result.exit_code == 2 and result.output.count("give their new place with --data NEWPATH") == 1
    assert "kid20 was skipped: which data?" in result.output and (run_dir / "metric-msssim4.jsonl").is_file()
    assert run("--network", run_dir, "--metrics", "msssim4", "--dry-run").exit_code == 0
    moved = ("--data", tmp_path / "elsewhere.zip")
    assert run("--network", run_dir, "--metrics", "kid20", *moved).exit_code == 0
    wrong = run("--network", run_dir, "--metrics", "msssim4", "--data", tmp_path / "nowhere.zip")
    assert wrong.exit_code == 2 and "nowhere.zip" in wrong.output and "was skipped" not in wrong.output


def test_flags_reach_the_record(run_dir, tmp_path):
    snapshot = run_dir / "network-snapshot-000001.safetensors"
    result = run("--network", snapshot, "--metrics", "kid40", "--trunc", "0.5", "--seed", "3", "--mirror", "--outdir",
                 tmp_path / "out", "--data", tmp_path / "blotches.zip", "--batch", "3", "--precision",
                 "bf16")  # fmt: skip
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "out/metric-kid40-quarters-embed.jsonl").read_text())
    assert (line["psi"], line["seed"], line["mirror"], line["precision"]) == (0.5, 3, True, "bf16")


def test_a_dry_run_writes_nothing(run_dir):
    result = run("--network", run_dir, "--metrics", "fid5k_full,msssim4,swd30", "-n")
    assert "fid5k_full (5000 fakes), msssim4 (8 fakes), swd30 (30 fakes)" in result.output
    assert result.exit_code == 0 and "30 images 16x16 RGB" in result.output
    refused = run("--network", run_dir, "--metrics", "msssim4,swd99,pr99_40_full", "-n")
    assert refused.exit_code == 2 and "swd99 was skipped: it takes 99 real images" in refused.output
    assert "none of 30 real images has 40 neighbours" in refused.output
    assert "2 of 3 metrics could not be measured: swd99, pr99_40_full" in refused.output
    assert not list(run_dir.glob("metric-*"))


@pytest.mark.parametrize(("words", "message"), [
    (["--metrics", "kid40"], "--network is missing"),
    (["--network", "RUN", "--metrics", "fud40"], "there is no metric 'fud40'"),
    (["--network", "RUN", "--metrics", "fid12_full"], "fid12_full was skipped: 12 fakes are too few"),
    (["--network", "RUN", "--seed", "-1"], "--seed must be from 0 to 18446744073709551615, got -1"),
    (["--network", "RUN", "--seed", 2**64], "got 18446744073709551616"),
    (["--network", "RUN", "--outdir", "/proc/none"], "cannot write to /proc/none"),
    (["--network", "RUN", "--directions", "none.safetensors"], "there is no file none.safetensors"),
    (["--network", "RUN", "--metrics", "ls100"], "1 of 1 metric could not be measured: ls100"),
    (["--network", "RUN", "--gpus", "0"], "--gpus must be at least 1, got 0"),
    (["--network", "RUN", "--gpus", "100000"], "--gpus 100000 is too many for"),
    (["--network", "RUN", "--metrics", "kid9999999999k"], "kid9999999999k is for too many images"),
    (["--network", "RUN", "--batch", "0"], "--batch must be at least 1, got 0"),
    (["--fakes", "blotches.zip", "--precision", "bf16"], "--precision has no effect with --fakes"),
    (["--network", "RUN", "--metrics", "kid30", "--features-weights", "x.pt"], "--features-weights are for"),
    (["--network", "RUN", "--metrics", "kid30", "--data", "none.zip"], "no archive or folder at none.zip"),
])  # fmt: skip
def test_mistakes_are_one_line(words, message, run_dir):
    result = run(*[run_dir if word == "RUN" else word for word in words])
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output


def test_what_is_missing_is_reported_first_and_the_other_metrics_are_measured(run_dir, tmp_path):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((run_dir / "network-snapshot-000001.safetensors").read_bytes())
    result = run("--network", alone, "--metrics", "msssim4,kid40,purity8", "--outdir", tmp_path / "out")
    assert result.exit_code == 2 and (tmp_path / "out" / "metric-msssim4.jsonl").is_file()
    lines = result.output.splitlines()
    starts = ("kid40 was skipped: which data", "purity8 was skipped: it takes directions", "msssim4 ")
    first = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in starts]
    assert first == sorted(first) and "2 of 3 metrics could not be measured: kid40, purity8" in lines[-1]


def test_data_of_other_channels_are_refused(run_dir, tmp_path):
    with ArchiveWriter(tmp_path / "grey.zip") as writer:
        writer.add(np.zeros((16, 16, 1), np.uint8))
    result = run("--network", run_dir, "--metrics", "kid40", "--data", tmp_path / "grey.zip")
    assert result.exit_code == 2 and "images of 1 channels" in result.output


def test_help_is_quick_and_names_the_metrics():
    assert "torch" not in vars(calc_metrics)
    text = CliRunner().invoke(calc_metrics.main, ["--help"]).output
    assert "fid5k_full" in text and "--features" in text and "--gpus" in text


# Images in files, in place of a network's


def classes_of(
    path: Path, labels: list[int], names: list[str] | None = None, size: int = 16, only: int | None = None
) -> Path:
    """An archive of noise; class c is bright by 20 c. only: leave the images of all other classes out"""
    rng = np.random.default_rng(len(labels))
    with ArchiveWriter(path, {"class_names": names} if names else None) as writer:
        for label in labels:
            pixels = (rng.integers(0, 100, (size, size, 3)) + 20 * label).astype(np.uint8)
            if only in (None, label):
                writer.add(pixels, label)
    return path


def test_a_class_by_itself_is_what_its_images_alone_are(run_dir, tmp_path):
    sides = {"data": [0] * 12 + [1] * 9, "fakes": [0] * 8 + [1] * 8}
    numbers = []
    for name, only in (("whole", None), ("alone", 1)):
        paths = {side: classes_of(tmp_path / f"{side}-{name}.zip", labels, None, 16, only)
                 for side, labels in sides.items()}  # fmt: skip
        words = ("--fakes", paths["fakes"], "--data", paths["data"], "--metrics", "kid8_full,swd8")
        assert run(*words, "--per-class", "--outdir", tmp_path / name).exit_code == 0
        for path in sorted((tmp_path / name).iterdir()):
            numbers.append(list(json.loads(path.read_text().splitlines()[-1])["results"].values()))
    assert numbers[:2] == numbers[2:]


def test_images_of_any_tool_are_measured_without_a_network(run_dir, tmp_path):
    data, out = tmp_path / "blotches.zip", tmp_path / "out"
    with zipfile.ZipFile(data) as archive:
        archive.extractall(tmp_path / "folder")
    fakes = classes_of(tmp_path / "fakes.zip", [0] * 20)
    for source, near in ((fakes, False), (tmp_path / "folder", True)):
        result = run("--fakes", source, "--data", data, "--metrics", "kid20_full,pr20_3,msssim4", "--outdir", out)
        assert result.exit_code == 0, result.output
        line = json.loads((out / "metric-kid20_full-quarters-embed.jsonl").read_text().splitlines()[-1])
        assert (line["num_images"], line["num_reals"], line["network"]) == (20, 30, "")
        assert line["snapshot_pkl"] == str(source) and line["fakes_hash"] == Archive.open(source).content_hash
        assert (abs(line["results"]["kid20_full-quarters-embed"]) < 0.01) is near
    assert run("--fakes", fakes, "--data", data).output.startswith("kid20_full-quarters-embed ")  # kid of all of them


def test_images_in_files_are_compared_at_the_smaller_size(run_dir, tmp_path):
    large = classes_of(tmp_path / "large.zip", [0] * 12, size=32)
    for fakes, data in ((large, tmp_path / "blotches.zip"), (tmp_path / "blotches.zip", large)):
        result = run("--fakes", fakes, "--data", data, "--metrics", "kid12_full", "--outdir", tmp_path / "out")
        assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "out/metric-kid12_full-quarters-embed.jsonl").read_text().splitlines()[-1])
    assert line["resolution"] == 16
    other = classes_of(tmp_path / "odd.zip", [0] * 12, size=24)
    result = run("--fakes", other, "--data", tmp_path / "blotches.zip", "--metrics", "kid12_full")
    assert result.exit_code == 2 and "halving cannot turn them into" in result.output


@pytest.mark.parametrize(("words", "message"), [
    (["--fakes", "FAKES", "--network", "RUN"], "--fakes are measured in place of the images of a network"),
    (["--fakes", "FAKES", "--data", "FAKES", "--metrics", "ppl8_wend"], "of a network, not of images in files"),
    (["--fakes", "FAKES", "--data", "FAKES", "--metrics", "kid9_full"], "9 generated images and there are 8"),
    (["--fakes", "FAKES", "--metrics", "kid8"], "which data? give --data"),
    (["--fakes", "none.zip", "--metrics", "kid8"], "no archive or folder at none.zip"),
    (["--fakes", "GRID", "--metrics", "kid8"], "grid.png is a grid of the other images; move it out"),
])  # fmt: skip
def test_mistakes_with_images_in_files_are_one_line(words, message, run_dir, tmp_path):
    classes_of(tmp_path / "fakes.zip", [0] * 8)
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "grid.png").touch()
    paths = {"RUN": run_dir, "FAKES": tmp_path / "fakes.zip", "GRID": tmp_path / "grid"}
    result = run(*[paths.get(word, word) for word in words])
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output


# Classes by themselves


def test_each_class_is_measured_by_itself(run_dir, tmp_path):
    data = classes_of(tmp_path / "data.zip", [0] * 12 + [1] * 9 + [2] * 6, ["dark", "grey", "bright"])
    fakes = classes_of(tmp_path / "few.zip", [0] * 8 + [1] * 8)
    words = ("--fakes", fakes, "--data", data, "--per-class", "--metrics", "kid8_full,kid9_full", "--outdir", tmp_path)
    dry, result = run(*words, "-n"), run(*words)
    assert "Classes left out, as one side has no image of them: 2" in result.output
    assert (
        "kid9_full of class 1 was skipped: it takes 9 generated images and there are 8" in dry.output
        and dry.exit_code == result.exit_code == 2
    )
    path = tmp_path / "metric-kid8_full-quarters-embed-perclass.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [(line["c"], line["class_name"], line["num_reals"]) for line in lines] == [(0, "dark", 12), (1, "grey", 9)]
    assert [next(iter(line["results"])) for line in lines] == [f"kid8_full-quarters-embed-class{c}" for c in (0, 1)]
    numbers = {line["c"]: next(iter(line["results"].values())) for line in lines}
    worst = [f"{c} {('dark', 'grey')[c]}" for c in sorted(numbers, key=numbers.get, reverse=True)]
    _, order = result.output.split("Classes by kid8_full-quarters-embed, the worst first:\n")
    assert [" ".join(line.split()[:2]) for line in order.splitlines()[:2]] == worst
    alone = classes_of(tmp_path / "alone.zip", [1] * 8)
    assert "no class in common" in run("--fakes", classes_of(tmp_path / "c.zip", [3] * 8), *words[2:]).output
    assert run("--fakes", alone, *words[2:]).output.count("kid8_full-quarters-embed-class1 ") == 1
    renamed = classes_of(tmp_path / "renamed.zip", [0] * 8, ["grey"])
    assert "class 0 is grey in" in run("--fakes", renamed, *words[2:]).output
    assert "has no labels" in run("--fakes", tmp_path / "blotches.zip", *words[2:]).output
    assert "unconditional" in run("--network", run_dir, *words[2:]).output


def test_a_network_is_measured_by_class(run_dir, tmp_path):
    config = replace(TINY, num_classes=3)
    path = tmp_path / "classes.safetensors"
    store(path, Snapshot(build_generator(config), None, config, TINY.full, 1.0, "blotches"))
    data = classes_of(tmp_path / "data.zip", [0] * 9 + [2] * 12)
    result = run("--network", path, "--data", data, "--per-class", "--metrics", "kid9_full,msssim2,nearest4",
                 "--outdir", tmp_path)  # fmt: skip
    lines = (tmp_path / "metric-kid9_full-quarters-embed-perclass.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(line["c"], line["num_reals"]) for line in found] == [(0, 9), (2, 12)]
    assert "left out, as one side has no image of them: 1" in result.output
    assert "nearest4 of class 0 was skipped: it compares with all classes" in result.output


# Images ranked by the discriminator


@pytest.fixture
def with_d(run_dir) -> Path:
    """That run, with a discriminator that finds bright images real."""
    config = replace(TINY, mbstd_group=4)
    torch.manual_seed(0)
    D = build_discriminator(config)
    path = run_dir / "network-snapshot-000001.safetensors"
    store(path, Snapshot(build_generator(config), D, config, TINY.full, 1.0, "blotches"))
    return run_dir


def ranks(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "rank.csv").open(newline="")))


def test_images_are_ranked_whatever_their_order(with_d, tmp_path):
    result = run("--network", with_d, "--rank", "--outdir", tmp_path / "one")
    assert result.exit_code == 0 and "Ranked 30 images" in result.output, result.output
    found = ranks(tmp_path / "one")
    scores = [float(row["score"]) for row in found]
    assert scores == sorted(scores, reverse=True) and len({row["file"] for row in found}) == 30
    assert [row["rank"] for row in found] == [str(i) for i in range(1, 31)]
    width, height = Image.open(tmp_path / "one/rank.png").size
    assert width == 8 * 128 and height == 2 * 2 * (128 + 16) + 4
    again = run("--network", with_d, "--rank", "--outdir", tmp_path / "one", "--batch", 32)
    assert "replaces 2 older files" in again.output
    assert [row["file"] for row in ranks(tmp_path / "one")] == [row["file"] for row in found]


def test_images_are_ranked_in_their_classes_the_worst_class_first(with_d, tmp_path):
    data = classes_of(tmp_path / "data.zip", [0] * 11 + [1] * 10 + [2], ["cat", "dog", "owl"])
    words = ("--network", with_d, "--data", data, "--outdir", tmp_path / "one", "--rank")
    assert run(*words).exit_code == 0
    together = {row["file"]: float(row["score"]) for row in ranks(tmp_path / "one")}
    assert list(ranks(tmp_path / "one")[0]) == ["rank", "file", "score"]
    result = run(*words, "--per-class")
    assert result.exit_code == 0, result.output
    found = ranks(tmp_path / "one")
    assert {row["file"]: float(row["score"]) for row in found} == together
    order = list(dict.fromkeys(row["class"] for row in found))
    for c, count in (("0", 11), ("1", 10), ("2", 1)):
        own = [row for row in found if row["class"] == c]
        scores = [float(row["score"]) for row in own]
        assert [int(row["rank"]) for row in own] == list(range(1, count + 1))
        assert scores == sorted(scores, reverse=True)
    means = {c: np.mean([float(row["score"]) for row in found if row["class"] == c]) for c in order}
    assert order == sorted(means, key=means.get)
    _, table = result.output.split("the worst image\n")
    assert [line.split()[1] for line in table.splitlines()[:3]] == [["cat", "dog", "owl"][int(c)] for c in order]
    width, height = Image.open(tmp_path / "one/rank.png").size
    assert (width, height) == (8 * 128 + 4, 3 * (128 + 16))
    assert "unconditional" in run("--network", with_d, "--rank", "3-20", "--per-class", "--outdir", tmp_path).output


def test_generated_images_are_ranked_by_their_seeds(with_d, tmp_path):
    result = run("--network", with_d, "--rank", "3-20", "--outdir", tmp_path / "two")
    assert result.exit_code == 0, result.output
    assert sorted(int(row["seed"]) for row in ranks(tmp_path / "two")) == list(range(3, 21))
    dry = run("--network", with_d, "--rank", "3-20", "--outdir", tmp_path / "three", "-n")
    assert dry.exit_code == 0 and "18 seeds" in dry.output and not (tmp_path / "three").exists()


@pytest.mark.parametrize(("words", "message"), [
    (["--network", "RUN", "--rank", "0-9x"], "Invalid seed"),
    (["--rank", "--outdir", "out"], "--network is missing"),
    (["--network", "RUN", "--rank", "0-6"], "sees groups of 4 images and ranks two of them or more; there are 7"),
    (["--network", "RUN", "--rank", "0-9", "--data", "mnist"], "leave out --fakes and --data, or the seeds"),
    (["--network", "RUN", "--rank", "--data", "mnist"], "images of 1 channels"),
    (["--network", "digits32", "--rank", "0-9", "--outdir", "OUT"], "no discriminator; give a snapshot of a run"),
    (["--network", "digits32", "--rank", "0-9"], "--outdir is missing"),
])  # fmt: skip
def test_what_cannot_be_ranked_is_one_line(words, message, with_d, tmp_path):
    paths = {"RUN": with_d, "OUT": tmp_path / "out"}
    result = run(*[paths.get(word, word) for word in words])
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not list(tmp_path.rglob("rank.*"))
