"""Pivotal tuning: the network moves a little, so that a latent that is nearly right becomes so (Roich et al. 2021)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor

from stylegan.latent_file import Latents
from stylegan.projection.delta import Delta, delta_between, with_delta
from stylegan.projection.distance import AnyDistance, against
from stylegan.projection.projector import centre_of_w, check_targets, measure, pick_dtype
from stylegan.projection.settings import ProjectionSettings, Report, TuningSettings, check_settings
from stylegan.snapshot import Snapshot
from torch_utils.adam import Adam
from torch_utils.errors import UserError
from torch_utils.rng import generator

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
        pictures = G.synthesis(ws, noise=noise or "const", dtype=dtype)
        distances = goal(pictures)
        adam.zero_grad()
        (distances + settings.pixel_weight * _squares(pictures, targets)).mean().backward()
        if near is not None:
            points = near(step)
            with torch.no_grad():
                before = snapshot.G.synthesis(points, dtype=dtype)
            after = G.synthesis(points, dtype=dtype)
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
