"""Files from elsewhere: size limits, and readers of zip members, JSON and tables that raise known errors.

A few kilobytes can declare, or unpack to, more data than any machine has memory for, so sizes beyond those of ordinary
files are refused. STYLEGAN_LIMITS raises limits for trusted files: `STYLEGAN_LIMITS=download_gib=100,table_mib=1000`.
"""

from __future__ import annotations

import csv
import io
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
    """Upper limits for files from elsewhere.

    picture_mib: one encoded image
    decoding_gib: the images that are decoded at the same time; a larger one is decoded alone
    table_mib: one JSON or CSV file, unpacked
    settings_mib: the settings of a run
    memory_gib: data unpacked in memory (IDX, CIFAR)
    unpacked_gib: data unpacked on the disk (compressed tar files and TFRecords)
    download_gib: one file of a public data set, from the web
    weights_gib: one file of a feature network, from the web
    million_weights: weights of one network
    pickle_gib: a published network file, and any network from the web
    """

    picture_mib: int = 512
    decoding_gib: int = 4
    table_mib: int = 256
    settings_mib: int = 1
    memory_gib: int = 4
    unpacked_gib: int = 512
    download_gib: int = 32
    weights_gib: int = 2
    million_weights: int = 1000
    pickle_gib: int = 4


def limits() -> Limits:
    """The limits with the changes of STYLEGAN_LIMITS. Raises UserError for an unknown name or an invalid number."""
    found = Limits()
    for part in filter(None, os.environ.get(VARIABLE, "").split(",")):
        name, _, value = (word.strip() for word in part.partition("="))
        known = [field.name for field in fields(Limits)]
        if name not in known or not value.isascii() or not value.isdigit() or not 0 < len(value) <= 9:
            raise UserError(f"Invalid limit '{part[:60]}' in {VARIABLE}: expected for example table_mib=1000, with a "
                            f"name among {', '.join(known)}")  # fmt: skip
        found = replace(found, **{name: int(value)})
    return found


def excess(what: str, size: int, name: str) -> str:
    """Message that `what` has `size` bytes (or weights), more than the limit called `name`; "" if it has not."""
    words = {"mib": ("MiB", 1 << 20), "gib": ("GiB", 1 << 30), "weights": ("million weights", 1_000_000)}
    unit, factor = words[name.rpartition("_")[2]]
    most: int = getattr(limits(), name)
    if size <= most * factor:
        return ""
    needed = -(-size // factor)
    cure = f"{VARIABLE}={name}={needed}" if needed < 10**9 else f"{VARIABLE}"
    return f"{what} has {needed:,} {unit}, but the limit is {most:,}; if you trust the source, set {cure}"


def regular(path: str | Path, flags: int) -> int:
    """An `opener` for `open`. Raises OSError for what is not a regular file: a pipe or a device may never end."""
    # Without O_NONBLOCK, a pipe would wait for its other end before we see that it is one.
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("it is not a regular file")
    return handle


def regular_here(path: str | Path, flags: int) -> int:
    """An `opener` for files to write to in a folder from elsewhere. Raises OSError for links as well as `regular` does.

    Through a link, writing could change any file of the user's.
    """
    if Path(path).is_symlink():
        raise OSError(f"{Path(path).name} is a link, and this writes only into the folder itself")
    return regular(path, flags | getattr(os, "O_NOFOLLOW", 0))


def read_plain(path: Path, name: str) -> bytes:
    """Read a file in a folder from elsewhere, which could also contain pipes and devices.

    Raises OSError if it cannot be read, is not a regular file, or is larger than the limit called `name`.
    """
    with open(path, "rb", opener=regular) as file:
        size = os.fstat(file.fileno()).st_size
        fault = excess("it", size, name)
        if fault:
            raise OSError(fault)
        content = file.read(size + 1)  # with a number of bytes, because files in /proc are endless and have size 0
    if len(content) > size:
        raise OSError("it is longer than its size")
    return content


# What a file is, by its first bytes: names may have any suffix, another spelling of it, or none


SAFETENSORS, PICKLE, ZIP = "a safetensors file", "a pickle file", "a zip file"
HDF5, IMAGE, _UNPACK = "an HDF5 file", "an image", "unpack it first"
_BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"PK\3\4": (ZIP, ""), b"\x89HDF": (HDF5, ""), b"\x93NUMPY": ("a NumPy array", ""),
    **{b"\x80" + bytes([protocol]): (PICKLE, "") for protocol in range(2, 6)},
    b"\x89PNG": (IMAGE, ""), b"\xff\xd8\xff": (IMAGE, ""), b"GIF8": (IMAGE, ""), b"RIFF": (IMAGE, ""),
    b"\x1f\x8b": ("compressed with gzip", _UNPACK), b"BZh": ("compressed with bzip2", _UNPACK),
    b"\xfd7zXZ": ("compressed with xz", _UNPACK), b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"Rar!": ("a rar archive", _UNPACK), b"%PDF": ("a PDF document", ""), b"GGUF": ("a language model", ""),
    b"version https://git-lfs": ("a pointer of Git LFS, without the file itself", "fetch it with `git lfs pull`"),
}  # fmt: skip
BEGINNING = 64  # bytes


