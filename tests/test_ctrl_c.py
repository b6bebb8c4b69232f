"""Ctrl-C while a script is still loading: one line and exit code 130, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW = "import time\nprint('loading', flush=True)\ntime.sleep(60)\n"
COMMANDS = {
    "train.py": "--data mnist --outdir runs",
    "generate.py": "--network a.pkl --seeds 0 --outdir out",
    "convert.py": "--source a.pkl --dest a.safetensors",
    "doctor.py": "--json",
    "project.py": "--network a.pkl --target . --outdir out",
    "dataset_tool.py": "--source a --dest a.zip",
}


@pytest.fixture(scope="module")
def slow_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for the packages that take long to load."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("torch", "numpy"):
        (folder / f"{name}.py").write_text(SLOW)
    return folder


def hear_ctrl_c() -> None:
    """Also where the tests themselves run in the background, whose processes a shell makes deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("script", COMMANDS)
def test_a_script_that_is_still_loading_stops_in_one_line(script: str, slow_packages: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, ROOT / script, *COMMANDS[script].split()], cwd=tmp_path, text=True,
        env=os.environ | {"PYTHONPATH": str(slow_packages)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "Stopped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", [["train.py", "--help"], ["-c", "from stylegan.cli import run; run()"]])
def test_a_command_that_has_not_begun_stops_in_silence(start: list[str], tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, *start], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 130)


@pytest.mark.parametrize("script", COMMANDS)
def test_help_does_not_wait_for_what_takes_long(script: str, slow_packages: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"], env=os.environ | {"PYTHONPATH": str(slow_packages)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "loading" not in done.stdout
