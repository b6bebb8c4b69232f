"""What the README says to type works, as it is written, in the order in which it is written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# All that is changed: trainings end early, and take one thread, as two wait for each other where anything else runs.
SHORTER = ["--kimg", "0.1", "--threads", "1"]
FEWER_STEPS = ["--num-steps", "2", "--plus-steps", "2", "--w-samples", "10"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README takes for granted: pictures, and a network file of the published repository."""
    home = tmp_path_factory.mktemp("home")
    pictures = home / "pictures"
    pictures.mkdir()
    for seed in range(6):
        noise = np.random.default_rng(seed).integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"{seed}.jpg")
    shutil.copy(ROOT / "tests/data/stylegan_r32.pkl", home / "karras2019stylegan-ffhq-1024x1024.pkl")
    return home


def run(home: Path, command: list[str]) -> str:
    environment = os.environ | {"HOME": str(home), "STYLEGAN_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    words = [word.replace("~", str(home)) for word in command]
    done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_and_the_python_lines_work(home: Path) -> None:
    assert len(commands()) >= 6
    for command in [["python", "train.py", *["--outdir", "runs", "--data", "mnist", "--cfg", "digits32"]], *commands()]:
        training = command[1] == "train.py" and "--outdir" in command
        fewer = SHORTER if training else FEWER_STEPS if command[1] == "project.py" else []
        run(home, [sys.executable, str(ROOT / command[1]), *command[2:], *fewer])
        if command[1] == "train.py" and "faces.zip" in command and "--dry-run" not in command:
            # The README resumes the first run of a fresh folder; here the digits came first.
            (home / "runs/00001-faces-faces64").rename(home / "runs/00000-faces-faces64")
    assert (home / "out" / "grid.png").exists() and len(list((home / "out").glob("seed*.png"))) == 36
    assert (home / "ffhq1024.safetensors").exists()
    lines = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "".join(blocks("python"))
    run(home, [sys.executable, "-c", lines + "\nassert len(pictures) == 8 and images.shape[0] == len(scores) == 4"])


def test_make_has_every_target_that_the_readme_names() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE)) and targets >= {
        name for pair in re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE) for name in pair if name
    }


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:stylegan|training|torch_utils|ops|benchmarks|docs|tests)/[\w./-]+)`", README))
    assert named and [name for name in named if not (ROOT / name).exists()] == []
