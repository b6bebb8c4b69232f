"""Pivotal tuning: the network changes slightly, so that a latent that is nearly right becomes so (Roich et al. 2021).

The change of the weights, the delta, is kept in a small file of its own, which belongs to the network that it changes.
"""

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
from stylegan.projection.projector import Report, WStatistics, check_targets, measure, pick_dtype
from stylegan.projection.settings import TuningSettings, check_settings
from torch_utils.adam import Adam
from torch_utils.errors import UserError

DELTA = ".delta.safetensors"
KIND = Kind("stylegan-delta-1", DELTA, "tuned weights")
BETAS, EPS = (0.9, 0.999), 1e-8
W_SAMPLES, SEED = 1000, 0  # of the statistics of w, and of the random images near a pivot

Watch = Callable[[int, Tensor, Tensor], None]
"""Is called after each step: its number, the distances [N], and the images [N,C,H,W]."""


@dataclass(frozen=True)
class Delta:
    """Changes of a generator's weights, by name, and the photographs that they are for."""

    changes: Mapping[str, Tensor]
    origins: tuple[str, ...] = ()


def tune(
    snapshot: Snapshot, pivots: Latents, targets: Tensor, settings: TuningSettings, distance: AnyDistance,
    watch: Watch | None = None, w_statistics: WStatistics | None = None,
) -> tuple[Snapshot, Delta, Report]:  # fmt: skip
    """The network changed so that the pivots' images are the targets [N,C,H,W]; latents and noise stay as they are.

    Several pivots share one changed network; for a network for each, tune them one by one. The loss is the distance
    plus `pixel_weight` times the mean square error, averaged over the images (equation 2), plus `locality` times the
    same between what both networks generate from points near the pivots (equation 4). The snapshot that is returned is
    exactly what the delta makes of `snapshot`. w_statistics: `nearby_statistics`, for several calls.

    Raises UserError for what cannot be projected, and unless there is one target for each pivot.
    """
    check_settings(settings)
    check_targets(snapshot, targets)
    if len(targets) != len(pivots):
        raise UserError(f"each pivot needs one target, got {len(pivots)} pivots and {len(targets)} targets")
    started = time.monotonic()
    device = snapshot.device
    targets, ws = targets.to(device), pivots.ws.to(device)
    noise = [m.to(device) for m in pivots.noise]
    dtype = pick_dtype(settings.maps, device)
    goal = against(distance, targets, dtype)
    near = None
    if settings.locality:
        near = points_near(snapshot, ws, pivots.c, settings.reach, w_statistics or nearby_statistics(snapshot))
    G = copy.deepcopy(snapshot.G)
    adam = Adam(G.synthesis.requires_grad_(True).parameters(), BETAS, EPS)
    for step in range(settings.steps):
        images = G.synthesis(ws, snapshot.stage, noise or "const", dtype)
        distances = goal(images)
        adam.zero_grad()
        (distances + settings.pixel_weight * _square_errors(images, targets)).mean().backward()
        if near is not None:
            points = near(step)
            with torch.no_grad():
                before = snapshot.G.synthesis(points, snapshot.stage, dtype=dtype)
            after = G.synthesis(points, snapshot.stage, dtype=dtype)
            moved = against(distance, before, dtype)(after) + settings.pixel_weight * _square_errors(after, before)
            (settings.locality * moved.mean()).backward()
        adam.step(settings.lr)
        if watch is not None:
            watch(step, distances.detach(), images.detach())
    delta = delta_between(snapshot.G, G, getattr(torch, settings.dtype), pivots.origins)
    tuned = with_delta(snapshot, delta)
    measured = measure(tuned, targets, ws, noise, distance)
    return tuned, delta, Report(*measured, settings.steps, time.monotonic() - started)


def _square_errors(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean(dim=(1, 2, 3))


def nearby_statistics(snapshot: Snapshot) -> WStatistics:
    """The statistics of w that `points_near` measures distances in."""
    return WStatistics(snapshot.G, W_SAMPLES, SEED)


def points_near(
    snapshot: Snapshot, ws: Tensor, c: Tensor | None, reach: float, w_statistics: WStatistics
) -> Callable[[int], Tensor]:
    """For each step a random point near each pivot, ws [N,L,w_dim]: from it towards a random w (section 3.2).

    reach: how far, in deviations of w.
    """
    c = None if c is None else c.to(ws.device)
    _, deviation = w_statistics.of(c, len(ws))

    @torch.no_grad()
    def points(step: int) -> Tensor:
        random = generator(SEED, "pivotal tuning", step)
        z = random.standard_normal((len(ws), snapshot.config.z_dim), dtype="float32")
        way = snapshot.G.latents(torch.from_numpy(z).to(ws.device), c) - ws
        return ws + reach * deviation * way / way.norm(dim=2, keepdim=True)

    return points


# The change of the weights


def delta_between(before: Generator, after: Generator, dtype: torch.dtype, origins: Sequence[str] = ()) -> Delta:
    """after - before, of the weights that differ, rounded to `dtype`. To within that, `with_delta` gives `after`."""
    old = before.state_dict()
    changes = {name: (value - old[name]).to(dtype) for name, value in after.state_dict().items()}
    return Delta({name: change for name, change in changes.items() if bool(change.any())}, tuple(origins))


@torch.no_grad()
def with_delta(snapshot: Snapshot, delta: Delta) -> Snapshot:
    """A copy of the snapshot with these weights changed. It takes the latents of the network that it came from."""
    G = copy.deepcopy(snapshot.G)
    weights = G.state_dict()
    for name, change in delta.changes.items():
        weights[name] += change.to(weights[name].device, weights[name].dtype)
    return replace(snapshot, G=G, tuned_from=snapshot.fingerprint)


# Its file


@dataclass(frozen=True)
class _Header:
    """What the file holds beside the tensors."""

    origins: tuple[str, ...] = ()


def save_delta(path: Path, delta: Delta, snapshot: Snapshot) -> None:
    """Write it atomically; snapshot: the network before. Raises UserError for a name that does not end in DELTA."""
    save_bound(path, KIND, delta.changes, _Header(delta.origins), snapshot)


def load_delta(path: Path, snapshot: Snapshot, force: bool = False) -> Delta:
    """Open a file of `save_delta`. Runs no code from the file.

    Raises UserError if it is something else or does not fit the network, and unless `force` if it belongs to another
    one, which includes a network that is tuned already.
    """
    untuned = replace(snapshot, tuned_from="") if snapshot.tuned_from else snapshot
    return load_bound(path, KIND, _Header, _checked, untuned, force, partial(_require_fit, path))


def apply_delta(snapshot: Snapshot, path: Path, force: bool = False) -> Snapshot:
    """`with_delta` of `load_delta`."""
    return with_delta(snapshot, load_delta(path, snapshot, force))


def _checked(tensors: dict[str, Tensor], header: _Header) -> Delta:
    if not all(change.isfinite().all() for change in tensors.values()):
        raise UserError("it contains numbers that are not finite")
    return Delta(tensors, header.origins)


def _require_fit(path: Path, delta: Delta, snapshot: Snapshot) -> None:
    weights = snapshot.G.state_dict()
    for name, change in delta.changes.items():
        if name not in weights or weights[name].shape != change.shape:
            raise UserError(f"{path} does not fit this network: its {name!r} is missing there or has another shape")
