"""Soak test: causes random faults in small runs, and compares the runs with an undisturbed one.

    python benchmarks/soak.py --minutes 30

Every fault must be reported in exactly one line, or in none if there is nothing to report. What was saved before a
fault must exist after it, and the final weights must equal those of the undisturbed run to the last bit. Prints a
table, and ends with exit code 1 if anything failed. A full disk is a small tmpfs, if one can be mounted (as root, on
Linux); a limit on the size of files works everywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.faults import (
    FAULTS,
    PATIENCE_S,
    Ended,
    Fault,
    HarmedRun,
    ended,
    kill,
    make_archive,
    nimg_of,
    training,
)
from torch_utils.cli import Command
from torch_utils.errors import UserError
from torch_utils.files import CACHE_VARIABLE
from training.runs.report import STATS
from training.runs.run_dir import FINISHED, PREVIOUS, STATE

TINY = (
    "--cfg digits32 --resolution 16 --fmap-base 64 --fmap-max 8 --z-dim 16 --w-dim 16 --map-dim 16 --batch 4 "
    "--lod-kimg 0.1 --fade-kimg 0.1 --tick 0.02 --snap 3 --metrics swd64 --keep 5 --threads 1 --device cpu "
    "--precision fp32"
)
DISK_MB = 48
CRASHES = ("Traceback", "terminate called", "Exception ignored", "Error in")


@dataclass
class Tally:
    """The results of one kind of fault."""

    times: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0


def verdict(fault: Fault, found: Ended) -> list[str]:
    """What was wrong in the output and the exit code."""
    said = [*found.out.splitlines(), *found.errors]
    wrong = [f"said '{word}'" for word in CRASHES if word in found.out + found.err]
    if found.code not in fault.codes:
        wrong.append(f"ended with {found.code}")
    wrong += [f"said {line}" for line in found.errors if not fault.wants or fault.wants not in line]
    reports = [line for line in said if fault.wants and fault.wants in line]
    if fault.wants and (not reports or len(reports) > len(set(reports))):  # two files are two lines
        wrong.append(f"reported in {len(reports)} lines")
    return [*wrong, *([f"-- {found.out[-600:]} -- {found.err[-600:]}"] if wrong else [])]


def positions(run: HarmedRun) -> tuple[int, int]:
    """The images that the newest state and the one before it have seen."""
    return nimg_of(run.run_dir / STATE), nimg_of(run.run_dir / PREVIOUS)


def lost(before: tuple[int, int], run: HarmedRun, corrupted: bool) -> list[str]:
    """What had been saved and is lost. If the newest state was `corrupted`, only the one before it must exist."""
    floor = before[1] if corrupted else before[0]
    now = max(positions(run))
    return [f"the state went back from {floor} to {now}"] if now < floor else []


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs, if it can be mounted; else a folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def new_run(folder: Path, data: Path, kimg: float, seed: int, fresh: float) -> HarmedRun:
    outdir = folder / "runs"
    command = f"--outdir {outdir} --data {data} --kimg {kimg:g} {TINY} --resume auto"
    return HarmedRun(outdir, data, command.split(), random.Random(seed), fresh)


def to_the_end(run: HarmedRun) -> Ended:
    with training(run) as (process, out):
        return ended(process, out, 10 * PATIENCE_S)


def differing(a: Any, b: Any, name: str = "") -> list[str]:
    """The parts of two states that differ, except times and lengths of logs."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [name]
    if isinstance(a, dict) and isinstance(b, dict):
        keys = (a.keys() | b.keys()) - {"seconds", "log_bytes", "config"}
        return [part for key in keys for part in differing(a.get(key), b.get(key), f"{name}.{key}")]
    return [] if a == b else [name]


