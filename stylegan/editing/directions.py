"""Directions in latent space: what they are, their file, and moving latents along them.

Whatever method finds directions, they have this one form and this one file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.bound import Kind, in_turn, load_bound, numbered, save_bound
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.settings import MoveSettings, require_strength
from stylegan.latents.latents import Latents, distinct
from stylegan.latents.latents import joined as joined_latents
from stylegan.latents.notation import DIRECTIONS, layer_ranges, layers_of
from stylegan.networks.config import NetworkConfig
from stylegan.networks.sampling import move
from torch_utils.errors import UserError
from torch_utils.text import counted

WEAK = 0.7  # held-out accuracy below which a direction is marked as weak; guessing has 0.5


@dataclass(frozen=True)
class Directions:
    """K directions in which latents of one network can be moved, each of unit length.

    vectors: in w, [K,1,w_dim], or a separate one for each row of ws, [K,L,w_dim]; not used if they edit styles
    names: one each
    layers: which ones each direction moves by default: rows of ws, or numbers of styles if it edits styles
    scales: how far strength 1 goes, [K]: one standard deviation of the w of random images along the direction
    method: a text that says how they were found
    accuracies: on images that were held out, balanced, so that guessing has 0.5; nan if unknown, [K]
    shares: the part that each direction accounts for of what the method analyses (the variance of w, that of the output
    of a layer, or the squared change of styles); nan if unknown, [K]
    chances: the accuracy that random labels exceed in one of twenty cases; nan if unknown, [K], or None for all
    styles: if they edit styles (StyleSpace), unit vectors [K,style_dim] for each layer; else empty
    """

    vectors: Tensor
    names: tuple[str, ...]
    layers: tuple[tuple[int, ...], ...]
    scales: Tensor
    method: str
    accuracies: Tensor
    shares: Tensor
    styles: tuple[Tensor, ...] = ()
    chances: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, part: slice) -> Directions:
        """Some of them."""
        return replace(
            self, vectors=self.vectors[part], names=self.names[part], layers=self.layers[part],
            scales=self.scales[part], accuracies=self.accuracies[part], shares=self.shares[part],
            styles=tuple(s[part] for s in self.styles), chances=None if self.chances is None else self.chances[part],
        )  # fmt: skip

    def named(self, name: str | int) -> Directions:
        """The direction of this name, or of this number from 0. Raises UserError if there is none."""
        index = self.index(name)
        return self[index : index + 1]

    def several(self, names: Sequence[str | int]) -> Directions:
        """The directions of these names or numbers, in this order. Raises UserError for others, and for one twice."""
        each = [self.index(name) for name in names]
        for index in each:
            if each.count(index) > 1:
                raise UserError(f"direction {self.names[index]} is named {each.count(index)} times; name it once")
        return replace(
            self, vectors=self.vectors[each], names=tuple(self.names[i] for i in each),
            layers=tuple(self.layers[i] for i in each), scales=self.scales[each], accuracies=self.accuracies[each],
            shares=self.shares[each], styles=tuple(s[each] for s in self.styles),
        )  # fmt: skip

    def index(self, name: str | int) -> int:
        """The number of the direction of this name, or of this number. Raises UserError if there is none."""
        if isinstance(name, str) and name in self.names:
            return self.names.index(name)
        if str(name).isdecimal() and int(name) < len(self):
            return int(name)
        known = ", ".join(self.names[:20]) + (", ..." if len(self) > 20 else "")
        raise UserError(f"there is no direction '{name}'; choose from {known}, or numbers from 0 to {len(self) - 1}")


def in_w(
    vectors: Tensor, names: Sequence[str], layers: Sequence[int], method: str, cov: Tensor, shares: Tensor | None = None
) -> Directions:
    """Directions from vectors [K,w_dim] of any length, which all move the same layers. cov: see `scales_of`."""
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).float()[:, None]
    unknown = torch.full((len(unit),), torch.nan)
    return Directions(
        unit, tuple(names), (tuple(layers),) * len(unit), scales_of(unit, cov), method, unknown,
        unknown if shares is None else shares,
    )  # fmt: skip


def scales_of(vectors: Tensor, cov: Tensor) -> Tensor:
    """The standard deviation of w along each of `vectors` [K,R,w_dim], averaged over their rows: [K].

    cov: covariance of w, float64 [w_dim,w_dim].
    """
    variances = torch.einsum("krd,de,kre->kr", vectors.double(), cov, vectors.double())
    return variances.clamp(min=0).sqrt().mean(dim=1).float()


def joined(parts: Sequence[Directions]) -> Directions:
    """All directions of several, in order. They must not edit styles."""
    rows = max(p.vectors.shape[1] for p in parts)
    return Directions(
        torch.cat([p.vectors.expand(-1, rows, -1) for p in parts]),
        tuple(name for p in parts for name in p.names), tuple(layers for p in parts for layers in p.layers),
        torch.cat([p.scales for p in parts]), parts[0].method, torch.cat([p.accuracies for p in parts]),
        torch.cat([p.shares for p in parts]),
        chances=torch.cat([torch.full_like(p.scales, torch.nan) if p.chances is None else p.chances for p in parts]),
    )  # fmt: skip


def angle_between(a: Directions, b: Directions) -> float:
    """The angle between two single directions, in degrees."""
    u, v = (direction.vectors[0].double() for direction in (a, b))
    rows = max(len(u), len(v))
    u, v = u.expand(rows, -1).flatten(), v.expand(rows, -1).flatten()
    return math.degrees(2 * math.atan2(float((u - v).norm()), float((u + v).norm())))  # exact for small angles


# Directions as text


def listed(found: Directions) -> list[str]:
    """A line on all of them, then one on each."""
    lines = [summary(found)]
    for number, name in enumerate(found.names):
        space = "styles" if found.styles else "w" if found.vectors.shape[1] == 1 else "w+"
        about = [space, f"layer{'s' * (len(found.layers[number]) != 1)} {layer_ranges(found.layers[number])}"]
        share, accuracy = float(found.shares[number]), float(found.accuracies[number])
        about += [f"{share:.1%} of the variation"] * (share == share)
        chance = math.nan if found.chances is None else float(found.chances[number])
        about += [accuracy_text(accuracy, chance)] * (accuracy == accuracy)
        lines.append(f"{number:3}  {name:24} {', '.join(about)}")
    return lines


def summary(found: Directions) -> str:
    """How many there are, how they were found, and how much they account for together."""
    text, share = f"{counted(len(found), 'direction')}, {found.method}", float(found.shares.sum())
    return f"{text}, {share:.0%} of the variation" if share == share else text


def accuracy_text(accuracy: float, chance: float = math.nan) -> str:
    """A held-out accuracy, with that of random labels if it is known, marked if it is weak or no better than theirs."""
    if accuracy != accuracy:
        return "held-out accuracy unknown  WEAK"
    text = f"held-out accuracy {accuracy:.3f}" + (f", by chance up to {chance:.3f}" if chance == chance else "")
    return text + ("  WEAK" if accuracy < WEAK or accuracy <= chance else "")


# The file


KIND = Kind("stylegan-directions-1", DIRECTIONS, "directions")


@dataclass(frozen=True)
class _Header:
    """The part of the file that is not tensors."""

    names: tuple[str, ...] = ()
    layers: tuple[tuple[int, ...], ...] = ()
    method: str = ""


def save_directions(path: Path, found: Directions, snapshot: Snapshot) -> None:
    """Write the file, whole or not at all. Raises UserError if the disk is full, and for a name of another suffix."""
    tensors = {name: getattr(found, name).float() for name in ("vectors", "scales", "accuracies", "shares")}
    if found.chances is not None:
        tensors["chances"] = found.chances.float()
    header = _Header(found.names, found.layers, found.method)
    save_bound(path, KIND, tensors | numbered("styles", found.styles), header, snapshot)


def load_directions(path: Path, snapshot: Snapshot | None, force: bool = False) -> Directions:
    """Open a file of `save_directions`. Runs no code from the file. snapshot: None to accept any network's.

    Raises UserError if it is another kind of file or does not fit the network, and unless `force` if it belongs to
    another network.
    """
    return load_bound(path, KIND, _Header, _checked, snapshot, force, partial(require_fit, path))


def require_fit(path: Path | str, found: Directions, snapshot: Snapshot) -> None:
    """Raises UserError for directions that do not fit the network. path: their file, or what messages call them"""
    config = snapshot.config
    if found.vectors.shape[1] not in (1, config.num_ws) or found.vectors.shape[2] != config.ws_dim:
        raise UserError(f"{path}: directions of {list(found.vectors.shape[1:])} numbers, but w of this network has "
                        f"{[1, config.ws_dim]} or {[config.num_ws, config.ws_dim]}")  # fmt: skip
    if found.styles and [s.shape[1] for s in found.styles] != config.style_dims():
        raise UserError(f"{path}: edits styles of other sizes than those of this network")
    last = max((layer for layers in found.layers for layer in layers), default=0)
    count = len(found.styles) or config.num_ws
    if last >= count:
        raise UserError(f"{path}: moves layer {last}, but this network has {count} layers, 0 to {count - 1}")


def _checked(tensors: dict[str, Tensor], header: _Header) -> Directions:
    found = Directions(
        tensors["vectors"], header.names, header.layers, tensors["scales"], header.method, tensors["accuracies"],
        tensors.get("shares", torch.full_like(tensors["scales"], torch.nan)), in_turn("styles", tensors),
        tensors.get("chances"),
    )  # fmt: skip
    chances = [] if found.chances is None else [found.chances]
    every = [found.vectors, found.scales, found.accuracies, found.shares, *chances, *found.styles]
    shaped = [t.ndim for t in every] == [3, 1, 1, 1] + [1] * len(chances) + [2] * len(found.styles)
    if not shaped or {len(found.layers), *map(len, every)} != {len(found)} or not len(found):
        raise UserError("its parts are of different lengths")
    if any(layer < 0 for layers in found.layers for layer in layers):
        raise UserError("it moves layers below 0")
    for name in found.names:
        if not name.isprintable() or not name.strip():
            raise UserError(f"{name!r} is not a name for a direction")
    if not all(t.isfinite().all() for t in [found.vectors, found.scales, *found.styles]):
        raise UserError("it holds numbers that are not finite")
    return found


# Moving


def layers_to_move(
    found: Directions, layers: str | Sequence[int | str], config: NetworkConfig, resolution: int
) -> list[int]:
    """The layers that users mean by "0-3" or "coarse", as `moved` takes them. Raises UserError as `layers_of` does."""
    rows = layers_of(layers, config, resolution)
    return config.layers_of_rows(rows) if found.styles else rows


def moved(latents: Latents, direction: Directions, strength: float, layers: Sequence[int] | None = None) -> Latents:
    """Move each of the latents by `strength` standard deviations along a single direction.

    layers: those to move, see `layers_to_move`; None for the direction's own. A strength of 0 changes nothing, to the
    last bit. Raises UserError for several directions, and for layers that the latents do not have.
    """
    require_one(direction)
    if strength == 0:
        return latents
    chosen = direction.layers[0] if layers is None else layers
    step = strength * float(direction.scales[0])
    edits = _edits(direction.styles, step, chosen)
    before = latents.styles or [edit.new_zeros(len(latents), edit.shape[1]) for edit in edits]
    text = f"{strength:+g} {direction.names[0]}"
    suffix = re.sub(r"[^\w.+-]+", "_", text.replace(" ", "", 1))  # valid in the name of a file
    return replace(
        latents,
        ws=move(latents.ws, direction.vectors[0], step, [] if edits else chosen),
        names=tuple(f"{name}{suffix}" for name in latents.names),
        origins=tuple(f"{origin}, {text}" for origin in latents.origins),
        z=None,  # it would be mapped to the ws before the move
        styles=tuple(a + b for a, b in zip(before, edits, strict=True)) if edits else latents.styles,
    )


def _edits(styles: Sequence[Tensor], step: float, layers: Sequence[int]) -> list[Tensor]:
    """The steps [1,style_dim] of a direction that edits styles. Raises UserError for layers that it does not have."""
    beyond = [layer for layer in layers if styles and not 0 <= layer < len(styles)]
    if beyond:
        raise UserError(f"there is no layer {beyond[0]}: this direction edits {len(styles)}, 0 to {len(styles) - 1}")
    return [step * style if layer in layers else 0 * style for layer, style in enumerate(styles)]


def moved_ws(ws: Tensor, direction: Directions, strength: float, layers: Sequence[int] | None = None) -> Tensor:
    """The same for ws [N,L,w_dim]. Raises UserError also for a direction that edits styles."""
    require_one(direction)
    if direction.styles:
        raise UserError(f"'{direction.names[0]}' edits styles, which ws do not hold; move latents along it")
    step = strength * float(direction.scales[0])
    return move(ws, direction.vectors[0], step, direction.layers[0] if layers is None else layers) if step else ws


def moved_along(
    latents: Latents, found: Directions, strengths: Sequence[float], layers: Sequence[int] | None = None
) -> Latents:
    """Move each of the latents along all of the directions, by a strength for each.

    Raises UserError as `moved` does.
    """
    for k, strength in enumerate(strengths):
        latents = moved(latents, found[k : k + 1], strength, layers)
    return latents


# Along several directions: which ones, and how far along each


Strengths = tuple[float, ...]
"""How far along each of some directions."""


@dataclass(frozen=True)
class Moves:
    """Where each image is moved to.

    found: the directions
    rows: one row or several for each image, with the strengths of each cell
    columns: what is above each column
    turns: where a film turns that begins with the first of them and ends there
    """

    found: Directions
    rows: tuple[tuple[Strengths, ...], ...]
    columns: tuple[str, ...]
    turns: tuple[Strengths, ...]

    def of(self, latents: Latents, layers: Sequence[int] | None = None) -> Latents:
        """The cells of each of the latents, row by row, with a name for each. Raises UserError as `moved` does."""
        every = joined_latents([
            moved_along(latents[i : i + 1], self.found, strengths, layers)
            for i in range(len(latents)) for row in self.rows for strengths in row
        ])  # fmt: skip
        return replace(every, names=tuple(distinct(every.names)))

    def row_names(self, names: Sequence[str]) -> list[str]:
        """What is left of each row, for images of these names."""
        if len(self.rows) == 1:
            return list(names)
        return [f"{name}  {direction}" for name in names for direction in self.found.names]


def one_by_one(found: Directions, strengths: Sequence[float]) -> Moves:
    """A row for each direction, with a column for each strength. A film moves along one direction after the other."""

    def along(k: int, strength: float) -> Strengths:
        return tuple(strength if i == k else 0.0 for i in range(len(found)))

    every = range(len(found))
    ends = (min(strengths), max(strengths))
    if len(found) == 1:
        turns = [along(0, end) for end in ends]
    else:
        turns = [along(k, end) for k in every for end in (0.0, *ends)]
    columns = tuple(f"{strength:+.3g}" if strength else "0" for strength in strengths)
    return Moves(found, tuple(tuple(along(k, s) for s in strengths) for k in every), columns, tuple(turns))


def one_after_another(found: Directions, strengths: Sequence[float]) -> Moves:
    """A row with a column for the image itself, and for each direction one that adds its strength to those before."""
    steps = [tuple(strengths[:k]) + (0.0,) * (len(found) - k) for k in range(len(found) + 1)]
    texts = [f"{strength:+.3g} {name}" for name, strength in zip(found.names, strengths, strict=True)]
    columns = tuple(" ".join(texts[:k]) or "0" for k in range(len(found) + 1))
    return Moves(found, (tuple(steps),), columns, tuple(steps))


def moves_of(found: Directions, text: str, strengths: Sequence[float]) -> Moves:
    """The moves of "smile,age", one by one by each of `strengths`, or of "smile:1.5,age:-1", one after another.

    Raises UserError for names that are not there, and for strengths of some of them only.
    """
    if text in found.names:
        return one_by_one(found.named(text), strengths)
    parts = [part.strip() for part in text.split(",")]
    with_strength = [part for part in parts if ":" in part and part not in found.names]
    if not with_strength:
        return one_by_one(found.several(parts), strengths)
    if tuple(strengths) != MoveSettings().strengths:
        raise UserError(f"--strengths and --name {text} both say how far to move; leave one of them out")
    if len(with_strength) < len(parts):
        raise UserError(f"--name {text}: give a strength to each direction, as in smile:1.5,age:-1, or to none")
    names, own = zip(*(part.rsplit(":", 1) for part in parts), strict=True)
    try:
        far = [float(strength) for strength in own]
    except ValueError:
        far = [math.nan]
    if any(map(math.isnan, far)):
        raise UserError(f"--name {text}: after a colon comes a strength, as in smile:1.5")
    for strength in far:
        require_strength(strength, f"--name {text}: a strength")
    return one_after_another(found.several([name.strip() for name in names]), far)


def require_one(direction: Directions) -> None:
    """Raises UserError for several directions."""
    if len(direction) != 1:
        raise UserError(f"there are {len(direction)} directions, {', '.join(direction.names[:20])}; name one of them")
