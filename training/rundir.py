"""The directory of a run: its number, and the configuration stored in it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from torch_utils.errors import UserError
from torch_utils.plain_json import read_json
from training.config import RunConfig, from_json, to_json

OPTIONS = "training_options.json"
STATE = "training-state.pt"


def make_outdir(outdir: Path) -> None:
    """Raises UserError if nothing can be written there."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=outdir).close()
    except OSError as error:
        raise _unwritable(outdir, error) from None


def create_run_dir(outdir: Path, desc: str) -> Path:
    """Make and return `outdir/NNNNN-desc` with the next free number.

    Two runs that start at the same moment get two numbers: a number belongs to whoever makes the bare directory
    `NNNNN`, which is then renamed. Raises UserError if nothing can be written there.
    """
    safe = re.sub(r"[^\w.+-]+", "-", desc).strip("-")
    make_outdir(outdir)
    try:
        number = 1 + max(_taken(outdir), default=-1)
        while not _claim(outdir, number):
            number += 1
        run_dir = outdir / f"{number:05d}-{safe}"
        (outdir / f"{number:05d}").rename(run_dir)
    except OSError as error:
        raise _unwritable(outdir, error) from None
    return run_dir


def _unwritable(outdir: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to --outdir {outdir} ({error.strerror}); choose a folder of your own")


def _taken(outdir: Path) -> list[int]:
    return [int(match[0]) for entry in outdir.iterdir() if (match := re.match(r"\d{5,}(?=-|$)", entry.name))]


def _claim(outdir: Path, number: int) -> bool:
    """Take `number`, unless another run has it."""
    bare = outdir / f"{number:05d}"
    try:
        bare.mkdir()
    except FileExistsError:
        return False
    # Another run may have claimed and renamed between our look at the folder and our claim.
    if _taken(outdir).count(number) > 1:
        bare.rmdir()
        return False
    return True


def write_options(run_dir: Path, cfg: RunConfig) -> None:
    """Store the configuration, whole or not at all."""
    scratch = run_dir / f"{OPTIONS}.tmp"
    try:
        scratch.write_text(json.dumps(to_json(cfg), indent=2) + "\n")
        os.replace(scratch, run_dir / OPTIONS)
    except OSError as error:
        raise UserError(f"cannot write {run_dir / OPTIONS} ({error.strerror}); make room there") from None


def store_total(run_dir: Path, total_kimg: float) -> None:
    """Keep the length of a prolonged run, so that the next --resume knows it. The other options stay as they are.

    Raises UserError as `read_options` and `write_options` do.
    """
    stored = read_options(run_dir)
    if total_kimg != stored.total_kimg:
        write_options(run_dir, replace(stored, total_kimg=total_kimg))


def read_options(run_dir: Path) -> RunConfig:
    """The configuration of a run. Raises UserError if `run_dir` is not a run that can be resumed."""
    path = run_dir / OPTIONS
    if not run_dir.is_dir():
        raise UserError(f"--resume {run_dir}: there is no such folder; give that of a run, such as runs/00000-...")
    if not path.exists():
        raise UserError(f"--resume {run_dir}: no {OPTIONS} in it, so it is not a run; give the folder of one")
    if not (run_dir / STATE).exists():
        raise UserError(f"--resume {run_dir}: no {STATE} in it, the run ended before its first save; start it again")
    try:
        return from_json(read_json(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it or start a new run") from None
