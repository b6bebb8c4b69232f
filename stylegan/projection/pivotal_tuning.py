"""What pivotal tuning changed in a network, in a small file of its own, tied to the network that it changes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.bound import Kind, load_bound, save_bound
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents
from stylegan.networks.base import Generator
from stylegan.networks.sampling import generator
from stylegan.projection.distance import AnyDistance, against
from stylegan.projection.projector import centre_of_w, check_targets, measure, pick_dtype
from stylegan.projection.settings import DELTA, ProjectionSettings, Report, TuningSettings, check_settings
from torch_utils.adam import Adam
from torch_utils.errors import UserError

KIND = Kind("stylegan-delta-1", DELTA, "tuned weights")


@dataclass(frozen=True)
class Delta:
    """Differences by name of a generator's weights, in the numbers that are kept, and the photos that they are for."""

    changes: Mapping[str, Tensor]
    origins: tuple[str, ...] = ()


def delta_between(before: Generator, after: Generator, dtype: torch.dtype, origins: Sequence[str] = ()) -> Delta:
    """after - before, of the weights that differ, rounded to `dtype`; so far `with_delta` gives `after`."""
    old = before.state_dict()
    changes = {name: (value - old[name]).to(dtype) for name, value in after.state_dict().items()}
    return Delta({name: change for name, change in changes.items() if bool(change.any())}, tuple(origins))


@torch.no_grad()
def with_delta(snapshot: Snapshot, delta: Delta) -> Snapshot:
    """A snapshot of its own with these weights changed. It takes the latents of the network that it came from."""
    G = copy.deepcopy(snapshot.G)
    weights = G.state_dict()
    for name, change in delta.changes.items():
        weights[name] += change.to(weights[name].device, weights[name].dtype)
    return replace(snapshot, G=G, tuned_from=snapshot.fingerprint)


@dataclass(frozen=True)
class _Header:
    """What the file holds beside the tensors."""

    origins: tuple[str, ...] = ()


def save_delta(path: Path, delta: Delta, snapshot: Snapshot) -> None:
    """Write it, whole or not at all; snapshot: the network before. Raises UserError for a name without DELTA."""
    save_bound(path, KIND, delta.changes, _Header(delta.origins), snapshot)


def load_delta(path: Path, snapshot: Snapshot, force: bool = False) -> Delta:
    """Open what `save_delta` wrote. Runs no code from the file.

    Raises UserError if it is something else or does not fit the network, and unless `force` if it is of another one,
    which a network that was tuned already is as well.
    """
    untuned = replace(snapshot, tuned_from="") if snapshot.tuned_from else snapshot
    return load_bound(path, KIND, _Header, _checked, untuned, force, partial(_require_fit, path))


def _checked(tensors: dict[str, Tensor], header: _Header) -> Delta:
    if not all(change.isfinite().all() for change in tensors.values()):
        raise UserError("it holds numbers that are not finite")
    return Delta(tensors, header.origins)


def _require_fit(path: Path, delta: Delta, snapshot: Snapshot) -> None:
    weights = snapshot.G.state_dict()
    for name, change in delta.changes.items():
        if name not in weights or weights[name].shape != change.shape:
            raise UserError(f"{path} does not fit this network: {name!r} has other numbers")


def apply_delta(snapshot: Snapshot, path: Path, force: bool = False) -> Snapshot:
    """`with_delta` of `load_delta`."""
    return with_delta(snapshot, load_delta(path, snapshot, force))


# Pivotal tuning: the network moves a little, so that a latent that is nearly right becomes so (Roich et al. 2021)


BETAS, EPS = (0.9, 0.999), 1e-8

Seen = Callable[[int, Tensor, Tensor], None]
"""Is called after each step: its number, the distances [N], and the pictures [N,C,H,W]."""


def tune(
    snapshot: Snapshot,
    pivots: Latents,
    targets: Tensor,
    settings: TuningSettings,
    distance: AnyDistance,
    seen: Seen | None = None,
) -> tuple[Snapshot, Delta, Report]:
    """The network changed so that the pivots' pictures are the targets [N,C,H,W]; latents and noise stay as they are.

    Several pivots share one changed network; for each one of its own, tune each alone. The loss is the distance and
    `pixel_weight` times the mean square, averaged over the pictures (equation 2), and `locality` times the same between
    what both networks draw of points near the pivots (equation 4). The snapshot that comes back is exactly what the
    delta makes of `snapshot`.

    Raises UserError for what cannot be projected, and unless there is one target for each pivot.
    """
    check_settings(settings)
    check_targets(snapshot, targets)
    if len(targets) != len(pivots):
        raise UserError(f"there are {len(pivots)} pivots for {len(targets)} pictures")
    started = time.monotonic()
    device = snapshot.device
    targets, ws = targets.to(device), pivots.ws.to(device)
    noise = [m.to(device) for m in pivots.noise]
    dtype = pick_dtype(settings.maps, device)
    goal = against(distance, targets, dtype)
    near = around(snapshot, ws, pivots.c, settings) if settings.locality else None
    G = copy.deepcopy(snapshot.G)
    adam = Adam(G.synthesis.requires_grad_(True).parameters(), BETAS, EPS)
    for step in range(settings.steps):
        pictures = G.synthesis(ws, snapshot.stage, noise or "const", dtype)
        distances = goal(pictures)
        adam.zero_grad()
        (distances + settings.pixel_weight * _squares(pictures, targets)).mean().backward()
        if near is not None:
            points = near(step)
            with torch.no_grad():
                before = snapshot.G.synthesis(points, snapshot.stage, dtype=dtype)
            after = G.synthesis(points, snapshot.stage, dtype=dtype)
            moved = against(distance, before, dtype)(after) + settings.pixel_weight * _squares(after, before)
            (settings.locality * moved.mean()).backward()
        adam.step(settings.lr)
        if seen is not None:
            seen(step, distances.detach(), pictures.detach())
    delta = delta_between(snapshot.G, G, getattr(torch, settings.dtype), pivots.origins)
    tuned = with_delta(snapshot, delta)
    found = measure(tuned, targets, ws, noise, distance)
    return tuned, delta, Report(*found, settings.steps, time.monotonic() - started)


def _squares(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean(dim=(1, 2, 3))


def around(snapshot: Snapshot, ws: Tensor, c: Tensor | None, settings: TuningSettings) -> Callable[[int], Tensor]:
    """For each step a random point near each pivot, ws [N,L,w_dim]: from it so far towards a random w (section 3.2)."""
    c = None if c is None else c.to(ws.device)
    search = ProjectionSettings(w_samples=1000)
    _, deviation = centre_of_w(snapshot.G, len(ws), c, search)

    @torch.no_grad()
    def near_at(step: int) -> Tensor:
        random = generator(search.seed, "pivotal tuning", step).standard_normal(
            (len(ws), snapshot.config.z_dim), dtype="float32"
        )
        there = snapshot.G.latents(torch.from_numpy(random).to(ws.device), c) - ws
        return ws + settings.reach * deviation * there / there.norm(dim=2, keepdim=True)

    return near_at
