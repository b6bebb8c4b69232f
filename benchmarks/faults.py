"""What can happen to a run of `train.py --resume auto`, each fault as a function that does it. Used by soak.py."""

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

PICTURES = 400
PATIENCE_S = 300  # for a process that should end by itself
TICKS = 4  # fewer than so many until the fault
BEGUN = ("Going on with", "Training in")


@dataclass
class Ground:
    """Where it happens. outdir: of the run   data: its archive   command: what is repeated after every fault

    fresh: share of the processes that load everything by themselves
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
    """A process of training after its end. seconds: from the signal to the end"""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def errors(self) -> list[str]:
        """What it said besides its progress."""
        return [line for line in self.err.splitlines() if not line.startswith("ops: ")]


@dataclass
class Fault:
    """harm: does it, before or while the run goes on, and returns how the process ended; None if there was no occasion
    wants: words of the one line in which it is told; "" if there is nothing to tell   code: which exit codes are right
    """

    harm: Callable[[Ground], Ended | None]
    wants: str = ""
    codes: tuple[int, ...] = (0, -signal.SIGKILL)


@contextlib.contextmanager
def training(ground: Ground, limit: int = 0) -> Iterator[tuple[Process, Path]]:
    """The command as a process, and the file with what it says. limit: bytes that a file may have, 0 for any."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        process = start(ground.command, out, out.with_name("err"), limit, ground.rng.random() < ground.fresh)
        try:
            yield process, out
        finally:
            process.kill()
            process.wait()


def until_begun(process: Process, out: Path, ticks: int = 0) -> None:
    """Wait until it trains, and then for some of its ticks; or until it has ended."""
    while process.poll() is None:
        said = out.read_text()
        if any(word in said for word in BEGUN) and said.count("\ntick ") >= ticks:
            return
        time.sleep(0.02)


def ended(process: Process, out: Path, patience: float = PATIENCE_S) -> Ended:
    """Wait for its end; one that does not come is ended, with the code of a SIGABRT."""
    begun = time.perf_counter()
    try:
        code = process.wait(patience)
    except TimeoutError:
        process.kill()
        process.wait()
        code = -signal.SIGABRT
    return Ended(code, out.read_text(), out.with_name("err").read_text(), time.perf_counter() - begun)


def signalled(ground: Ground, signum: int, beginning: bool = False, least: int = 0) -> Ended:
    """A signal at some moment: of the run, after `least` ticks, or of its beginning, while it loads what it needs."""
    with training(ground) as (process, out):
        if not beginning:
            until_begun(process, out, least + ground.rng.randrange(TICKS))
        with contextlib.suppress(TimeoutError):
            process.wait(ground.rng.uniform(0, 10 if beginning else 1))
        if process.poll() is None:
            process.send_signal(signum)
        return ended(process, out)


def then_killed(ground: Ground, least: int = 0) -> Ended:
    """Start it, so that it tells of what has been done to it, let it go on for `least` ticks and more, and kill it."""
    return signalled(ground, signal.SIGKILL, least=least)


def kill(ground: Ground) -> Ended:
    return signalled(ground, signal.SIGKILL, beginning=ground.rng.random() < 0.2)


def term(ground: Ground) -> Ended:
    return signalled(ground, signal.SIGTERM)


def term_early(ground: Ground) -> Ended:
    return signalled(ground, signal.SIGTERM, beginning=True)