def unlike(one: Path, other: Path) -> list[str]:
    """What differs between the ends of two runs: weights and reported numbers."""
    states = [torch.load(path / STATE, map_location="cpu", weights_only=True) for path in (one, other)]
    lines = [[json.loads(line) for line in (path / STATS).read_text().splitlines()] for path in (one, other)]
    plain = [
        [{k: v for k, v in line.items() if not k.startswith(("Timing", "Resources"))} for line in of] for of in lines
    ]
    return differing(*states) + ([] if plain[0] == plain[1] else [STATS])


def one_round(
    run: HarmedRun, deadline: float, bag: list[str], tallies: dict[str, Tally], say: Callable[[str], None]
) -> None:
    """Cause faults in random order until the run ends or the time is over."""
    while time.perf_counter() < deadline and not (run.run_dir / FINISHED).exists():
        if not bag:
            bag.extend(run.rng.sample(list(FAULTS), len(FAULTS)))
        name = bag.pop()
        before = positions(run)
        found = FAULTS[name].harm(run) if before[0] >= 0 or name in ("kill", "term") else None
        if found is None:
            continue
        wrong = verdict(FAULTS[name], found) + lost(before, run, name.startswith("state"))
        tally = tallies[name]
        tally.times, tally.failed = tally.times + 1, tally.failed + ["\n  ".join(wrong)] * bool(wrong)
        tally.slowest = max(tally.slowest, found.seconds)
        say(
            f"{name}: at {max(positions(run)) / 1000:.2f} kimg, {found.seconds:.1f} s"
            + "".join(f"\n  {w}" for w in wrong)
        )


def table(tallies: dict[str, Tally]) -> str:
    rows = [f"{'fault':<18}{'times':>6}{'failed':>8}{'slowest end, s':>16}"]
    rows += [f"{name:<18}{t.times:>6}{len(t.failed):>8}{t.slowest:>16.1f}" for name, t in tallies.items()]
    return "\n".join(rows)


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--minutes", type=float, default=30.0, help="Duration of the test.")
@click.option("--seed", type=int, default=0, help="Seed of the random faults.")
@click.option("--kimg", type=float, default=0.5, help="Length of each run.")
@click.option("--fresh", type=float, default=0.3, help="Share of processes that are not forked but started.")
def main(minutes: float, seed: int, kimg: float, fresh: float) -> None:
    """Cause random faults in small runs, and check that they end as an undisturbed run does."""
    if sys.platform == "win32":
        raise UserError("the soak test sends signals that Windows does not have; run it on Linux or macOS")
    tallies = {name: Tally() for name in (*FAULTS, "end")}
    with tempfile.TemporaryDirectory() as where:
        data = Path(where, "digits.zip")
        os.environ[CACHE_VARIABLE] = str(Path(where, "cache"))
        make_archive(data)
        peace = new_run(Path(where, "peace"), data, kimg, seed, fresh)
        begun = time.perf_counter()
        calm = to_the_end(peace)
        if calm.code:
            raise UserError(f"the undisturbed run failed: {calm.err}")
        click.echo(f"An undisturbed run of {kimg:g} kimg took {time.perf_counter() - begun:.0f} s")
        deadline, number, bag = begun + 60 * minutes, 0, list[str]()
        while time.perf_counter() < deadline:
            with small_disk(Path(where, str(number))):
                run = new_run(Path(where, str(number)), data, kimg, seed + number, fresh)
                one_round(run, deadline, bag, tallies, click.echo)
                last = to_the_end(run)
                wrong = verdict(Fault(kill, codes=(0,)), last) or unlike(peace.run_dir, run.run_dir)
                end = tallies["end"]
                end.times, end.failed = end.times + 1, end.failed + wrong
                click.echo(f"end of round {number}: {wrong or 'the same to the last bit'}")
            number += 1
    click.echo(table(tallies))
    for name, tally in tallies.items():
        for line in tally.failed:
            click.echo(f"{name}: {line}")
    sys.exit(any(tally.failed for tally in tallies.values()))


if __name__ == "__main__":
    main()
