"""Faults for soak.py: what can happen to a run of `train.py --resume auto`, each as a function that causes it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.process import Process, start
from torch_utils.files import cache_folder
from training.data.archive import EMBEDDED, Archive, ArchiveWriter
from training.runs.run_dir import PREVIOUS, STATE

IMAGES = 400
PATIENCE_S = 300  # seconds to wait for a process that should end by itself
TICKS = 4  # a fault happens before this tick
BEGUN = ("Going on with", "Training in")


@dataclass
class HarmedRun:
    """The run that faults happen to. outdir: as of train.py   data: its archive   command: repeated after every fault

    fresh: share of the processes that are started from scratch instead of forked
    """

    outdir: Path
    data: Path
    command: list[str]
    rng: random.Random
    fresh: float

    @property
    def run_dir(self) -> Path:
        found = sorted(self.outdir.glob("0*-*"))
        return found[-1] if found else self.outdir

    @property
    def cache(self) -> list[Path]:
        return sorted(cache_folder("data").glob("*.u8"))


@dataclass
class Ended:
    """A training process that has ended. seconds: from the signal to the end"""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def errors(self) -> list[str]:
        """The lines of stderr that are not about the fused ops."""
        return [line for line in self.err.splitlines() if not line.startswith("ops: ")]


@dataclass
class Fault:
    """A fault and the reaction to it that is correct.

    harm: causes the fault before or during a run, and returns how the process ended; None if it was not possible
    wants: part of the one line that must report the fault, or ""   codes: the correct exit codes
    """

    harm: Callable[[HarmedRun], Ended | None]
    wants: str = ""
    codes: tuple[int, ...] = (0, -signal.SIGKILL)


@contextlib.contextmanager
def training(run: HarmedRun, limit: int = 0) -> Iterator[tuple[Process, Path]]:
    """The command as a process, and the file with its output. limit: maximum bytes of a file, 0 for no limit."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        process = start(run.command, out, out.with_name("err"), limit, run.rng.random() < run.fresh)
        try:
            yield process, out
        finally:
            process.kill()
            process.wait()


def until_begun(process: Process, out: Path, ticks: int = 0) -> None:
    """Wait until it trains, then for some ticks; or until it has ended."""
    while process.poll() is None:
        said = out.read_text()
        if any(word in said for word in BEGUN) and said.count("\ntick ") >= ticks:
            return
        time.sleep(0.02)


def ended(process: Process, out: Path, patience: float = PATIENCE_S) -> Ended:
    """Wait until a process ends; after `patience` seconds it is killed, and its exit code is that of SIGABRT."""
    begun = time.perf_counter()
    try:
        code = process.wait(patience)
    except TimeoutError:
        process.kill()
        process.wait()
        code = -signal.SIGABRT
    return Ended(code, out.read_text(), out.with_name("err").read_text(), time.perf_counter() - begun)


def signalled(run: HarmedRun, signum: int, beginning: bool = False, least: int = 0) -> Ended:
    """Send a signal at a random time: after `least` ticks, or at the beginning, while the process is still loading."""
    with training(run) as (process, out):
        if not beginning:
            until_begun(process, out, least + run.rng.randrange(TICKS))
        with contextlib.suppress(TimeoutError):
            process.wait(run.rng.uniform(0, 10 if beginning else 1))
        if process.poll() is None:
            process.send_signal(signum)
        return ended(process, out)


def then_killed(run: HarmedRun, least: int = 0) -> Ended:
    """Start the process, which must report the fault, wait for at least `least` ticks, and kill it."""
    return signalled(run, signal.SIGKILL, least=least)


def kill(run: HarmedRun) -> Ended:
    return signalled(run, signal.SIGKILL, beginning=run.rng.random() < 0.2)


def term(run: HarmedRun) -> Ended:
    return signalled(run, signal.SIGTERM)


def term_early(run: HarmedRun) -> Ended:
    return signalled(run, signal.SIGTERM, beginning=True)


