"""Files that are there whole, or not at all, also after a power cut."""

from __future__ import annotations

import errno
import os
from pathlib import Path

NOT_FOR_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR}


def put_in_place(scratch: Path, path: Path) -> None:
    """Give a finished file its name, under which there may be another. Raises OSError if that cannot be done."""
    sync(scratch)  # so that a power cut cannot leave the new name on old or missing content
    os.replace(scratch, path)
    sync_folder(path.parent)


def sync(path: Path, forget: bool = False) -> None:
    """Wait until the content of a file is on the disk.

    forget: let the next reader see what the disk has, not what memory has, where the system can do that
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        if forget and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where folders can be waited for: not so on Windows."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(handle)
