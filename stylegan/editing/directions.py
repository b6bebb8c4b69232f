"""Directions in a file: whatever method found them, every tool that moves latents reads this one format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.bound import Kind, in_turn, load_bound, numbered, save_bound
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents
from stylegan.latents.notation import DIRECTIONS
from stylegan.latents.sources import classes_for_seeds
from stylegan.networks.sampling import move, z_for_seeds
from torch_utils.errors import UserError
from torch_utils.progress import Progress

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
    config = snapshot.config
    if found.vectors.shape[1] not in (1, config.num_ws) or found.vectors.shape[2] != config.ws_dim:
        raise UserError(f"{path} has directions of {list(found.vectors.shape[1:])} numbers, this network's w is "
                        f"{[1, config.ws_dim]} or {[config.num_ws, config.ws_dim]}")  # fmt: skip
    beyond = max((layer for layers in found.layers for layer in layers), default=0)
    if beyond >= config.num_ws:
        raise UserError(
            f"{path} moves layer {beyond}: this network has {config.num_ws} layers, 0 to {config.num_ws - 1}"
        )
    if found.styles and [s.shape[1] for s in found.styles] != config.style_dims():
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


# Moving latents along directions, and what all ways of finding directions share


AT_ONCE, WORTH_A_BAR = 256, 10_000


def moved(latents: Latents, direction: Directions, strength: float, layers: Sequence[int] | None = None) -> Latents:
    """Each of the latents moved by `strength` standard deviations along the one direction.

    layers: those to move, where not the direction's own. A strength of 0 changes nothing, to the last bit.
    Raises UserError for several directions, and for layers that the latents have not.
    """
    require_one(direction)
    if strength == 0:
        return latents
    chosen = direction.layers[0] if layers is None else layers
    step = strength * float(direction.scales[0])
    styles = [step * s if layer in chosen else 0 * s for layer, s in enumerate(direction.styles)]
    before = latents.styles or [s.new_zeros(len(latents), s.shape[1]) for s in styles]
    words = f"{strength:+g} {direction.names[0]}"
    suffix = re.sub(r"[^\w.+-]+", "_", words.replace(" ", "", 1))  # good for a file's name
    return replace(
        latents,
        ws=move(latents.ws, direction.vectors[0], step, chosen),
        names=tuple(f"{name}{suffix}" for name in latents.names),
        origins=tuple(f"{origin}, {words}" for origin in latents.origins),
        z=None,  # it would draw something else now
        styles=tuple(a + b for a, b in zip(before, styles, strict=True)) if styles else latents.styles,
    )


def moved_ws(ws: Tensor, direction: Directions, strength: float, layers: Sequence[int] | None = None) -> Tensor:
    """The same for ws [N,L,w_dim] alone. Raises UserError also for a direction that edits styles."""
    require_one(direction)
    if direction.styles:
        raise UserError(f"'{direction.names[0]}' edits styles, which ws does not hold; move latents along it")
    step = strength * float(direction.scales[0])
    return move(ws, direction.vectors[0], step, direction.layers[0] if layers is None else layers) if step else ws


def require_one(direction: Directions) -> None:
    """Raises UserError for several directions."""
    if len(direction) != 1:
        raise UserError(f"there are {len(direction)} directions, {', '.join(direction.names[:20])}; name one of them")


def conditional(direction: Directions, others: Directions, cov: Tensor) -> Directions:
    """The one direction without what it shares with `others`, so that they stay as they are (Shen et al. 2020, 3.3).

    Among w that vary alike in all ways, as they do once they are whitened: what a boundary answers then stays, too, if
    the direction of that boundary (see `along`) is taken out.
    cov: covariance of the w of random pictures. Raises UserError where nothing is left of it.
    """
    if direction.styles or others.styles:
        raise UserError("directions that edit styles are already apart; only those in w can be made conditional")
    rows = max(direction.vectors.shape[1], others.vectors.shape[1])
    axes, deviations = principal(cov)
    vector, *taken = (
        (part.expand(-1, rows, -1).double() @ axes / deviations).flatten(1)
        for part in (direction.vectors[:1], others.vectors)
    )
    basis, _ = torch.linalg.qr(taken[0].T)
    left = vector[0] - basis @ (basis.T @ vector[0])
    # Once more: where little is left, rounding leaves a part of what was taken away.
    left = left - basis @ (basis.T @ left)
    if left.norm() < 1e-3 * vector.norm():
        raise UserError(f"nothing is left of '{direction.names[0]}' without {', '.join(others.names)}")
    moved_to = left.view(1, rows, -1) * deviations @ axes.T
    vectors = (moved_to / moved_to.norm() * rows**0.5).float()
    name = f"{direction.names[0]} without {', '.join(others.names)}"
    unknown = torch.full((1,), torch.nan)
    return replace(direction, vectors=vectors, names=(name,), scales=scales_of(vectors, cov), accuracies=unknown,
                   shares=unknown)  # fmt: skip


def along(normals: Tensor, cov: Tensor) -> Tensor:
    """How to move so that what planes tell changes most. normals: of the planes, [K,w_dim] -> [K,w_dim].

    Of all ways that are equally long in deviations of w it is cov n that changes n.w most. The normal itself points
    where w varies least, as there a little tells much, and pictures moved along it hardly change.
    """
    return normals.double() @ cov


def principal(cov: Tensor) -> tuple[Tensor, Tensor]:
    """The principal axes [w_dim,w_dim] of w, in columns, and how far it deviates along them [w_dim], never quite 0."""
    values, axes = torch.linalg.eigh(cov)
    return axes, values.clamp(min=1e-8 * float(values.max())).sqrt()


def scales_of(vectors: Tensor, cov: Tensor) -> Tensor:
    """The standard deviation of w along each of `vectors` [K,R,w_dim], a mean over their rows: [K].

    cov: covariance of w, float64 [w_dim,w_dim].
    """
    variances = torch.einsum("krd,de,kre->kr", vectors.double(), cov, vectors.double())
    return variances.clamp(min=0).sqrt().mean(dim=1).float()


def in_w(
    vectors: Tensor, names: Sequence[str], layers: Sequence[int], method: str, cov: Tensor, shares: Tensor | None = None
) -> Directions:
    """Directions from vectors [K,w_dim] of any length, all of which move the same layers. cov: see `scales_of`."""
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).float()[:, None]
    unknown = torch.full((len(unit),), torch.nan)
    return Directions(
        unit, tuple(names), (tuple(layers),) * len(unit), scales_of(unit, cov), method, unknown,
        unknown if shares is None else shares,
    )  # fmt: skip


def upright(vectors: Tensor) -> Tensor:
    """Vectors [K,D] with the largest entry of each positive, as methods leave open which way they point."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0)


def sampled(snapshot: Snapshot, seeds: Sequence[int], classes: Sequence[int] = ()) -> Iterator[Tensor]:
    """w of each seed, without truncation: [n,w_dim] at a time, on the CPU. classes: as for `classes_for_seeds`.

    Raises UserError for classes that do not fit the network, and for a network without w.
    """
    config = snapshot.config
    with Progress("Sampling w", len(seeds), "w", quiet=len(seeds) < WORTH_A_BAR) as bar:
        for start in range(0, len(seeds), AT_ONCE):
            part = seeds[start : start + AT_ONCE]
            c = classes_for_seeds(classes, part, config.num_classes)
            with torch.inference_mode():
                z = z_for_seeds(part, config.z_dim).to(snapshot.device)
                w = snapshot.G.mapping(z, None if c is None else c.to(snapshot.device))
            yield w.cpu()
            bar.advance(len(part))
