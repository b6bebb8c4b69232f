"""One process at a time in the directory of a run: two would overwrite each other's state and logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from torch_utils.errors import UserError

# Stays in the directory, and means nothing by being there: to remove it would let a third process lock a new file of
# that name while a second one waits on the old.
LOCK = ".lock"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the operating system's lock on `run_dir`, which ends with the process, however that ends.

    Raises UserError at once if another process holds it, or if `run_dir` cannot be written to.
    """
    with _held(
        run_dir / LOCK,
        f"{run_dir} is in use by another training; let it end or stop it (Ctrl-C saves), then --resume {run_dir}",
    ):
        yield


@contextmanager
def locked_name(outdir: Path, name: str) -> Iterator[None]:
    """The same for all runs in `outdir` of that name, so that of two with --resume auto only one chooses."""
    with _held(
        outdir / f".{name}{LOCK}",
        f"another training with --resume auto has {name} in {outdir}; let it end or stop it (Ctrl-C saves), or tell "
        "this one apart by --desc",
    ):
        yield


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
