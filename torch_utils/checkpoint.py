"""Files that hold tensors and plain data: opening one runs no code, and a killed writer never leaves half of one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torch_utils.durable import put_in_place, sync
from torch_utils.errors import UserError
from torch_utils.plain_json import parse_json
from torch_utils.torch_file import load_torch
from torch_utils.words import printable, shortened

MAX_HEADER = 16 << 20  # bytes; the names and origins of a million latents would need more


def save_state(path: Path, parts: Mapping[str, Any], previous: Path | None = None) -> None:
    """Tensors, numbers, text, lists and dicts, whole or not at all. Raises UserError when the disk is full.

    previous: a name for what is at `path` by then, once the new file has been read back and found whole
    """
    require_space(path.parent, _bytes(parts))
    with _writing(path) as scratch:
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
        _move(scratch, path)


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
    with _writing(path) as scratch:
        # clone: safetensors refuses tensors that share memory or are not contiguous.
        plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        scratch.touch()
        mode = scratch.stat().st_mode  # safetensors makes files that only their owner may read
        save_file(plain, scratch, metadata={key: json.dumps(value) for key, value in header.items()})
        scratch.chmod(mode)
        _move(scratch, path)


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
def _writing(path: Path) -> Iterator[Path]:
    """A file to write to, that is not left behind. Raises UserError where writing it fails, on a full disk for one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
    except (OSError, RuntimeError, SafetensorError) as error:
        why = _disk_trouble(error)
        if not why:
            raise
        raise UserError(
            f"cannot write {path} ({why}); make room there, nothing that was saved before is lost"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


def _disk_trouble(error: BaseException | None) -> str:
    """What the disk said; "" if it is not about a disk. torch and safetensors hide that behind errors of their own."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        if isinstance(error, SafetensorError) and "os error" in str(error):
            return str(error).rpartition("I/O error: ")[2]
        error = error.__context__
    return ""


def _move(scratch: Path, path: Path) -> None:
    put_in_place(scratch, path)


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(item) for item in value)
    return 64
