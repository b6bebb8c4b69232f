"""The command that measures networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from stylegan.checkpoints.snapshot import save_snapshot
from stylegan.cli import metrics as calc_metrics
from stylegan.networks.registry import build_generator
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
    save_snapshot(folder / "network-snapshot-000001.safetensors", build_generator(TINY), config=TINY, stage=TINY.full,
                  kimg=1.0, data="blotches")  # fmt: skip
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


def test_flags_reach_the_record(run_dir, tmp_path):
    snapshot = run_dir / "network-snapshot-000001.safetensors"
    result = run("--network", snapshot, "--metrics", "kid40", "--trunc", "0.5", "--seed", "3", "--mirror", "--outdir",
                 tmp_path / "out", "--data", tmp_path / "blotches.zip", "--batch", "3")  # fmt: skip
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "out/metric-kid40-quarters-embed.jsonl").read_text())
    assert (line["psi"], line["seed"], line["mirror"]) == (0.5, 3, True)


def test_a_dry_run_writes_nothing(run_dir):
    result = run("--network", run_dir, "--metrics", "fid5k_full,msssim4,swd99", "-n")
    assert "fid5k_full (5000 fakes), msssim4 (8 fakes), swd99 (30 fakes)" in result.output
    assert result.exit_code == 0 and "30 images 16x16 RGB" in result.output
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
    (["--network", "RUN", "--metrics", "kid40", "--features-weights", "x.pt"], "--features-weights are for"),
    (["--network", "RUN", "--metrics", "kid40", "--data", "none.zip"], "no archive or folder at none.zip"),
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
