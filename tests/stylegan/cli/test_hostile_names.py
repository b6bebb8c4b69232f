"""Names of files, labels, headings and settings from elsewhere: no tool prints what could control the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, store
from stylegan.cli import convert, data, directions, doctor, film, generate, metrics, mix, project, train
from stylegan.editing.directions import in_w, save_directions
from stylegan.latents.latents import Latents, save_latents
from training.config import DataConfig, RunConfig
from training.data.archive import Archive, ArchiveWriter
from training.runs.run_dir import OPTIONS, write_options

EVIL = "\x1b[31m\x9b2J\x07\u202e\r"
"""Colours, a cleared screen, a bell, text that runs backwards, and a line that is overwritten."""


@pytest.fixture
def net(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot in a folder of such a name, with such a name of its data."""
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / f"cache{EVIL}"))
    monkeypatch.setenv("STYLEGAN_OPS", "ref")
    folder = tmp_path / f"in{EVIL}"
    folder.mkdir()
    found = load_snapshot(models / "faces.safetensors")
    store(folder / f"net{EVIL}.safetensors", Snapshot(found.G, found.D, found.config, found.stage, 1.0, f"data{EVIL}"))
    return folder / f"net{EVIL}.safetensors"


def run(command: click.Command, *words: object) -> Result:
    """Run a command, which may fail, but may not print more than letters and ends of lines."""
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert result.exit_code in (0, 1, 2), (result.exception, result.output)
    assert all(c.isprintable() for c in result.output.replace("\n", "")), ascii(result.output)
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
    return result


def images(folder: Path, names: Sequence[str], size: int = 16) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, "PNG")
    return folder


def latents(net: Path, snapshot: Snapshot) -> Path:
    path = net.with_name(f"eva{EVIL}.latent.safetensors")
    ws = torch.zeros(2, snapshot.config.num_ws, snapshot.config.ws_dim)
    save_latents(path, Latents(ws, ("a", "b"), (f"photo {EVIL}", f"seed {EVIL}")), snapshot)
    return path


@pytest.mark.parametrize("command, options", [
    (generate.main, ["--outdir", "OUT"]), (generate.main, ["--outdir", "OUT", "-n"]),
    (generate.main, ["--outdir", "OUT", "--format", "zip", "--grid"]),
    (mix.main, ["--rows", "SEEDS", "--cols", "3", "--outdir", "OUT"]),
    (film.main, ["--out", "OUT.webp", "--frames", "2"]),
    (film.main, ["--out", "OUT", "--frames", "2", "-n"]), (film.main, ["--out", "OUT.xyz"]),
])  # fmt: skip
def test_tools_that_generate_images(net, command, options):
    snapshot = load_snapshot(net)
    seeds = f"1,{latents(net, snapshot)}"
    words = [word.replace("OUT", str(net.with_name(f"out{EVIL}"))).replace("SEEDS", seeds) for word in options]
    words += [] if command is mix.main else ["--seeds", seeds]
    for _ in range(2):  # the second time it replaces files
        run(command, "--network", net, "--device", "cpu", *words)
    assert run(command, "--network", f"{net}x", *words).exit_code == 2
    bad = net.with_name(f"x{EVIL}.safetensors")
    bad.write_bytes(b"neither this nor that")
    assert "x1b[31m" in run(command, "--network", bad, "--device", "cpu", *words).output


def test_projection_and_directions(net, tmp_path):
    photos = images(tmp_path / f"photos{EVIL}", [f"eva{EVIL}.png", f"tom{EVIL}.png"])
    (photos / f"bad{EVIL}.png").write_bytes(b"not an image")
    place = ["--network", net, "--device", "cpu"]
    words = [*place, "--target", photos, "--outdir", tmp_path / f"out{EVIL}", "--num-steps", 2, "--w-samples", 50]
    for more in (["-n"], [], [], ["--space", "w+", "--plus-steps", 1]):
        result = run(project.main, *words, *more)
        assert result.exit_code == 0 and "bad" in result.output
    snapshot = load_snapshot(net)
    found = in_w(torch.eye(8)[:2], [f"smile{EVIL}", f"age{EVIL}"], range(6), "pca", torch.eye(8).double())
    file = tmp_path / f"a{EVIL}.direction.safetensors"
    save_directions(file, found, snapshot)
    assert "smile" in run(directions.main, "info", file).output
    words = ["--directions", file, "--seeds", f"1,{latents(net, snapshot)}", "--strengths", "0,1"]
    for command, name in (("apply", ["--name", 0]), ("apply", ["--name", EVIL]), ("apply", []), ("sheet", [])):
        run(directions.main, command, *place, *words, *name, "--outdir", tmp_path / "moved")
    for name in (f"smile{EVIL}", "x"):
        other = ["--name", f"age{EVIL}", "--without", name, "--dest", tmp_path / f"b{EVIL}.direction.safetensors"]
        run(directions.main, "conditional", *place, "--directions", file, *other)
    (tmp_path / f"t{EVIL}.csv").write_bytes(f"seed,smile{EVIL[:-1]}\n1,0\n2,often{EVIL[:-1]}\n".encode())
    words = ["--method", "labels", "--labels", tmp_path / f"t{EVIL}.csv"]
    words += ["--dest", tmp_path / "c.direction.safetensors"]
    assert run(directions.main, "find", *place, *words).exit_code == 2


