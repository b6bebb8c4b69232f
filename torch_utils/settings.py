"""Settings as frozen dataclasses: declared once, with flag and help, and converted to and from plain JSON data."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch_utils.errors import UserError
from torch_utils.text import printable, shortened

T = TypeVar("T")

SMALLEST, LARGEST = 1e-12, 1e12  # of any number other than 0, which a file may hold or somebody may type


@dataclass(frozen=True)
class Flag:
    """How a setting appears on the command line.

    spelling: every name of the flag ("-n/--dry-run")
    group: heading in --help
    parse: reads the typed text if the type of the setting is not enough
    bare: value of the flag if none follows it; None if one must follow
    typed: the default as a user would type it, if that differs from its Python form
    kind: type of a setting that only some configurations have
    positive: forbids 0, which numbers may be otherwise
    least, most: of a number other than 0. Beyond them it could only take time and memory
    is_list: whether a setting that is a text lists several things, parts at commas; those of sequences always do
    resume: whether the setting may change when a run is resumed: never, always ("free"), or while it lies ahead
    """

    spelling: str
    help: str
    group: str = "Advanced"
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None
    bare: str | None = None
    typed: str = ""
    kind: Any = None
    positive: bool = False
    least: float = SMALLEST
    most: float = LARGEST
    is_list: bool = False
    resume: Literal["fixed", "free", "ahead"] = "fixed"

    @property
    def spellings(self) -> list[str]:
        return self.spelling.split("/")

    def fault(self, number: float) -> str:
        """What is wrong with a number, and the cure; "" if it can be."""
        if isinstance(number, float) and not math.isfinite(number):
            return f"cannot be: give a number, not {number}"
        if number < 0 or (self.positive and number == 0):
            return f"cannot be: give a number, {'more than 0' if self.positive else '0 or more'}"
        if number > self.most:
            return f"is too large; give at most {self.most:,.0f}"
        if 0 < number < self.least:
            return f"is too small; give at least {self.least:g}{'' if self.positive else ', or 0'}"
        return ""


def setting(default: Any, flag: Flag) -> Any:
    """Returns a dataclass field that `flag` sets on the command line."""
    return dataclasses.field(default=default, metadata={"flag": flag})


@dataclass(frozen=True)
class Declared:
    """One setting in a tree of dataclasses: its dotted name, flag, type and default."""

    name: str
    flag: Flag
    kind: Any
    default: Any


def declared(config: type, borrowed: Mapping[str, Flag]) -> Iterator[Declared]:
    """Yield every setting with a flag in the dataclass `config` and those nested in it, in order of declaration.

    borrowed: flags, by dotted name, for settings that declare none; those with a `kind` of their own come last,
    whether `config` has such a setting or not
    """
    yield from _declared(config, borrowed, "")
    yield from (Declared(name, flag, flag.kind, None) for name, flag in borrowed.items() if flag.kind is not None)


def _declared(config: type, borrowed: Mapping[str, Flag], prefix: str) -> Iterator[Declared]:
    hints = get_type_hints(config)
    for f in dataclasses.fields(config):
        name = prefix + f.name
        flag = f.metadata.get("flag", borrowed.get(name))
        if flag and flag.kind is None:
            yield Declared(name, flag, hints[f.name], f.default)
        elif dataclasses.is_dataclass(hints[f.name]):
            yield from _declared(hints[f.name], borrowed, f"{name}.")


def to_plain(value: Any) -> Any:
    """Convert nested dataclasses to dicts, tuples to lists and keys to text, for JSON. `from_plain` reverses it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


Readers = Mapping[type, Callable[[Any, str], Any]]
"""Functions that read settings whose type the data name themselves, such as the config of a family of networks.

Each takes the data and the dotted name of the setting.
"""


def from_plain(kind: type[T], data: Any, name: str = "", readers: Readers | None = None) -> T:
    """Read the dataclass `kind` from data of `to_plain`. Missing keys get their defaults.

    Raises UserError, with the dotted name of the setting below `name`, for an unknown key, a value of another type, and
    a missing key without a default.
    """
    return _read(kind, data, name, {}, readers or {})


