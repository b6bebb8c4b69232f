"""The directory of a run: its lock, its number, its configuration and its state.

One process at a time works in it: two would overwrite each other's state and logs.
"""

from __future__ import annotations

import json
import pickle
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from stylegan.networks.config import NetworkConfig
from stylegan.networks.registry import config_from_json
from torch_utils.checkpoint import damage, load_state
from torch_utils.errors import UserError
from torch_utils.files import put_in_place, write_atomically
from torch_utils.settings import from_plain, to_plain
from torch_utils.untrusted import read_json, read_plain
from training.config import RunConfig

# Stays in the directory, and means nothing by being there: to remove it would let a third process lock a new file of
# that name while a second one waits on the old.
LOCK = ".lock"


def locked(run_dir: Path) -> AbstractContextManager[None]:
    """Holds the operating system's lock on `run_dir`, which ends with the process, however that ends.

    Raises UserError at once if another process holds it, or if `run_dir` cannot be written to.
    """
    return _held(run_dir / LOCK, f"{run_dir} is in use by another training; let it end or stop it (Ctrl-C saves), then "
                 f"--resume {run_dir}")  # fmt: skip


def locked_name(outdir: Path, name: str) -> AbstractContextManager[None]:
    """The same for all runs in `outdir` of that name, so that of two with --resume auto only one chooses."""
    return _held(outdir / f".{name}{LOCK}", f"another training with --resume auto has {name} in {outdir}; let it end "
                 "or stop it (Ctrl-C saves), or tell this one apart by --desc")  # fmt: skip


@contextmanager
def _held(path: Path, taken: str) -> Iterator[None]:
    """taken: what to say if another process holds it"""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(taken) from None
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror or error}); make it writable") from None
    try:
        yield
    finally:
        lock.release()


OPTIONS = "training_options.json"
STATE = "training-state.pt"
PREVIOUS = "training-state.previous.pt"  # the one before, for when the newest turns out to be damaged
FINISHED = ".finished"  # how many kimg there were when the run had nothing left to do


def make_outdir(outdir: Path) -> None:
    """Raises UserError if nothing can be written there."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=outdir).close()
    except OSError as error:
        raise _unwritable(outdir, error) from None


def create_run_dir(outdir: Path, desc: str) -> Path:
    """Make and return `outdir/NNNNN-desc` with the next free number.

    Two runs that start at the same moment get two numbers: a number belongs to the run that creates the bare directory
    `NNNNN`, which is then renamed. Raises UserError if nothing can be written there.
    """
    safe = plain_name(desc)
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


def plain_name(desc: str) -> str:
    """A description as a part of a file's name."""
    return re.sub(r"[^\w.+-]+", "-", desc).strip("-")


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
    try:
        write_atomically(run_dir / OPTIONS, f"{json.dumps(to_plain(_as_stored(cfg)), indent=2)}\n".encode())
    except OSError as error:
        raise UserError(f"cannot write {run_dir / OPTIONS} ({error.strerror}); make room there") from None


def store_end(run_dir: Path, cfg: RunConfig) -> None:
    """Keep how a resumed run is to end, so that the next --resume knows it: its length, and how its learning rate
    falls; and where its data are, with their hash, which earlier versions computed from times. The others stay.

    Raises UserError as `read_options` and `write_options` do.
    """
    stored = read_options(run_dir)
    changed = replace(
        stored, total_kimg=cfg.total_kimg, hours=cfg.hours, time_limit=cfg.time_limit, growth=cfg.growth,
        data=replace(stored.data, path=cfg.data.path, content_hash=cfg.data.content_hash),
    )  # fmt: skip
    if changed != stored:
        write_options(run_dir, changed)


def images_done(run_dir: Path) -> int:
    """How far the state has got from which --resume goes on. Raises UserError if it cannot be read."""
    path = run_dir / (PREVIOUS if damage(run_dir / STATE) else STATE)
    try:
        return int(load_state(path)["nimg"])
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, pickle.PickleError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}); restore it, or start a new run") from None


def read_options(run_dir: Path) -> RunConfig:
    """The configuration of a run. Raises UserError if `run_dir` is not a run that can be resumed."""
    path = run_dir / OPTIONS
    if not run_dir.is_dir():
        raise UserError(f"--resume {run_dir}: there is no such folder; give that of a run, such as runs/00000-...")
    if not path.exists():
        raise UserError(f"--resume {run_dir}: no {OPTIONS} in it, so it is not a run; give the folder of one")
    if not has_state(run_dir):
        raise UserError(f"--resume {run_dir}: no {STATE} in it, the run ended before its first save; start it again")
    return parse_options(path)


def parse_options(path: Path) -> RunConfig:
    """The configuration in a file. Raises UserError if it cannot be read."""
    try:
        plain = read_json(path, "settings_mib")
        return _as_stored(from_plain(RunConfig, plain, readers={NetworkConfig: config_from_json}))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); restore it or start a new run") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or start a new run") from None


def _as_stored(cfg: RunConfig) -> RunConfig:
    """Without the folder of --cache: where to write is said by a command, never by a file."""
    return replace(cfg, data=replace(cfg.data, cache=""))


def has_state(run_dir: Path) -> bool:
    """Is there something to go on from?"""
    return (run_dir / STATE).exists() or (run_dir / PREVIOUS).exists()


def settle_state(run_dir: Path) -> str:
    """Make sure that `STATE` is whole: if it is not, let the one before take its place. Returns what to say of that.

    Raises UserError if neither is whole; then nothing is changed.
    """
    newest, previous = run_dir / STATE, run_dir / PREVIOUS
    trouble = damage(newest)
    if not trouble:
        _move_folder(previous)
        return ""
    other = damage(previous)
    if other:
        raise UserError(
            f"no state of {run_dir} is whole: {newest.name} ({trouble}), {previous.name} ({other}); restore one, or "
            f"start a new run with --init-from {run_dir}"
        )
    _move_folder(newest)
    try:
        put_in_place(previous, newest)
    except OSError as error:
        raise UserError(f"{previous} is whole, but cannot take the place of {newest} ({error.strerror or error}); "
                        f"move {newest} away") from None  # fmt: skip
    return f"{newest.name} is no good ({trouble}): going on from the state that was saved before it"


def step_back(run_dir: Path) -> None:
    """Let the state before take the place of `STATE`, if it is whole."""
    if not damage(run_dir / PREVIOUS):
        put_in_place(run_dir / PREVIOUS, run_dir / STATE)


def _move_folder(path: Path) -> None:
    """Rename a folder in the place of a state, since no file can replace it. Raises UserError if it stays."""
    if path.is_dir() and not path.is_symlink():
        try:
            path.rename(path.with_name(f"{path.name}.folder"))
        except OSError as error:
            raise UserError(f"{path} is a folder in the place of a file, and cannot be renamed "
                            f"({error.strerror or error}); move it away") from None  # fmt: skip


def mark_finished(run_dir: Path, kimg: float) -> None:
    """Note that nothing is left to do after `kimg`."""
    write_atomically(run_dir / FINISHED, f"{kimg!r}\n".encode())


def is_finished(run_dir: Path, kimg: float) -> bool:
    """Has the run gone to the end of `kimg`, with all that belongs to its end?"""
    try:
        return float(read_plain(run_dir / FINISHED, "settings_mib")) >= kimg
    except (OSError, ValueError):
        return False
