"""Files that belong to one network: they carry its fingerprint, and are not used with another one by mistake."""

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
    """format: what the header says, with a version   suffix: how names end   what: they hold, in a word (plural)"""

    format: str
    suffix: str
    what: str


def numbered(name: str, tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    """Tensors of each layer under names of their own: name.0, name.1. Undone by `in_turn`."""
    return {f"{name}.{layer}": tensor for layer, tensor in enumerate(tensors)}


def in_turn(name: str, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Those that `numbered` named, in their order. Raises KeyError if one is missing."""
    count = sum(key.startswith(f"{name}.") for key in tensors)
    return tuple(tensors[f"{name}.{layer}"] for layer in range(count))


def save_bound(path: Path, kind: Kind, tensors: Mapping[str, Tensor], header: Any, snapshot: Snapshot) -> None:
    """Write tensors and the dataclass `header` for the network, whole or not at all.

    Raises UserError when the disk is full, or the name does not end as it must.
    """
    if not path.name.endswith(kind.suffix):
        raise UserError(f"{path} is no name for {kind.what}: it must end in {kind.suffix}")
    about = {"format": kind.format, "model": snapshot.fingerprint, "data": snapshot.data}
    save_tensors(path, tensors, about | to_plain(header))


def load_bound(
    path: Path, kind: Kind, header: type[Header], build: Callable[[dict[str, Tensor], Header], Content],
    snapshot: Snapshot | None, force: bool = False, fits: Callable[[Content, Snapshot], None] | None = None,
) -> Content:  # fmt: skip
    """Open what `save_bound` wrote: `build` makes the content of tensors and header. Runs no code from the file.

    Raises UserError if it is something else, if `build` raises UserError or what wrong data lead to, and
    unless `force` if it is of another network than `snapshot`, and than that which `snapshot` was tuned from.
    snapshot: None to look at any network's. fits: raises UserError for what no `force` can make fit the network.
    """
    try:
        tensors, plain = load_tensors(path, f"one that ends in {kind.suffix}")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if plain.get("format") != kind.format:
        raise UserError(f"{path} holds no {kind.what}; they are in files that end in {kind.suffix}")
    try:
        about = {field.name: plain[field.name] for field in fields(header) if field.name in plain}  # type: ignore[arg-type]
        content = build(tensors, from_plain(header, about))
    except (UserError, KeyError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the {kind.what} in {path} cannot be read: {shortened(reason, 200)}") from error
    if snapshot is not None and fits is not None:
        fits(content, snapshot)
    if snapshot is None or force:
        return content
    mine = snapshot.fingerprint
    if plain.get("model") not in (mine, snapshot.tuned_from or mine):
        raise UserError(f"{path} belongs to another network: it is for {plain.get('model')} ({plain.get('data')}), "
                        f"this one is {mine} ({snapshot.data}); --force uses it all the same")  # fmt: skip
    return content
