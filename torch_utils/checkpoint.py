"""Files of torch.save from elsewhere: a look at what they ask for, before torch.load does it.

`weights_only` keeps code from running. It does not keep a file from asking for a bytearray of ten gigabytes, from
unpacking to a thousand times its size, or from claiming storages that it does not hold.
"""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torch_utils.errors import UserError
from torch_utils.files import atomic_write, sync
from torch_utils.text import printable, shortened
from torch_utils.untrusted import ZIP_ERRORS, parse_json

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


# Files that hold tensors and plain data: opening one runs no code, and a killed writer never leaves half of one


MAX_HEADER = 16 << 20  # bytes; the names and origins of a million latents would need more


def save_state(path: Path, parts: Mapping[str, Any], previous: Path | None = None) -> None:
    """Tensors, numbers, text, lists and dicts, whole or not at all. Raises UserError when the disk is full.

    previous: a name for what is at `path` by then, once the new file has been read back and found whole
    """
    require_space(path.parent, _bytes(parts))
    with _written(path) as scratch:
        with scratch.open("wb") as file:
            torch.save(dict(parts), file)
        if previous:
            sync(scratch, forget=True)
            trouble = damage(scratch)
            if trouble:
                raise UserError(f"{path} was not written as it should be ({trouble}); the one before is kept, look at "
                                "the disk")  # fmt: skip
            if path.exists():
                os.replace(path, previous)


def damage(path: Path) -> str:
    """What is wrong with a file that `save_state` wrote, "" if nothing is: it holds a checksum of each of its parts."""
    try:
        with zipfile.ZipFile(path) as file:
            spoilt = file.testzip()
    except FileNotFoundError:
        return "it is missing"
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return "it is cut short, or something else"
    return f"the checksum of {spoilt.partition('/')[2]} is wrong" if spoilt else ""


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU. Raises OSError, and pickle.UnpicklingError for anything else."""
    state: Any = load_torch(path)
    if not isinstance(state, dict):
        raise pickle.UnpicklingError("it holds no state")
    return state


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """A safetensors file, JSON values in its header, whole or not at all. Raises UserError when the disk is full."""
    require_space(path.parent, _bytes(tensors))
    with _written(path) as scratch:
        # clone: safetensors refuses tensors that share memory or are not contiguous.
        plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        scratch.touch()
        mode = scratch.stat().st_mode  # safetensors makes files that only their owner may read
        save_file(plain, scratch, metadata={key: json.dumps(value) for key, value in header.items()})
        scratch.chmod(mode)


def load_tensors(path: Path, wanted: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a safetensors file. wanted: what to give instead, in words, for the message.

    Raises UserError if there is no such file, it is something else, or is cut short.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}" if not path.is_dir() else f"{path} is a folder, not a file")
    try:
        with path.open("rb") as plain:
            _check_header(plain.read(9), path, wanted)
        with safe_open(path, framework="pt") as file:
            header = {key: _plain(value) for key, value in (file.metadata() or {}).items()}
            # clone: what comes from the file lies in it, at any address, and products of matrices round by the address.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, header  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = printable(shortened((str(error).splitlines() or [""])[0], 200))
        raise UserError(f"{path} is not a whole safetensors file ({reason}); copy or download it again") from None


def _check_header(begin: bytes, path: Path, wanted: str) -> None:
    """Raises UserError unless the first 9 bytes promise a header in JSON, and not an endless one."""
    if begin[8:] not in (b"{", b""):
        raise UserError(f"{path} is not a safetensors file" + (f"; give {wanted}" if wanted else ""))
    length = int.from_bytes(begin[:8], "little")
    if length > MAX_HEADER:
        raise UserError(f"the header of {path} claims {length:,} bytes, and none has more than {MAX_HEADER:,}; copy or "
                        "download it again")  # fmt: skip


def _plain(text: str) -> Any:
    """A JSON value; what other software wrote may be plain text."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def require_space(folder: Path, needed: int) -> None:
    """Raises UserError unless `folder` has room for `needed` bytes and a little more."""
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05 + 2**20:
        raise UserError(
            f"the disk is full: {needed / 2**20:.0f} MiB are to be written to {folder} and {free / 2**20:.0f} MiB "
            "are free; make room, nothing that was saved before is lost"
        )


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """As `atomic_write`, but raises UserError if the disk fails, for example because it is full."""
    try:
        with atomic_write(path) as scratch:
            yield scratch
    except (OSError, RuntimeError, SafetensorError) as error:
        why = _disk_trouble(error)
        if not why:
            raise
        raise UserError(
            f"cannot write {path} ({why}); make room there, nothing that was saved before is lost"
        ) from error


def _disk_trouble(error: BaseException | None) -> str:
    """What the disk said; "" if it is not about a disk. torch and safetensors hide that behind errors of their own."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        if isinstance(error, SafetensorError) and "os error" in str(error):
            return str(error).rpartition("I/O error: ")[2]
        error = error.__context__
    return ""


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(item) for item in value)
    return 64
