"""Reading a pickle as data, without calling anything that it names.

A pickle is a program for a small stack machine, and two of its instructions, REDUCE and BUILD, call whatever the file
names. This is a stack machine without calls: it knows the instructions that make containers and numbers, and for the
few names in the published network files it does the equivalent by hand. It stops at any other name.

Python's own Unpickler with a `find_class` of ours would be shorter and would not call anything else either. But it has
no limits: 15 bytes that name memo 2^26 take a gigabyte, and a dict of 20,000 integers with the same hash takes many
seconds, and four times as long for twice as many. Only a machine that knows which values are keys can refuse them.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stylegan.checkpoints.foreign import ADVICE, old_torch_content, pickle_content
from torch_utils.errors import UserError, in_words
from torch_utils.untrusted import BEGINNING, PICKLE, excess, recognised

MAX_STEPS = 2_000_000  # a published file has about ten thousand instructions
MAX_AXES = 32


class _BrokenError(Exception):
    """The program in the file is invalid."""


@dataclass(eq=False)
class Record:
    """An object in the file: the name of its class and its state, as plain data."""

    class_name: str
    state: Any = None


@dataclass(eq=False)
class Array:
    """An array in the file. `data` is read-only, and None until the file sets it."""

    data: np.ndarray | None = None


@dataclass(frozen=True)
class _StorageType:
    """The type of a tensor's elements: a letter of "fiub" with the number of bytes."""

    code: str


@dataclass(eq=False)
class _DType:
    """The type of an array's elements: a letter of "fiub" with the number of bytes, and the byte order."""

    code: str
    order: str = "<"


_Name = Enum("_Name", "RECONSTRUCT SCALAR NDARRAY DTYPE ENCODE MAPPING NETWORK SET OBJECT TENSOR PARAMETER STORAGE")
_ALLOWED: dict[tuple[str, str], _Name | _StorageType] = {
    ("numpy.core.multiarray", "_reconstruct"): _Name.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _Name.RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _Name.SCALAR,
    ("numpy._core.multiarray", "scalar"): _Name.SCALAR,
    ("numpy", "ndarray"): _Name.NDARRAY,
    ("numpy", "dtype"): _Name.DTYPE,
    ("_codecs", "encode"): _Name.ENCODE,
    ("collections", "OrderedDict"): _Name.MAPPING,
    ("dnnlib.util", "EasyDict"): _Name.MAPPING,
    ("dnnlib.tflib.network", "Network"): _Name.NETWORK,
    ("tfutil", "Network"): _Name.NETWORK,
    ("builtins", "set"): _Name.SET,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Name.OBJECT,
    ("torch._utils", "_rebuild_tensor_v2"): _Name.TENSOR,
    ("torch._utils", "_rebuild_parameter"): _Name.PARAMETER,
    ("torch.storage", "_load_from_bytes"): _Name.STORAGE,
    **{("torch", f"{name}Storage"): _StorageType(code) for name, code in (
        ("Float", "f4"), ("Double", "f8"), ("Half", "f2"), ("Long", "i8"), ("Int", "i4"), ("Short", "i2"),
        ("Char", "i1"), ("Byte", "u1"), ("Bool", "b1"),
    )},
}  # fmt: skip

