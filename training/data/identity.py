"""The checksums of the files in a folder, which tell whether two folders hold the same.

Contents decide, so that a copy, or a folder that was touched, is the same as before. Reading a large folder takes
minutes, so its checksums are kept in the cache, and taken from there as long as every file looks as it did when it was
read: the same inode, size and times. The time of the last change of an inode cannot be set by programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from torch_utils.device import cpu_threads
from torch_utils.files import cache_folder, write_atomically
from torch_utils.progress import Progress
from torch_utils.untrusted import read_json

KIND = "checksums"  # of cache folder
QUICK = 1000  # files, which are read without a progress bar


def checksums_in(folder: Path, names: Sequence[str], read: Callable[[str], bytes]) -> list[tuple[str, int, int]]:
    """(name, CRC-32, size) of each file. read: the content of one. Raises OSError if one cannot be read."""
    looks = [(folder / name).stat() for name in names]
    seen = [(look.st_dev, look.st_ino, look.st_size, look.st_mtime_ns, look.st_ctime_ns) for look in looks]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), list(names), seen]).encode()).hexdigest()
    kept = cache_folder(KIND) / f"{key[:32]}.json"
    sums = _kept(kept, len(names))
    if sums is None:
        sums = []
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(min(8, cpu_threads())))
            bar = stack.enter_context(Progress("Reading", len(names))) if len(names) > QUICK else None
            for crc in pool.map(lambda name: zlib.crc32(read(name)), names):
                sums.append(crc)
                if bar:
                    bar.advance()
        with contextlib.suppress(OSError):  # next time they are read again
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, json.dumps(sums).encode())
    return [(name, crc, look.st_size) for name, crc, look in zip(names, sums, looks, strict=True)]


def _kept(path: Path, count: int) -> list[int] | None:
    """The checksums in a file of the cache; None if there are none, or not as many."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    fits = isinstance(found, list) and len(found) == count and all(type(crc) is int for crc in found)
    return found if fits else None
