"""How much is taken in of a file from elsewhere before it is refused: sizes that no honest file has.

A few kilobytes can claim, or unpack to, more than any machine holds. STYLEGAN_LIMITS raises a limit for files that are
trusted: `STYLEGAN_LIMITS=download_gib=100,table_mib=1000`.
"""

from __future__ import annotations

import json
import lzma
import os
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch_utils.errors import UserError

VARIABLE = "STYLEGAN_LIMITS"


@dataclass(frozen=True)
class Limits:
    """picture_mib: one encoded picture   table_mib: one JSON or CSV file, unpacked   memory_gib: what is unpacked in
    memory (IDX, CIFAR)   unpacked_gib: what is unpacked on the disk (compressed tar files)   download_gib: one file
    from the web   million_weights: of one network   pickle_gib: a published network file
    """

    picture_mib: int = 512
    table_mib: int = 256
    memory_gib: int = 4
    unpacked_gib: int = 512
    download_gib: int = 32
    million_weights: int = 1000
    pickle_gib: int = 4


def limits() -> Limits:
    """Those in force. Raises UserError if the environment variable names another limit, or no whole number."""
    found = Limits()
    for part in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, value = (word.strip() for word in part.partition("="))
        known = [field.name for field in fields(Limits)]
        if name not in known or not value.isascii() or not value.isdigit() or not 0 < len(value) <= 9:
            raise UserError(f"{VARIABLE}: '{part[:60]}' is no limit; write it as in table_mib=1000, with a name of "
                            f"{', '.join(known)}")  # fmt: skip
        found = replace(found, **{name: int(value)})
    return found


def excess(what: str, size: int, name: str) -> str:
    """In words: `what` has `size` bytes (or weights), which is more than the limit `name`. "" if it is not."""
    words = {"mib": ("MiB", 1 << 20), "gib": ("GiB", 1 << 30), "weights": ("million weights", 1_000_000)}
    unit, factor = words[name.rpartition("_")[2]]
    most: int = getattr(limits(), name)
    if size <= most * factor:
        return ""
    needed = -(-size // factor)
    cure = f"{VARIABLE}={name}={needed}" if needed < 10**9 else f"{VARIABLE}"
    return f"{what} has {needed:,} {unit}, more than the {most:,} that are taken; if you trust it, set {cure}"


def read_plain(path: Path, name: str) -> bytes:
    """The content of a file of which a folder from elsewhere holds the name: a pipe or a device would never end.

    Raises OSError if it cannot be read, is no plain file, or is larger than the limit `name`.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no plain file")
    fault = excess("it", status.st_size, name)
    if fault:
        raise OSError(fault)
    return path.read_bytes()


# Members of zip files from elsewhere, of which neither sizes nor content need be what they say


# What zipfile is known to raise on damaged files. NotImplementedError, for unknown methods, is a RuntimeError.
ZIP_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, OverflowError, struct.error, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip


def read_member(archive: zipfile.ZipFile, name: str, limit: str) -> bytes:
    """The content of a member. Raises one of ZIP_ERRORS if it is damaged, or larger than the limit of that name."""
    size = archive.getinfo(name).file_size
    fault = excess("unpacked, it", size, limit)
    if fault:
        raise ValueError(fault)
    with archive.open(name) as file:
        # Not without a number: then all that the stream unpacks to would be made, even if the size is a lie.
        return file.read(size + 1)


# JSON from elsewhere: whatever is wrong with it is one kind of error


def parse_json(content: str | bytes) -> Any:
    """The value. Raises ValueError for what is none, or is nested too deeply to be read."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value in a file. Raises OSError, and ValueError for a file that is too large or holds something else."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    fault = excess("it", path.stat().st_size, "table_mib")
    if fault:
        raise ValueError(fault)
    return parse_json(path.read_bytes())
