"""Settings as frozen dataclasses: each declared once, with its flag and help, read and written as plain JSON data."""

from __future__ import annotations

import dataclasses
import reprlib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch_utils.errors import UserError
from torch_utils.text import printable, shortened

T = TypeVar("T")


@dataclass(frozen=True)
class Flag:
    """How a setting appears on the command line.

    `spelling` lists every name it answers to ("-n/--dry-run"). `parse` reads the typed text where the setting's type
    alone does not say how. `group` is the heading it stands under in --help. `alone` is what the flag says when no
    value follows it; where that is None, one must. `typed` is the default as it would be typed, where that
    differs from its Python form. `kind` is the type of a setting that only some configurations have.
    `positive` forbids 0, which numbers may be otherwise. `resume` says whether the setting may change when a run is
    resumed: never, always ("free"), or as long as it lies ahead.
    """

    spelling: str
    help: str
    group: str = "Advanced"
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None
    alone: str | None = None
    typed: str = ""
    kind: Any = None
    positive: bool = False
    resume: Literal["fixed", "free", "ahead"] = "fixed"

    @property
    def spellings(self) -> list[str]:
        return self.spelling.split("/")


def setting(default: Any, flag: Flag) -> Any:
    """A dataclass field that can be typed on the command line as `flag`."""
    return dataclasses.field(default=default, metadata={"flag": flag})


@dataclass(frozen=True)
class Declared:
    """A setting found in a tree of dataclasses: its dotted name, flag, type and default."""

    name: str
    flag: Flag
    kind: Any
    default: Any


def declared(config: type, borrowed: Mapping[str, Flag], prefix: str = "") -> Iterator[Declared]:
    """Every setting of the dataclass `config`, nested ones included, that has a flag, in order of declaration.

    `borrowed` supplies flags, by dotted name, for settings that declare none; those with a `kind` of their own come
    last, whether `config` has such a setting or not.
    """
    yield from _declared(config, borrowed, prefix)
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
    """Nested dataclasses as dicts, tuples as lists, keys as text: what JSON holds. Undone by `from_plain`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


Readers = Mapping[type, Callable[[Any, str], Any]]
"""How to read settings whose type the data themselves name, such as the config of one of several kinds of network: from
the data, and the dotted name that they have."""


def from_plain(kind: type[T], data: Any, name: str = "", readers: Readers | None = None) -> T:
    """The dataclass `kind` that `to_plain` wrote. Missing keys take their defaults.

    Raises UserError naming the setting (dotted, below `name`) for an unknown key or a value of the wrong type.
    """
    return _read(kind, data, name, {}, readers or {})


def _read(kind: Any, data: Any, name: str, bound: Mapping[Any, Any], readers: Readers) -> Any:
    """`data` as a value of the type `kind`; `bound` says what the type variables of the enclosing class stand for."""
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
    raise UserError(f"setting '{name}' should be of type {expected}, but is {_quoted(data)}; correct it or start "
                    "a new run")  # fmt: skip


def _fits(kind: Any, arguments: tuple[Any, ...], data: Any) -> bool:
    """Is `data` a plain value of `kind`? A whole number may stand for a float, but a bool for neither."""
    if kind is Literal:
        return data in arguments
    if kind is float:
        return type(data) in (int, float)
    return type(data) is kind


def _read_dataclass(kind: Any, arguments: tuple[Any, ...], data: Any, name: str, readers: Readers) -> Any:
    if not isinstance(data, Mapping):
        raise UserError(f"setting '{name}' should be a group of settings, but is {_quoted(data)}")
    hints = get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    prefix = f"{name}." if name else ""
    for key in data:
        if key not in fields:
            unknown = prefix + printable(shortened(str(key), 80))
            raise UserError(f"unknown setting '{unknown}'; it was written by another version, or is misspelt")
    bound = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=bool(arguments)))
    return kind(**{key: _read(hints[key], item, prefix + key, bound, readers) for key, item in data.items()})


def _quoted(data: Any) -> str:
    """Data from a file, as far as it helps."""
    return shortened(reprlib.repr(data), 80)


def leaves(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a tree of dataclasses as (dotted name, value), in order of declaration."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value) and not _is_value(value):
            yield from leaves(value, f"{name}{f.name}.")
        else:
            yield name + f.name, value


def _is_value(value: Any) -> bool:
    """A dataclass with its own text form (a table, say) is one setting, not a group of them."""
    return type(value).__str__ is not object.__str__


def shown(value: object) -> str:
    """A setting for people to read: 4x4 of numbers, a,b of names, "none" of no names, "-" where there is nothing."""
    if isinstance(value, tuple):
        return ("," if isinstance(value[0], str) else "x").join(map(str, value)) if value else "none"
    return "-" if value in (None, "") else str(value)


def differences(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """The settings in which two configurations differ: (dotted name, in a, in b), None for what one of them lacks."""
    ours, theirs = dict(leaves(a)), dict(leaves(b))
    names = dict.fromkeys([*ours, *theirs])
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def replaced(config: T, changes: Mapping[str, Any]) -> T:
    """A copy of `config` with the settings named by dotted keys changed: {"loss.r1_gamma": 5.0, "seed": 1}."""
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
