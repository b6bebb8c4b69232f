"""Members of zip files from elsewhere, of which neither sizes nor content need be what they say."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib

from torch_utils.limits import excess

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
