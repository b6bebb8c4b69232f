"""Tensors and plain data in files: torch files, checked before they are loaded, and safetensors files.

Opening such a file runs no code, and a process that is killed while it writes leaves the old file intact.

`torch.load(weights_only=True)` prevents code from running. It does not prevent a file from requesting a bytearray of
ten gigabytes, from unpacking to a thousand times its size, or from declaring storages that it does not contain.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import pickletools
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torch_utils.device import require_memory
from torch_utils.errors import UserError, in_words
from torch_utils.files import atomic_write, sync
from torch_utils.text import printable, shortened
from torch_utils.untrusted import BEGINNING, SAFETENSORS, ZIP_ERRORS, parse_json, recognised, regular

MAX_STEPS = 5_000_000  # pickle instructions; the state of a network with 1000 tensors has 50,000
LEGACY_PARTS = 5  # pickles in the old format: magic number, version, system, objects, names of the storages
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED = {
    "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    "torch.storage UntypedStorage", *(f"torch {name}Storage" for name in _STORAGES),
}  # fmt: skip
_REFUSED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}
_ENCRYPTED, _FOLDER = 0x2041, 0x10  # flags, and an attribute, of zip members
# What torch.load is known to raise for malformed files.
_MALFORMED = (*ZIP_ERRORS, pickle.UnpicklingError, LookupError, TypeError, AttributeError, AssertionError, MemoryError)


# Reading torch files from elsewhere


def read_torch(file: IO[bytes], size: int) -> Any:
    """Load tensors, numbers, text and containers onto the CPU from a torch file of `size` bytes.

    Takes little more memory than the file. Raises pickle.UnpicklingError for any other file.
    """
    try:
        check(file, size)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except _MALFORMED as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise pickle.UnpicklingError(reason or type(error).__name__) from error


def check(file: IO[bytes], size: int) -> None:
    """Raises pickle.UnpicklingError, or another of _MALFORMED, for content that only hostile or damaged files have."""
    if file.read(4) != b"PK\3\4":
        file.seek(0)
        for _ in range(LEGACY_PARTS):
            _check_program(file, size)
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise pickle.UnpicklingError("it is compressed, but torch.save never compresses")
        if not all(map(_is_plain, members)):
            raise pickle.UnpicklingError("its table of contents is damaged")
        if sum(member.file_size for member in members) > size:
            raise pickle.UnpicklingError("it declares more data than its size")
        programs = [member for member in members if member.filename.endswith("data.pkl")]
        if len(programs) != 1:
            raise pickle.UnpicklingError("it was not written by torch.save")
        _check_program(BytesIO(archive.read(programs[0])), None)


def _is_plain(member: zipfile.ZipInfo) -> bool:
    """Whether a member is as torch.save writes it. Of a folder, torch reads nothing, and leaves memory as it was."""
    folder = member.external_attr & _FOLDER or member.filename.endswith("/")
    return not (folder or member.flag_bits & _ENCRYPTED) and member.compress_size == member.file_size


def _check_program(program: IO[bytes], largest: int | None) -> None:
    """Check the next pickle in `program`.

    largest: upper limit for the size of a storage, in bytes or elements; None if torch compares sizes itself.
    """
    for step, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if step >= MAX_STEPS:
            raise pickle.UnpicklingError("it has too many instructions")
        if opcode.name in _REFUSED or (opcode.name == "GLOBAL" and argument not in _ALLOWED):
            asked = ascii(argument or opcode.name)[:80]
            raise pickle.UnpicklingError(f"it asks for {asked}, which tensors do not need")
        # The limit of 64 bits lets the magic number of the first pickle pass, which has 80; no storage has that size.
        if largest is not None and isinstance(argument, int) and largest < argument < 1 << 64:
            raise pickle.UnpicklingError("it declares more data than its size")


# Our own files


MAX_HEADER = 16 << 20  # bytes; more than enough for anything but the names of a million latents
SEAL = b"\0stylegan-sha256:"  # what the end of a state begins with: then follows the SHA-256 of all bytes before
SEALED = "sealed"  # a part of each state that was written with a seal, so that one without it has lost it
_SEAL_BYTES = len(SEAL) + 32
CHECKSUM = "stylegan_checksum"  # key of the checksum in the header of a safetensors file
_CHANGED = "its checksum is wrong: some of its bytes have changed"


class _Hashed:
    """A file to write to, and the SHA-256 of what was meant to be written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def save_state(path: Path, parts: Mapping[str, Any], previous: Path | None = None) -> None:
    """Write tensors, numbers, text, lists and dicts with `atomic_write`. Raises UserError if the disk is full.

    After the torch file comes a seal, the checksum of every byte: those of zip files leave out the structure, where
    one changed bit can make a tensor of memory that nothing was read into. Other readers of torch files ignore it.

    previous: new name for the existing file at `path`, which gets it once the new file has been read back and is intact
    """
    require_space(path.parent, _bytes(parts))
    with _written(path) as scratch:
        with scratch.open("wb") as file:
            hashed = _Hashed(file)
            torch.save({**parts, SEALED: True}, cast("IO[bytes]", hashed))
            file.write(SEAL + hashed.sha256.digest())
        if previous:
            sync(scratch, forget=True)
            if trouble := damage(scratch):
                raise UserError(f"{path} was not written correctly ({trouble}), the previous one is kept; "
                                "check the disk")  # fmt: skip
            if path.exists():
                os.replace(path, previous)


