"""A tool works on to its end when nobody reads what it prints, and says so when that is lost for another reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = """
import sys
import click
from torch_utils.cli import Command

@click.command(cls=Command)
def main():
    "Print much, and write a file."
    for number in range(20000):
        print("line", number)
    print("a warning", file=sys.stderr, flush=True)
    with open("done", "w") as file:
        file.write(str(file.fileno()))

main()
"""


def run(folder: Path, *arguments: str, out: int | None = None, close: tuple[int, ...] = ()) -> tuple[int, str]:
    """Exit code and standard error of a tool. out: where its output goes   close: descriptors that are closed"""
    done = subprocess.run(
        [sys.executable, "-c", TOOL, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: [os.close(it) for it in close] and None,
    )  # fmt: skip
    return done.returncode, done.stderr


def without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("close", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_change_nothing(close, tmp_path) -> None:
    """And no file gets their numbers, under which libraries write messages."""
    code, errors = run(tmp_path, out=subprocess.DEVNULL, close=close)
    assert (code, errors) == (0, "" if 2 in close else "a warning\n")
    assert int((tmp_path / "done").read_text()) > 2


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_a_reader_that_leaves_changes_nothing(arguments, tmp_path) -> None:
    code, errors = run(tmp_path, *arguments, out=without_reader())
    assert (code, errors) == (0, "" if arguments else "a warning\n")
    assert (tmp_path / "done").exists() is not bool(arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full")
def test_output_that_is_lost_is_an_error_once_the_work_is_done(tmp_path) -> None:
    with open("/dev/full", "w") as full:
        code, errors = run(tmp_path, out=full.fileno())
    assert code == 2 and errors.splitlines()[-1] == (
        "Error: standard output could not be written (No space left on device); all else is done"
    )
    assert (tmp_path / "done").exists()