def recognised(begin: bytes) -> tuple[str, str]:
    """What a file is, and perhaps what to do, by its first `BEGINNING` bytes; two empty texts if it is unknown."""
    if not begin:
        return "empty", "copy or download it again"
    if begin[8:9] == b"{":  # after the length of the header
        return SAFETENSORS, ""
    if begin.lstrip().startswith(b"<"):
        return "a web page, saved under that name", "download the file itself"
    return next((found for start, found in _BEGINNINGS.items() if begin.startswith(start)), ("", ""))


# Members of zip files from elsewhere, whose declared sizes and checksums may be wrong


# What zipfile is known to raise for damaged files. NotImplementedError, for unknown methods, is a RuntimeError.
ZIP_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, OverflowError, struct.error, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip


def read_member(archive: zipfile.ZipFile, name: str, limit: str) -> bytes:
    """Read a member of a zip file. Raises one of ZIP_ERRORS if it is damaged, or larger than `limit` allows."""
    size = archive.getinfo(name).file_size
    fault = excess("unpacked, it", size, limit)
    if fault:
        raise ValueError(fault)
    with archive.open(name) as file:
        # With a number of bytes: without, the whole stream would be unpacked even if the declared size is wrong.
        return file.read(size + 1)


# JSON from elsewhere, whose errors are all of one kind


def parse_json(content: str | bytes) -> Any:
    """Read a JSON value. Raises ValueError if it is malformed or nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, limit: str = "table_mib") -> Any:
    """Read a JSON file. Raises OSError as `read_plain` does, and ValueError if it is malformed."""
    return parse_json(read_plain(path, limit))


# Tables from elsewhere


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The first row of a table, and the other rows, without empty ones; cells without space around them.

    The separator is the comma, semicolon or tab that the first row has most of, or else white space. CelebA's lists
    begin with the number of their rows, and their headings lack the first one: that is "file" here.

    Raises OSError, and ValueError if the table is too large, not UTF-8, malformed, or has a single row.
    """
    try:
        text = read_plain(path, "table_mib").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8; save it as UTF-8") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    try:
        if separator in first:
            cells = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            rows = [[cell.strip() for cell in row] for row in cells if any(map(str.strip, row))]
        else:
            rows = [line.split() for line in text.splitlines() if line.strip()]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(rows) > 2 and len(rows[0]) == 1 and rows[0][0].isdigit():
        headings = rows[1] if len(rows[1]) == len(rows[2]) else ["file", *rows[1]]
        rows = [headings, *rows[2:]]
    if len(rows) < 2:
        raise ValueError("it is empty; expected a heading, and rows of file names and values")
    return rows[0], rows[1:]