def full_disk(run: HarmedRun) -> Ended | None:
    """The disk fills up while it trains."""
    disk = run.outdir.parent
    if not disk.is_mount():
        return None
    filler = disk / "filler"
    with training(run) as (process, out):
        until_begun(process, out, run.rng.randrange(TICKS))
        time.sleep(run.rng.uniform(0, 1))
        left = run.rng.choice([0, 0, 8192, 100_000, 500_000])
        size = max(0, shutil.disk_usage(disk).free - left)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for _ in range(size // 4096):
                file.write(b"x" * 4096)
        found = ended(process, out)
    filler.unlink()
    return found


def small_files(run: HarmedRun) -> Ended:
    """Limit the size of files, so that writing the state fails in the middle."""
    size = (run.run_dir / STATE).stat().st_size
    with training(run, limit=int(size * run.rng.uniform(0.4, 0.95))) as (process, out):
        return ended(process, out)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def state_cut(run: HarmedRun) -> Ended | None:
    if not (run.run_dir / PREVIOUS).exists():
        return None
    cut(run.run_dir / STATE, run.rng)
    return then_killed(run)


def state_corrupted(run: HarmedRun) -> Ended | None:
    """One bit of a tensor is flipped."""
    path = run.run_dir / STATE
    if not (run.run_dir / PREVIOUS).exists():
        return None
    with zipfile.ZipFile(path) as archive:  # in the largest member, because much of a small file is unused padding
        member = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", data, member.header_offset + 26)
    begin = member.header_offset + 30 + name + extra
    data[run.rng.randrange(begin, begin + member.file_size)] ^= 1 << run.rng.randrange(8)
    path.write_bytes(data)
    return then_killed(run)


def snapshot_cut(run: HarmedRun) -> Ended | None:
    """The snapshot that belongs to the state is cut off."""
    path = run.run_dir / f"network-snapshot-{nimg_of(run.run_dir / STATE) // 1000:06d}.safetensors"
    if not path.exists():
        return None
    cut(path, run.rng)
    return then_killed(run)


def cache_corrupted(run: HarmedRun) -> Ended | None:
    """Every cached image of every resolution is corrupted."""
    for path in run.cache:
        data = bytearray(path.read_bytes())
        for place in range(0, len(data), 16):
            data[place] ^= 255
        path.write_bytes(data)
    return then_killed(run, least=1) if run.cache else None  # images are checked when they are needed


def cache_cut(run: HarmedRun) -> Ended | None:
    if not run.cache:
        return None
    cut(run.rng.choice(run.cache), run.rng)
    return then_killed(run)


def archive_replaced(run: HarmedRun) -> Ended:
    kept = run.data.with_suffix(".kept")
    run.data.rename(kept)
    make_archive(run.data, first=1)
    with training(run) as (process, out):
        found = ended(process, out)
    kept.replace(run.data)
    return found


def clock(run: HarmedRun) -> Ended:
    """All files get random dates, years ago or in the future."""
    for path in (*run.run_dir.rglob("*"), *run.cache):
        when = time.time() + run.rng.uniform(-3e8, 3e8)
        os.utime(path, (when, when))
    return then_killed(run)


def second(run: HarmedRun) -> Ended:
    """The same command a second time, while the first is running."""
    with training(run) as (process, out):
        until_begun(process, out)
        with training(run) as (other, other_out):
            found = ended(other, other_out)
        if process.poll() is not None:  # it has ended, so the second process was right to run
            return Ended(2, "", f"Error: {FAULTS['second'].wants}")
    return found


def make_archive(path: Path, first: int = 0) -> None:
    """Write an archive with some of the digits."""
    digits = Archive.open(EMBEDDED["mnist"])
    with ArchiveWriter(path) as writer:
        for i in range(first, first + IMAGES):
            writer.add(digits.read(i), int(digits.labels[i]) if digits.labels is not None else None)


def nimg_of(path: Path) -> int:
    """The images that a state has seen; -1 if it does not exist."""
    return int(torch.load(path, map_location="cpu", weights_only=True)["nimg"]) if path.exists() else -1


FAULTS: dict[str, Fault] = {
    "kill": Fault(kill),
    "term": Fault(term, codes=(0, 143)),
    "term early": Fault(term_early, codes=(0, 143, -signal.SIGTERM)),
    "full disk": Fault(full_disk, "Error: ", (2,)),
    "small files": Fault(small_files, "Error: ", (2,)),
    "state cut": Fault(state_cut, "is no good"),
    "state corrupted": Fault(state_corrupted, "is no good"),
    "snapshot cut": Fault(snapshot_cut, "was missing or damaged"),
    "cache corrupted": Fault(cache_corrupted, "is damaged: rebuilding it"),
    "cache cut": Fault(cache_cut, "is damaged: rebuilding it"),
    "archive replaced": Fault(archive_replaced, "has changed since the run began", (2,)),
    "clock": Fault(clock),
    "second": Fault(second, "another training", (2,)),
}