def full_disk(ground: Ground) -> Ended | None:
    """The disk fills up while it trains."""
    disk = ground.outdir.parent
    if not disk.is_mount():
        return None
    filler = disk / "filler"
    with training(ground) as (process, out):
        until_begun(process, out, ground.rng.randrange(TICKS))
        time.sleep(ground.rng.uniform(0, 1))
        left = ground.rng.choice([0, 0, 8192, 100_000, 500_000])
        size = max(0, shutil.disk_usage(disk).free - left)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for _ in range(size // 4096):
                file.write(b"x" * 4096)
        found = ended(process, out)
    filler.unlink()
    return found


def small_files(ground: Ground) -> Ended:
    """No file may have more than so many bytes: the state fails in the middle."""
    size = (ground.run_dir / STATE).stat().st_size
    with training(ground, limit=int(size * ground.rng.uniform(0.4, 0.95))) as (process, out):
        return ended(process, out)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def state_cut(ground: Ground) -> Ended | None:
    if not (ground.run_dir / PREVIOUS).exists():
        return None
    cut(ground.run_dir / STATE, ground.rng)
    return then_killed(ground)


def state_spoilt(ground: Ground) -> Ended | None:
    """One bit of a tensor is another one."""
    path = ground.run_dir / STATE
    if not (ground.run_dir / PREVIOUS).exists():
        return None
    with zipfile.ZipFile(path) as archive:  # in its largest member; much of a small file is padding, which nobody reads
        member = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", data, member.header_offset + 26)
    begin = member.header_offset + 30 + name + extra
    data[ground.rng.randrange(begin, begin + member.file_size)] ^= 1 << ground.rng.randrange(8)
    path.write_bytes(data)
    return then_killed(ground)


def snapshot_cut(ground: Ground) -> Ended | None:
    """The one that belongs to the state."""
    path = ground.run_dir / f"network-snapshot-{nimg_of(ground.run_dir / STATE) // 1000:06d}.safetensors"
    if not path.exists():
        return None
    cut(path, ground.rng)
    return then_killed(ground)


def cache_spoilt(ground: Ground) -> Ended | None:
    """Every picture of every size."""
    for path in ground.cache:
        data = bytearray(path.read_bytes())
        for place in range(0, len(data), 16):
            data[place] ^= 255
        path.write_bytes(data)
    return then_killed(ground, least=1) if ground.cache else None  # pictures are looked at when they are needed


def cache_cut(ground: Ground) -> Ended | None:
    if not ground.cache:
        return None
    cut(ground.rng.choice(ground.cache), ground.rng)
    return then_killed(ground)


def archive_replaced(ground: Ground) -> Ended:
    kept = ground.data.with_suffix(".kept")
    ground.data.rename(kept)
    make_archive(ground.data, first=1)
    with training(ground) as (process, out):
        found = ended(process, out)
    kept.replace(ground.data)
    return found


def clock(ground: Ground) -> Ended:
    """All files are of another time: of years ago, or of years to come."""
    for path in (*ground.run_dir.rglob("*"), *ground.cache):
        when = time.time() + ground.rng.uniform(-3e8, 3e8)
        os.utime(path, (when, when))
    return then_killed(ground)


def second(ground: Ground) -> Ended:
    """The same command, while it is at work."""
    with training(ground) as (process, out):
        until_begun(process, out)
        with training(ground) as (other, other_out):
            found = ended(other, other_out)
        if process.poll() is not None:  # it came to its end, so that the other one was right not to be refused
            return Ended(2, "", f"Error: {FAULTS['second'].wants}")
    return found


def make_archive(path: Path, first: int = 0) -> None:
    """Some of the digits."""
    digits = Archive.open(EMBEDDED["mnist"])
    with ArchiveWriter(path) as writer:
        for i in range(first, first + PICTURES):
            writer.add(digits.read(i), int(digits.labels[i]) if digits.labels is not None else None)


def nimg_of(path: Path) -> int:
    """Where a state is; -1 for one that is not there."""
    return int(torch.load(path, map_location="cpu", weights_only=True)["nimg"]) if path.exists() else -1


FAULTS: dict[str, Fault] = {
    "kill": Fault(kill),
    "term": Fault(term, codes=(0, 143)),
    "term early": Fault(term_early, codes=(0, 143, -signal.SIGTERM)),
    "full disk": Fault(full_disk, "Error: ", (2,)),
    "small files": Fault(small_files, "Error: ", (2,)),
    "state cut": Fault(state_cut, "is no good"),
    "state spoilt": Fault(state_spoilt, "is no good"),
    "snapshot cut": Fault(snapshot_cut, "was missing or damaged"),
    "cache spoilt": Fault(cache_spoilt, "is damaged: making it anew"),
    "cache cut": Fault(cache_cut, "is damaged: making it anew"),
    "archive replaced": Fault(archive_replaced, "has changed since the run began", (2,)),
    "clock": Fault(clock),
    "second": Fault(second, "another training", (2,)),
}
