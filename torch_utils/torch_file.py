"""Files of torch.save from elsewhere: a look at what they ask for, before torch.load does it.

`weights_only` keeps code from running. It does not keep a file from asking for a bytearray of ten gigabytes, from
unpacking to a thousand times its size, or from claiming storages that it does not hold.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

from torch_utils.zips import ZIP_ERRORS

MAX_STEPS = 5_000_000  # a state of a network with 1000 tensors has 50,000 instructions
LEGACY_PARTS = 5  # magic number, version, system, the objects, the names of the storages
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED = {
    "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    "torch.storage UntypedStorage", *(f"torch {name}Storage" for name in _STORAGES),
}  # fmt: skip
_REFUSED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}
# What torch.load is known to raise on files that make no sense.
_MALFORMED = (*ZIP_ERRORS, pickle.UnpicklingError, LookupError, TypeError, AttributeError, AssertionError, MemoryError)


def load_torch(path: Path) -> Any:
    """As `read_torch`, of a file. Raises OSError too, where it cannot be read."""
    with path.open("rb") as file:
        return read_torch(file, path.stat().st_size)


def read_torch(file: IO[bytes], size: int) -> Any:
    """Tensors, numbers, text and containers, on the CPU, of `size` bytes: no larger than those, or not much.

    Raises pickle.UnpicklingError for whatever torch.save has not made of these.
    """
    try:
        check(file, size)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except _MALFORMED as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise pickle.UnpicklingError(reason or type(error).__name__) from error


def check(file: IO[bytes], size: int) -> None:
    """Raises pickle.UnpicklingError, or another of _MALFORMED, for what only a hostile or damaged file holds."""
    if file.read(4) != b"PK\3\4":
        file.seek(0)
        for _ in range(LEGACY_PARTS):
            _check_program(file, size)
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise pickle.UnpicklingError("it is compressed, as torch.save never does")
        if sum(member.file_size for member in members) > size:
            raise pickle.UnpicklingError("it claims to hold more than its size")
        programs = [member for member in members if member.filename.endswith("data.pkl")]
        if len(programs) != 1:
            raise pickle.UnpicklingError("it is not of torch.save")
        _check_program(BytesIO(archive.read(programs[0])), None)


def _check_program(program: IO[bytes], largest: int | None) -> None:
    """One pickle. largest: bytes, or elements, that a storage can have; None where torch compares that itself."""
    for step, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if step >= MAX_STEPS:
            raise pickle.UnpicklingError("it has too many instructions")
        if opcode.name in _REFUSED or (opcode.name == "GLOBAL" and argument not in _ALLOWED):
            raise pickle.UnpicklingError(f"it asks for {ascii(argument or opcode.name)[:80]}, which is no tensor")
        # The first part is a magic number of 80 bits, which no storage can have either.
        if largest is not None and isinstance(argument, int) and largest < argument < 1 << 64:
            raise pickle.UnpicklingError("it claims to hold more than its size")