def _read(kind: Any, data: Any, name: str, bound: Mapping[Any, Any], readers: Readers) -> Any:
    """Read `data` as a value of type `kind`. bound: values of the type variables of the enclosing class."""
    kind = bound.get(kind, kind) if isinstance(kind, TypeVar) else kind
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin in readers:
        return readers[origin](data, name)
    if dataclasses.is_dataclass(origin):
        return _read_dataclass(origin, arguments, data, name, readers)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _read(next(a for a in arguments if a is not type(None)), data, name, bound, readers)
    if origin is tuple and isinstance(data, (list, tuple)):
        kinds = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(data):
            return tuple(_read(k, item, name, bound, readers) for k, item in zip(kinds, data, strict=True))
    elif origin in (dict, Mapping) and isinstance(data, Mapping):
        return {arguments[0](k): _read(arguments[1], item, f"{name}.{k}", bound, readers) for k, item in data.items()}
    elif _fits(origin, arguments, data):
        return data
    expected = " | ".join(map(repr, arguments)) if origin is Literal else getattr(origin, "__name__", str(origin))
    raise UserError(f"setting '{name}' must be of type {expected}, got {_quoted(data)}; correct it or start a new run")


def _fits(kind: Any, arguments: tuple[Any, ...], data: Any) -> bool:
    """Whether `data` is a plain value of `kind`. An int is also a float; a bool is neither."""
    if kind is Literal:
        return data in arguments
    if kind is float:
        return type(data) in (int, float)
    return type(data) is kind


def _read_dataclass(kind: Any, arguments: tuple[Any, ...], data: Any, name: str, readers: Readers) -> Any:
    if not isinstance(data, Mapping):
        raise UserError(f"setting '{name}' must be a group of settings, got {_quoted(data)}")
    hints = get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    prefix = f"{name}." if name else ""
    for key in data:
        if key not in fields:
            unknown = prefix + printable(shortened(str(key), 80))
            raise UserError(f"unknown setting '{unknown}'; it is misspelt, or another version wrote it")
    for f in dataclasses.fields(kind):
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in data:
            raise UserError(f"setting '{prefix}{f.name}' is missing")
    bound = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=bool(arguments)))
    return kind(**{key: _read(hints[key], item, prefix + key, bound, readers) for key, item in data.items()})


def _quoted(data: Any) -> str:
    """Data from a file for a message, shortened."""
    return shortened(reprlib.repr(data), 80)


def leaves(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a tree of dataclasses as (dotted name, value), in order of declaration."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        # A dataclass with a text form of its own, as a table has, is one setting and not a group.
        if dataclasses.is_dataclass(value) and type(value).__str__ is object.__str__:
            yield from leaves(value, f"{name}{f.name}.")
        else:
            yield name + f.name, value


def shown(value: object) -> str:
    """Format a setting for people: (4, 4) as 4x4, other tuples as a,b,c, an empty one as none, no value as -."""
    if isinstance(value, tuple):
        is_size = len(value) == 2 and all(type(side) is int for side in value)
        return ("x" if is_size else ",").join(map(str, value)) or "none"
    return "-" if value in (None, "") else str(value)


def differences(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """Returns (dotted name, value in a, value in b) of each setting that differs; None for one that is missing."""
    ours, theirs = dict(leaves(a)), dict(leaves(b))
    names = dict.fromkeys([*ours, *theirs])
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def replaced(config: T, changes: Mapping[str, Any]) -> T:
    """Returns a copy of `config` with settings changed by their dotted names: {"loss.r1_gamma": 5.0, "seed": 1}."""
    nested: dict[str, dict[str, Any]] = {}
    direct: dict[str, Any] = {}
    for name, value in changes.items():
        head, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(head, {})[rest] = value
        else:
            direct[head] = value
    direct |= {head: replaced(getattr(config, head), inner) for head, inner in nested.items()}
    return dataclasses.replace(config, **direct)  # type: ignore[type-var]
