"""Moving latents along directions, and what all ways of finding directions share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stylegan.classes import classes_for_seeds
from stylegan.directions.file import Directions
from stylegan.latent_file import Latents
from stylegan.latents import move, z_for_seeds
from stylegan.snapshot import Snapshot
from torch_utils.errors import UserError
from torch_utils.progress import Progress

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