def damage(path: Path) -> str:
    """What is wrong with a file of `save_state`; "" if it is intact, by its own checksum of every byte.

    Files of earlier versions have none. They are intact if their parts have the checksums of the zip, and load.
    """
    try:
        with open(path, "rb", opener=regular) as file:
            require_memory(os.fstat(file.fileno()).st_size, "it")
            sealed = _sealed_bytes(file)
            if sealed is None:
                _check_parts(file)
    except FileNotFoundError:
        return "it is missing"
    except (pickle.UnpicklingError, UserError) as error:
        return printable(str(error))
    except OSError as error:
        return error.strerror or str(error)
    if sealed is None:
        return _unloadable(path)
    return "" if sealed else _CHANGED


def _unloadable(path: Path) -> str:
    try:
        load_state(path)
    except (OSError, pickle.UnpicklingError) as error:
        return printable(str(error))
    return ""


def _sealed_bytes(file: IO[bytes]) -> bool | None:
    """Whether the bytes before the seal are those that were sealed; None if there is no seal. Moves to the start."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _SEAL_BYTES))
    seal = file.read(_SEAL_BYTES)
    file.seek(0)
    if not seal.startswith(SEAL):
        return None
    found, left = hashlib.sha256(), size - _SEAL_BYTES
    while left and (block := file.read(min(left, 1 << 20))):
        found.update(block)
        left -= len(block)
    file.seek(0)
    return left == 0 and found.digest() == seal[len(SEAL) :]


def _check_parts(file: IO[bytes]) -> None:
    """Raises pickle.UnpicklingError unless the file is a zip whose members have their checksums."""
    try:
        check(file, os.fstat(file.fileno()).st_size)
        with zipfile.ZipFile(file) as archive:
            spoilt = archive.testzip()
    except _MALFORMED as error:
        raise pickle.UnpicklingError("it is truncated, or not a file of this kind") from error
    if spoilt:
        raise pickle.UnpicklingError(f"the checksum of {spoilt.partition('/')[2]} is wrong")


def load_state(path: Path) -> dict[str, Any]:
    """Load a file of `save_state` onto the CPU. Raises OSError, and pickle.UnpicklingError for other files."""
    with open(path, "rb", opener=regular) as file:
        size = os.fstat(file.fileno()).st_size
        require_memory(size, str(path))
        sealed = _sealed_bytes(file)
        if sealed is False:
            raise pickle.UnpicklingError(_CHANGED)
        state: Any = read_torch(file, size)
    if not isinstance(state, dict):
        raise pickle.UnpicklingError("it does not contain a training state")
    if state.get(SEALED) and not sealed:
        raise pickle.UnpicklingError("its end with the checksum is missing")
    return {name: part for name, part in state.items() if name != SEALED}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file with JSON values in its header, atomically. Raises UserError if the disk is full.

    The header also holds a checksum of all tensors and values, which `load_tensors` verifies.
    """
    require_space(path.parent, _bytes(tensors))
    with _written(path) as scratch:
        # clone: safetensors refuses tensors that share memory or are not contiguous.
        plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        scratch.touch()
        mode = scratch.stat().st_mode  # safetensors makes files that only their owner may read
        texts = {key: json.dumps(value) for key, value in header.items()}
        save_file(plain, scratch, metadata={**texts, CHECKSUM: _checksum(plain, texts)})
        scratch.chmod(mode)


