"""Files that belong to one network: they store its fingerprint, so that another network refuses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError
from torch_utils.settings import from_plain, to_plain
from torch_utils.text import shortened

Header = TypeVar("Header")
Content = TypeVar("Content")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    format: its name in the header, with a version   suffix: end of file names   what: the content in messages, plural
    """

    format: str
    suffix: str
    what: str


def save_bound(path: Path, kind: Kind, tensors: Mapping[str, Tensor], header: Any, snapshot: Snapshot) -> None:
    """Write tensors and the dataclass `header` for a network, atomically.

    Raises UserError if the disk is full, or if the name does not end in the suffix of its kind.
    """
    if not path.name.endswith(kind.suffix):
        raise UserError(f"a file of {kind.what} must end in {kind.suffix}, got {path}")
    about = {"format": kind.format, "model": snapshot.fingerprint, "data": snapshot.data}
    save_tensors(path, tensors, about | to_plain(header))


def load_bound(
    path: Path, kind: Kind, header: type[Header], build: Callable[[dict[str, Tensor], Header], Content],
    snapshot: Snapshot | None, force: bool = False, fits: Callable[[Content, Snapshot], None] | None = None,
) -> Content:  # fmt: skip
    """Open a file of `save_bound`. Runs no code from it.

    build: (tensors, header) -> content; may raise UserError, or what wrong data lead to
    snapshot: the network to use it with, or the one that this network was tuned from; None accepts any network's file
    force: accept the file of another network
    fits: raises UserError if the content cannot be used with the network, not even by force

    Raises UserError for any other file, and for the file of another network.
    """
    tensors, plain = load_tensors(path, f"one that ends in {kind.suffix}")
    if plain.get("format") != kind.format:
        raise UserError(f"{path} holds no {kind.what}, which are in files that end in {kind.suffix}")
    names = [field.name for field in fields(header)]  # type: ignore[arg-type]
    try:
        content = build(tensors, from_plain(header, {name: plain[name] for name in names if name in plain}))
    except (UserError, KeyError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the {kind.what} in {path} cannot be read: {shortened(reason, 200)}") from error
    if snapshot is not None and fits is not None:
        fits(content, snapshot)
    if snapshot is None or force:
        return content
    own = snapshot.fingerprint
    if plain.get("model") not in (own, snapshot.tuned_from or own):
        raise UserError(f"{path} belongs to another network: it is for {plain.get('model')} ({plain.get('data')}), but "
                        f"this one is {own} ({snapshot.data}); use it all the same with --force")  # fmt: skip
    return content


def numbered(name: str, tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    """One name for each tensor of a sequence: name.0, name.1. `in_turn` reverses it."""
    return {f"{name}.{layer}": tensor for layer, tensor in enumerate(tensors)}


def in_turn(name: str, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The sequence that `numbered` wrote. Raises KeyError if a tensor of it is missing."""
    count = sum(key.startswith(f"{name}.") for key in tensors)
    return tuple(tensors[f"{name}.{layer}"] for layer in range(count))
