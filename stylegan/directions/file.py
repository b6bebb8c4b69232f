"""Directions in a file: whatever method found them, every tool that moves latents reads this one format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.bound_file import Kind, in_turn, load_bound, numbered, save_bound
from stylegan.snapshot import Snapshot
from stylegan.start import DIRECTIONS
from torch_utils.errors import UserError

KIND = Kind("stylegan-directions-1", DIRECTIONS, "directions")
WEAK = 0.7  # held-out accuracy below which a direction is marked as weak; guessing has 0.5


@dataclass(frozen=True)
class Directions:
    """K directions in which latents of one network can be moved, each of unit length.

    vectors: in w, [K,1,w_dim], or another one in each layer, [K,L,w_dim]   names: one each
    layers: those that each one moves, unless told otherwise   method: how they were found, in words
    scales: how far strength 1 goes, [K]: one standard deviation of the w of random pictures along it
    accuracies: on pictures held out, balanced, so that guessing has 0.5; nan where there is no telling, [K]
    shares: the part of what the method looks for that each one accounts for (of the variance of w, of a layer's output,
    or of the squared change of styles); nan where the method knows none, [K]
    styles: where style channels are edited (StyleSpace), as unit vectors: [K,2C] for each layer; else empty
    """

    vectors: Tensor
    names: tuple[str, ...]
    layers: tuple[tuple[int, ...], ...]
    scales: Tensor
    method: str
    accuracies: Tensor
    shares: Tensor
    styles: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, part: slice) -> Directions:
        """Some of them."""
        return replace(
            self, vectors=self.vectors[part], names=self.names[part], layers=self.layers[part],
            scales=self.scales[part], accuracies=self.accuracies[part], shares=self.shares[part],
            styles=tuple(s[part] for s in self.styles),
        )  # fmt: skip

    def named(self, name: str | int) -> Directions:
        """The one of this name, or of this number from 0. Raises UserError if there is none."""
        if isinstance(name, str) and name in self.names:
            index = self.names.index(name)
        elif str(name).isdecimal() and int(name) < len(self):
            index = int(name)
        else:
            known = ", ".join(self.names[:20]) + (", ..." if len(self) > 20 else "")
            raise UserError(f"there is no direction '{name}'; there are {known}, or numbers from 0 to {len(self) - 1}")
        return self[index : index + 1]


def together(parts: Sequence[Directions]) -> Directions:
    """All of several, in their order, none of which edits styles."""
    rows = max(p.vectors.shape[1] for p in parts)
    return Directions(
        torch.cat([p.vectors.expand(-1, rows, -1) for p in parts]),
        tuple(name for p in parts for name in p.names), tuple(layers for p in parts for layers in p.layers),
        torch.cat([p.scales for p in parts]), parts[0].method, torch.cat([p.accuracies for p in parts]),
        torch.cat([p.shares for p in parts]),
    )  # fmt: skip


@dataclass(frozen=True)
class _Header:
    """What the file holds beside the tensors."""

    names: tuple[str, ...] = ()
    layers: tuple[tuple[int, ...], ...] = ()
    method: str = ""


def save_directions(path: Path, found: Directions, snapshot: Snapshot) -> None:
    """Write them, whole or not at all. Raises UserError when the disk is full, or for a name without DIRECTIONS."""
    tensors = {name: getattr(found, name).float() for name in ("vectors", "scales", "accuracies", "shares")}
    header = _Header(found.names, found.layers, found.method)
    save_bound(path, KIND, tensors | numbered("styles", found.styles), header, snapshot)


def load_directions(path: Path, snapshot: Snapshot | None, force: bool = False) -> Directions:
    """Open what `save_directions` wrote. Runs no code from the file. snapshot: None to look at any network's.

    Raises UserError if it is something else or does not fit the network, and unless `force` if it is of another one.
    """
    return load_bound(path, KIND, _Header, _checked, snapshot, force, partial(_require_fit, path))


def _require_fit(path: Path, found: Directions, snapshot: Snapshot) -> None:
    G, config = snapshot.G, snapshot.config
    if found.vectors.shape[1] not in (1, G.num_ws) or found.vectors.shape[2] != config.w_dim:
        raise UserError(f"{path} has directions of {list(found.vectors.shape[1:])} numbers, this network's w is "
                        f"{[1, config.w_dim]} or {[G.num_ws, config.w_dim]}")  # fmt: skip
    beyond = max((layer for layers in found.layers for layer in layers), default=0)
    if beyond >= G.num_ws:
        raise UserError(f"{path} moves layer {beyond}: this network has {G.num_ws} layers, 0 to {G.num_ws - 1}")
    if found.styles and [s.shape[1] for s in found.styles] != G.synthesis.style_sizes():
        raise UserError(f"{path} edits styles of other sizes than this network's")


def _checked(tensors: dict[str, Tensor], header: _Header) -> Directions:
    found = Directions(
        tensors["vectors"], header.names, header.layers, tensors["scales"], header.method, tensors["accuracies"],
        tensors.get("shares", torch.full_like(tensors["scales"], torch.nan)), in_turn("styles", tensors),
    )  # fmt: skip
    may_be_unknown = [found.accuracies, found.shares]
    every = [found.vectors, found.scales, *may_be_unknown, *found.styles]
    shaped = [t.ndim for t in every] == [3, 1, 1, 1] + [2] * len(found.styles)
    if not shaped or {len(found.layers), *map(len, every)} != {len(found)} or not len(found):
        raise UserError("its parts are of different lengths")
    if any(layer < 0 for layers in found.layers for layer in layers):
        raise UserError("it moves layers below 0")
    for name in found.names:
        if not name.isprintable() or not name.strip():
            raise UserError(f"{name!r} is no name for a direction")
    if not all(t.isfinite().all() for t in [found.vectors, found.scales, *found.styles]):
        raise UserError("it holds numbers that are not finite")
    return found