def load_tensors(path: Path, wanted: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load the tensors and the header of a safetensors file.

    wanted: what the user should give instead, for the message. Raises UserError if the file is missing, cannot be read,
    is of another kind, truncated, or not what its checksum says. Files of other software have no checksum, and neither
    have those of earlier versions.
    """
    try:
        if not path.exists():
            raise UserError(f"there is no file {path}")
        if not path.is_file():
            raise UserError(f"{path} is a folder, not a file" if path.is_dir() else f"{path} is not a regular file")
        with open(path, "rb", opener=regular) as plain:
            require_memory(os.fstat(plain.fileno()).st_size, str(path))
            _check_header(plain.read(BEGINNING), path, wanted)
        with safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            # clone: tensors in the file have arbitrary addresses, and matrix products round differently by address.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except OSError as error:
        raise UserError(f"cannot read {path}: {in_words(error)}") from error
    except (SafetensorError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = printable(shortened((str(error).splitlines() or [""])[0], 200))
        raise UserError(f"{path} is not a complete safetensors file ({reason}); copy or download it again") from None
    stored = texts.pop(CHECKSUM, None)
    if stored is not None and stored != _checksum(tensors, texts):
        raise UserError(f"{path} has changed since it was written: its checksum is wrong; copy or download it again")
    return tensors, {key: _plain(value) for key, value in texts.items()}


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Of contiguous tensors on the CPU, with their names, types and shapes, and of texts.

    The bytes of each tensor enter by their CRC-32, which takes a quarter of the time of a SHA-256.
    """
    parts: list[list[Any]] = [
        [name, str(tensor.dtype), list(tensor.shape), zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)]
        for name, tensor in sorted(tensors.items())
    ]
    return hashlib.sha256(json.dumps([parts, sorted(texts.items())]).encode()).hexdigest()


def _check_header(begin: bytes, path: Path, wanted: str) -> None:
    """Raises UserError unless the first bytes announce a JSON header of reasonable length."""
    what, cure = recognised(begin)
    if what != SAFETENSORS and (what or begin[8:9]):
        if cure:
            raise UserError(f"{path} is {what}; {cure}")
        kind = f"{what}, and not a safetensors file" if what else "not a safetensors file"
        raise UserError(f"{path} is {kind}; " + (f"give {wanted}" if wanted else "check the path"))
    length = int.from_bytes(begin[:8], "little")
    if length > MAX_HEADER:
        raise UserError(f"the header of {path} declares {length:,} bytes, but the limit is {MAX_HEADER:,}; copy or "
                        "download it again")  # fmt: skip


def _plain(text: str) -> Any:
    """Read a JSON value; headers of other software may hold plain text."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def require_space(folder: Path, needed: int) -> None:
    """Raises UserError unless the disk of `folder` has room for `needed` bytes and a little more."""
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05 + 2**20:
        raise UserError(
            f"the disk is full: {folder} needs {needed / 2**20:.0f} MiB, but only {free / 2**20:.0f} MiB are free; "
            "make room, everything saved before is intact"
        )


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Use `atomic_write`, but raise UserError if the disk fails, for example because it is full."""
    try:
        with atomic_write(path) as scratch:
            yield scratch
    except (OSError, RuntimeError, SafetensorError) as error:
        why = _disk_trouble(error)
        if not why:
            raise
        raise UserError(f"cannot write {path} ({why}); make room there, everything saved before is intact") from error


def _disk_trouble(error: BaseException | None) -> str:
    """The message of the disk; "" for other errors. torch and safetensors wrap it in errors of their own."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        if isinstance(error, SafetensorError) and "os error" in str(error):
            return str(error).rpartition("I/O error: ")[2]
        error = error.__context__
    return ""


def _bytes(value: Any) -> int:
    """Approximate size of a value in a file, in bytes."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(item) for item in value)
    return 64
