"""From a folder of pictures to new ones, by the commands of the README, for every kind of picture, network and game."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import stylegan
from stylegan.cli import data as dataset_tool
from stylegan.cli import generate, train
from stylegan.networks.config import Stage

ROOT = Path(__file__).parents[1]
TINY = (
    "--resolution 16 --init-res 8 --fmap-base 64 --fmap-max 8 --z-dim 8 --batch 4 --kimg 0.048 --lod-kimg 0.012 "
    "--fade-kimg 0.012 --tick 0.024 --threads 1 --device cpu --mbstd-group 2"
)
STYLEGAN, PROGAN = "--w-dim 8 --map-dim 8 --map-depth 2", "--cfg progan1024"


def run(command: click.Command, *arguments: object) -> Any:
    """What the command line does, in this process."""
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def make_folder(path: Path, size: tuple[int, int], mode: str) -> Path:
    """Twelve pictures of blotches in two sub-folders, which are their classes."""
    rng = np.random.default_rng(0)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    for index in range(12):
        folder = path / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[0] // 4, size[1] // 4, channels), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels).save(folder / f"{index}.png")
    return path


@pytest.mark.parametrize(
    "size, mode, options",
    [
        ((16, 24), "RGB", f"{STYLEGAN} --cond 0"),
        ((32, 16), "L", f"{STYLEGAN} --cond 0 --loss hinge"),
        ((16, 16), "RGBA", f"{STYLEGAN} --cond 1 --loss relativistic --precision bf16"),
        ((16, 16), "RGB", f"{STYLEGAN} --cond 1 --loss wgan-gp --mirror 1"),
        ((16, 16), "RGB", f"{STYLEGAN} --cond 1 --r1-interval 2 --batch-gpu 2"),
        ((16, 16), "RGB", f"{STYLEGAN} --cond 0 --styles 0 --const-input 0 --noise 0"),
        ((16, 24), "L", PROGAN),
        ((16, 16), "RGB", f"{PROGAN} --cond 1"),
    ],
)
def test_data_become_a_network_that_makes_pictures(size, mode, options, tmp_path) -> None:
    folder = make_folder(tmp_path / "blotches", size, mode)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    data = tmp_path / "data.zip"
    run(dataset_tool.main, "--source", folder, "--dest", data, *(["--alpha", "keep"] if mode == "RGBA" else []))
    run(train.main, "--outdir", tmp_path / "runs", "--data", data, *TINY.split(), *options.split())
    (run_dir,) = (tmp_path / "runs").iterdir()
    model = stylegan.load(run_dir)
    assert (model.stage, model.config.channels, model.kimg) == (Stage(16), channels, 0.048)
    conditional = "--cond 1" in options
    assert bool(model.config.num_classes) == conditional
    run(generate.main, "--network", run_dir, "--seeds", "0-2", "--outdir", tmp_path / "out", "--trunc", 1,
        *(["--class", 0] if conditional else []))  # fmt: skip
    pictures = [Image.open(path) for path in sorted((tmp_path / "out").glob("*.png"))]
    assert [p.size for p in pictures] == [size[::-1]] * 3 and {p.mode for p in pictures} == {mode}
    assert len({p.tobytes() for p in pictures}) == 3
    # The first cell of the last grid of fakes is seed 0, of the first class if there are any.
    grid = np.array(Image.open(max(run_dir.glob("fakes0*.png"))))
    assert np.abs(grid[: size[0], : size[1]].astype(int) - np.array(pictures[0])).max() <= 1


MISTAKES = {
    "a broken picture": (["--data", "BROKEN"], "5.png"),
    "a picture of another size": (["--data", "MIXED"], "5.png"),
    "no pictures": (["--data", "EMPTY"], "no images"),
    "something else": (["--data", "TEXT"], "Cannot open"),
    "no such path": (["--data", "nowhere.zip"], "nowhere.zip"),
    "sides that do not halve": (["--data", "ODD"], "doubling"),
    "a preset too large": (["--data", "GOOD", "--resolution", "64"], "--resolution 16"),
    "no labels": (["--data", "GOOD", "--cond", "1"], "--cond"),
    "a resolution that is none": (["--data", "GOOD", "--resolution", "12"], "12"),
    "a batch that cannot be split": (["--data", "GOOD", "--batch-gpu", "3"], "--batch-gpu 3"),
    "a batch without whole groups": (["--data", "GOOD", "--batch", "7"], "--mbstd-group"),
    "nowhere to write": (["--data", "GOOD", "--outdir", "TEXT/runs"], "--outdir"),
    "no network to start from": (["--data", "GOOD", "--init-from", "absent.safetensors"], "absent.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_line_and_leave_nothing_half_written(mistake, tmp_path, command_line) -> None:
    arguments, says = MISTAKES[mistake]
    good = make_folder(tmp_path / "GOOD", (16, 16), "RGB")
    for name in ("BROKEN", "MIXED"):
        shutil.copytree(good, tmp_path / name)
    broken = tmp_path / "BROKEN" / "b" / "5.png"
    broken.write_bytes(broken.read_bytes()[:60])
    Image.new("RGB", (16, 12)).save(tmp_path / "MIXED" / "b" / "5.png")
    make_folder(tmp_path / "ODD", (20, 20), "RGB")
    for path in (tmp_path / "ODD").rglob("*.png"):
        Image.open(path).resize((17, 17)).save(path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TEXT").write_text("no pictures here")
    known = {name: tmp_path / name for name in ("GOOD", "BROKEN", "MIXED", "ODD", "EMPTY")}
    typed = [str(known.get(str(a), a)).replace("TEXT", str(tmp_path / "TEXT")) for a in arguments]
    usual = [*TINY.split(), *STYLEGAN.split(), "--outdir", tmp_path / "runs"]
    words = command_line(dict(zip(usual[::2], usual[1::2], strict=True)), *typed)
    result = CliRunner().invoke(train.main, words)
    assert result.exit_code == 2, result.output
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert says in error
    assert not list(tmp_path.glob("runs/*"))


def test_a_run_starts_as_a_program_and_stops_with_an_error_code(tmp_path) -> None:
    """Once through a real process: its exit codes, and that errors go where errors go."""
    result = subprocess.run(
        [sys.executable, ROOT / "train.py", "--resume", tmp_path], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.splitlines() == [
        f"Error: --resume {tmp_path}: no training_options.json in it, so it is not a run; give the folder of one"
    ]