def test_data_training_and_metrics(net, tmp_path):
    source = tmp_path / f"source{EVIL}"
    for part in ("one", "two"):
        images(source / f"{part}{EVIL}", [f"{i}{EVIL}.png" for i in range(3)])
        (source / f"{part}{EVIL}" / f"bad{EVIL}.png").write_bytes(b"not an image")
    archive, skips = tmp_path / f"a{EVIL}.zip", tmp_path / f"skips{EVIL}"
    words = ["--source", source, "--dest", archive, "--resolution", 16, "--skip-list", skips]
    assert "one" in run(data.main, *words, "-n").output and run(data.main, *words).exit_code == 0
    assert all(c.isprintable() or c in "\t\n" for c in skips.read_text())
    assert run(data.main, *words).exit_code == 2
    for labels in (tmp_path / f"no{EVIL}.csv", f"{EVIL}"):
        assert run(data.main, *words, "--overwrite", "--labels", labels).exit_code == 2
    for what in (archive, source):
        run(train.main, "--data", what, "--outdir", tmp_path / f"runs{EVIL}", "-n")
    folder = tmp_path / f"runs{EVIL}" / f"00000-{EVIL}"
    folder.mkdir(parents=True)
    stored = RunConfig(model=load_snapshot(net).config,
                       data=DataConfig(str(archive), content_hash=Archive.open(archive).content_hash))  # fmt: skip
    write_options(folder, stored)
    run(train.main, "--resume", folder, "-n")
    options = json.loads((folder / OPTIONS).read_text())
    for changed in ({**options, "preset": EVIL}, {**options, EVIL: 1}, {**options, "metrics": [EVIL]}):
        (folder / OPTIONS).write_text(json.dumps(changed))
        run(train.main, "--resume", folder, "-n")
    for what in (archive, tmp_path / f"no{EVIL}.zip"):
        run(metrics.main, "--network", net, "--data", what, "--metrics", "fid50,ppl2_wend", "--device", "cpu", "-n")
    (tmp_path / f"t{EVIL}.csv").write_text(f"file,bright{EVIL[:-1]}\nimg00000000.png,{EVIL[:-1]}\n")
    words = ["--data", archive, "--table", tmp_path / f"t{EVIL}.csv", "--dest", tmp_path / "a.attributes.safetensors"]
    assert run(directions.main, "learn", *words).exit_code == 2


def test_conversion_and_diagnosis(net, tmp_path):
    dest = tmp_path / f"b{EVIL}.safetensors"
    assert "b\\x1b" in run(convert.main, "--source", net, "--dest", dest).output
    run(convert.main, "--blend", net, dest, "--from-layer", 2, "--dest", tmp_path / f"c{EVIL}.safetensors")
    run(convert.main, "--source", net, "--dest", tmp_path / f"d{EVIL}.pkl")
    (tmp_path / f"e{EVIL}.pkl").write_bytes(b"\x80\x04c\x1b[31m\nsystem\n.")
    assert "x1b[31m" in run(convert.main, "--source", tmp_path / f"e{EVIL}.pkl", "--dest", dest).output
    run(doctor.main, "--device", EVIL)


def test_a_class_name_from_an_archive(tmp_path):
    with ArchiveWriter(tmp_path / "a.zip", {"class_names": [f"one{EVIL}", f"two{EVIL}"]}) as writer:
        for index in range(4):
            writer.add(np.full((16, 16, 3), 60 * index, np.uint8), index % 2)
    result = run(data.main, "--source", tmp_path / "a.zip", "--dest", tmp_path / "b.zip", "--resolution", 16, "-n")
    assert result.exit_code == 0 and "one\\x1b" in result.output
    run(train.main, "--data", tmp_path / "a.zip", "--outdir", tmp_path / "runs", "-n")
