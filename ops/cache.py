"""The folders for compiled libraries, the lock under which one process builds, and what killed builds have left.

A folder contains, for each library: KEY/ with the library, KEY.lock and KEY.owner (the process that is building),
KEY.building-* (the scratch folder of a build that is running or was killed) and KEY.log (the output of a compiler that
failed).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ops import BuildError

SCRATCH = ".building-"
PATIENCE = 10.0  # seconds between two messages of a process that waits


# The folders


def folders() -> list[Path]:
    """The folders for compiled libraries, in order of preference: in the home folder, then a temporary one.

    The second is for machines with a read-only home. If STYLEGAN_OPS_CACHE is set, it is the only folder.
    """
    chosen = os.environ.get("STYLEGAN_OPS_CACHE")
    if chosen:
        return [Path(chosen)]
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    temporary = Path(tempfile.gettempdir()) / f"stylegan-ops-{user}"
    # For a user without a home, expanduser leaves the "~", and the path is not absolute.
    return [folder for folder in (home / "stylegan" / "ops", temporary) if folder.is_absolute() and trusted(folder)]


def trusted(folder: Path) -> bool:
    """Whether no other user can put a library there for us to load: in /tmp, the folder must be our own."""
    if not hasattr(os, "getuid"):
        return True
    try:
        parent, found = folder.parent.stat(), folder.lstat()
    except OSError:
        return True  # it does not exist yet
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return ours or not parent.st_mode & 0o002


def writable(candidates: list[Path]) -> Path:
    """The first folder that can be written to, created if it is missing. Raises BuildError if there is none."""
    reasons = []
    for folder in candidates:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        if trusted(folder):
            return folder
        reasons.append(f"{folder}: other users can write there")
    raise BuildError(f"nowhere to keep the compiled kernels ({'; '.join(reasons)}); set STYLEGAN_OPS_CACHE to a folder")


# The lock


@contextmanager
def locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock of the operating system, which releases it when the process ends.

    While another process holds it, `say` is called with the name of that process and how long we have waited. Raises
    BuildError if the file system has no locks.
    """
    lock, begun = FileLock(path), time.monotonic()
    said = begun - PATIENCE
    while True:
        try:
            lock.acquire(timeout=1.0, poll_interval=0.1)
            break
        except Timeout:
            now = time.monotonic()
            if now - said >= PATIENCE:
                said = now
                say(f"ops: waiting for {_explained(path)}, for {now - begun:.0f} s")
        except (OSError, NotImplementedError) as error:  # the latter if the file system has no locks
            raise BuildError(f"cannot lock {path} ({error}); set STYLEGAN_OPS_CACHE to another folder") from error
    name = path.with_suffix(".owner")
    try:
        try:
            name.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        except OSError as error:
            raise BuildError(f"cannot write to {path.parent}: {error.strerror}; free some space there") from error
        yield
    finally:
        name.unlink(missing_ok=True)
        lock.release()


def _explained(lock: Path) -> str:
    who = owner(lock)
    if who.gone:
        return f"{who.name}, which is gone but has left a child that holds {lock} (end it, or delete that file)"
    return f"{who.name}, which is compiling the kernels"


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock. gone: it has ended, but one of its child processes still holds the lock."""

    name: str
    gone: bool = False


def owner(lock: Path) -> Owner:
    """Read the owner from the file next to the lock."""
    try:
        name = lock.with_suffix(".owner").read_text()
    except OSError:
        return Owner("another process")
    match = re.fullmatch(r"process (\d+) on (.*)", name)
    return Owner(name, match is not None and match[2] == socket.gethostname() and not _lives(int(match[1])))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it belongs to another user
    return True


def is_held(lock: Path) -> bool:
    """Whether a process is building under this lock now."""
    if not lock.exists():
        return False
    probe = FileLock(lock)
    try:
        probe.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        return True
    probe.release()
    return False


# What killed and failed builds have left


@dataclass(frozen=True)
class Leftover:
    """A file or folder in a cache folder that no process needs. harms: it prevents the use of the kernels."""

    what: str
    path: Path
    harms: bool = False


def leftovers(folder: Path) -> list[Leftover]:
    """Find what killed builds, failed builds and full disks have left in a cache folder."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        scratch = SCRATCH in path.name
        lock = path.with_name(path.name.split(SCRATCH)[0] + ".lock") if scratch else path.with_suffix(".lock")
        if scratch and not is_held(lock):
            found.append(Leftover("scratch folder of a killed build", path))
        elif path.suffix == ".owner" and not is_held(lock):
            found.append(Leftover("owner file of a killed build", path))
        elif path.suffix == ".lock" and is_held(path) and owner(path).gone:
            found.append(Leftover("lock held by child processes of a killed build", path, harms=True))
        elif path.suffix == ".log":
            found.append(Leftover("log of a failed build", path))
        elif path.is_dir() and not scratch:
            libraries = list(path.glob("*.so"))
            if not libraries:
                found.append(Leftover("folder without a library", path))
            elif not all(map(is_whole, libraries)):
                found.append(Leftover("damaged library", path, harms=True))
    return found


def is_whole(library: Path) -> bool:
    """Whether a library has its full length, according to its ELF header, without loading it."""
    with library.open("rb") as file:
        header = file.read(64)
    if not sys.platform.startswith("linux"):
        return len(header) == 64
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return False
    sections, entry, count = struct.unpack_from("<Q", header, 40)[0], *struct.unpack_from("<HH", header, 58)
    return bool(sections + entry * count <= library.stat().st_size)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents. Raises OSError if that fails."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