# Instructions whose decoded argument is the value. No network file used protocols 0 and 1, which are text.
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(path: Path) -> Any:
    """The content of a pickle file as containers, numbers, text, `Array` and `Record`.

    Raises UserError if the file is missing, damaged or too large, or names anything that network files do not need.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file; check the path")
        fault = excess(str(path), path.stat().st_size, "pickle_gib")
        if fault:
            raise UserError(fault)
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {in_words(error)}") from error
    what, cure = recognised(data[:BEGINNING])
    if what not in (PICKLE, ""):
        raise UserError(f"{path} is {what}; {cure or ADVICE}")
    if old := old_torch_content(data):
        raise UserError(f"{path} is {old}; {ADVICE}")
    try:
        return parse_pickle(data)
    except UserError as err:
        what = pickle_content(data)
        raise UserError(f"{path} is {what}; {ADVICE}" if what else f"{path}: {err}") from err


def parse_pickle(data: bytes) -> Any:
    """The same as `read_pickle`, from bytes."""
    try:
        return _Machine(len(data)).content(BytesIO(data))
    except (_BrokenError, ValueError, LookupError) as err:
        raise UserError("it is not a complete network file; download it again") from err


class _Machine:
    """The stack, the marks that divide it, and the memo. An invalid program raises _BrokenError or LookupError."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.to_encode = size
        self.steps = MAX_STEPS
        self.actions: dict[str, Callable[[], None]] = {
            "DUP": lambda: self.push(self.stack[-1]),
            "MEMOIZE": lambda: self.remember(len(self.memo)),
            "MARK": self.mark,
            "EMPTY_LIST": lambda: self.push([]),
            "EMPTY_SET": lambda: self.push([]),
            "ADDITEMS": lambda: self.extend(self.from_mark()),
            "EMPTY_DICT": lambda: self.push({}),
            "TUPLE": lambda: self.push(tuple(self.from_mark())),
            "APPEND": lambda: self.extend([self.stack.pop()]),
            "APPENDS": lambda: self.extend(self.from_mark()),
            "SETITEM": lambda: self.update(self.pop_many(2)),
            "SETITEMS": lambda: self.update(self.from_mark()),
            "STACK_GLOBAL": lambda: self.push(_lookup(*self.pop_many(2))),
            "REDUCE": self.reduce,
            "NEWOBJ": lambda: self.push(_equivalent(*self.pop_many(2))),
            "BUILD": self.build,
        }

    def content(self, program: BinaryIO) -> Any:
        """What a pickle makes; leaves the file behind it."""
        for opcode, argument, _ in pickletools.genops(program):
            self.steps -= 1
            if self.steps < 0:
                raise _BrokenError("too many instructions")
            if opcode.name != "STOP":
                self.run(opcode.name, argument)
        return self.stack.pop()

    def run(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.push(argument)
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _TUPLES:
            self.push(tuple(self.pop_many(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.remember(argument)
        elif name in ("BINGET", "LONG_BINGET"):
            self.push(self.memo[argument])
        elif name == "GLOBAL":
            self.push(_lookup(*argument.split(" ", 1)))
        elif name in self.actions:
            self.actions[name]()
        elif name not in ("PROTO", "FRAME"):
            raise UserError(f"files of StyleGAN and ProGAN do not contain its instruction {name}; nothing was run")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def from_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def pop_many(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise _BrokenError("stack underflow")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _BrokenError("append to something other than a list")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise _BrokenError("item of something other than a dict")
        keys, values = items[::2], items[1::2]
        if len(keys) != len(values) or not all(map(_is_key, keys)):
            raise _BrokenError("not keys and values")
        self.stack[-1].update(zip(keys, values, strict=True))

    def reduce(self) -> None:
        name, args = self.pop_many(2)
        if name is _Name.ENCODE and isinstance(args, tuple):
            self.spend(args)
        self.push(self.storage(args) if name is _Name.STORAGE else _equivalent(name, args))

    def storage(self, args: Any) -> np.ndarray:
        """The numbers of a tensor [count], from a file within the file: five pickles, then the numbers."""
        match args:
            case (bytes(raw),):
                file = BytesIO(raw)
            case _:
                raise _BrokenError("not the numbers of a tensor")
        parts = []
        for _ in range(5):
            inner = _StorageMachine(0)
            inner.steps = self.steps
            parts.append(inner.content(file))
            self.steps = inner.steps
        match parts:
            case [_, _, {"little_endian": True}, ("storage", _StorageType() as kind, _, _, int(count), None), [_]]:
                start = file.tell() + 8  # after the count once more
                return _array((count,), _DType(kind.code), memoryview(raw)[start:], "C")
        raise _BrokenError("a tensor of another kind")

    def spend(self, values: tuple[Any, ...]) -> None:
        """Account for copies of text. The whole file may be copied once, but not the same megabyte a million times."""
        self.to_encode -= sum(len(value) for value in values if isinstance(value, str))
        if self.to_encode < 0:
            raise _BrokenError("it copies more than it contains")

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(state, tuple):
            self.spend(state)
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, _DType) and isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            target.order = state[1]
        elif isinstance(target, Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, raw = state
            target.data = _array(shape, dtype, raw, "F" if fortran else "C")
        elif not isinstance(target, dict) or state:  # a dict of a class of its own may come with an empty state
            raise _BrokenError("state for something without one")


class _StorageMachine(_Machine):
    """Where a tensor is stored is a persistent id: a tuple, which is kept as it is."""

    def run(self, name: str, argument: Any) -> None:
        if name == "BINPERSID":
            return
        super().run(name, argument)


def _is_key(key: Any) -> bool:
    """Whether a dict may have this key. Of large integers and tuples a file could choose many with the same hash."""
    return isinstance(key, (str, bytes, float)) or (isinstance(key, int) and -(1 << 31) <= key < 1 << 31)


def _lookup(module: Any, name: Any) -> _Name | _StorageType:
    if not isinstance(module, str) or not isinstance(name, str):
        raise _BrokenError("a name that is not text")
    if (module, name) not in _ALLOWED:
        called = ascii(f"{module}.{name}")[1:-1][:80]  # ascii, so that a name cannot control the terminal
        raise UserError(f"it asks to call {called}, which files of StyleGAN and ProGAN do not; nothing was run")
    return _ALLOWED[module, name]


def _equivalent(name: Any, args: Any) -> Any:
    """The result of calling an allowed name with these arguments."""
    match name, args:
        case _Name.NETWORK, ():
            return Record("Network")
        case _Name.MAPPING, ():
            return {}
        case _Name.SET, (list() as items,):
            return items
        case _Name.OBJECT, ({"class_name": str(class_name), "state": state},):
            return Record(class_name, state)
        case _Name.TENSOR, (np.ndarray() as numbers, start, shape, strides, *_):
            return _tensor(numbers, start, shape, strides)
        case _Name.PARAMETER, (Array() as value, *_):
            return value
        case _Name.RECONSTRUCT, (_Name.NDARRAY, _, _):
            return Array()
        case _Name.DTYPE, (str(code), *_) if re.fullmatch("f[248]|[iu][1248]|b1", code):
            return _DType(code)
        case _Name.SCALAR, (_DType() as dtype, raw):
            return _array((), dtype, raw, "C")[()]
        case _Name.ENCODE, (str(text), "latin1"):
            return text.encode("latin1")  # the form of bytes in protocols before 3
    raise _BrokenError(f"{name} with arguments that network files do not use")


def _tensor(numbers: np.ndarray, start: Any, shape: Any, strides: Any) -> Array:
    """A part of a storage, which it shares. Raises _BrokenError if it would reach beyond it, or repeat numbers."""
    sizes = (start, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
    if not all(isinstance(n, int) and 0 <= n < 1 << 31 for n in sizes) or not len(shape) == len(strides) <= MAX_AXES:
        raise _BrokenError("not a tensor")
    last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) > len(numbers) or (math.prod(shape) and last >= len(numbers)):
        raise _BrokenError("a tensor larger than its numbers")
    steps = [step * numbers.itemsize for step in strides]
    return Array(np.lib.stride_tricks.as_strided(numbers[start:], shape, steps, writeable=False))


def _array(shape: Any, dtype: Any, raw: Any, order: Any) -> np.ndarray:
    """An array that shares the bytes of the file. A wrong shape costs nothing, because nothing is allocated."""
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(dtype, _DType) or not isinstance(raw, (bytes, memoryview)):
        raise _BrokenError("not numbers")
    sizes = shape if isinstance(shape, tuple) and len(shape) <= MAX_AXES else (None,)
    if not all(isinstance(n, int) and 0 <= n < 1 << 31 for n in sizes):
        raise _BrokenError("not a shape")
    if math.prod(shape) * int(dtype.code[1:]) != len(raw):
        raise _BrokenError("size and shape disagree")
    return np.frombuffer(raw, dtype.order + dtype.code).reshape(shape, order=order)
