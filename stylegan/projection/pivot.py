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
from stylegan.projection.projector import check_targets, measure
from stylegan.projection.settings import Report, TuningSettings, check_settings
from stylegan.snapshot import Snapshot
from torch_utils.adam import Adam
from torch_utils.errors import UserError

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
    `pixel_weight` times the mean square, averaged over the pictures (equation 2; equation 4, which keeps the rest of
    the space in its place, is left out). The snapshot that comes back is exactly what the delta makes of `snapshot`.

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
    goal = against(distance, targets)
    G = copy.deepcopy(snapshot.G)
    adam = Adam(G.synthesis.requires_grad_(True).parameters(), BETAS, EPS)
    for step in range(settings.steps):
        pictures = G.synthesis(ws, noise=noise or "const")
        distances = goal(pictures)
        squares = (pictures - targets).square().mean(dim=(1, 2, 3))
        adam.zero_grad()
        (distances + settings.pixel_weight * squares).mean().backward()
        adam.step(settings.lr)
        if seen is not None:
            seen(step, distances.detach(), pictures.detach())
    delta = delta_between(snapshot.G, G, getattr(torch, settings.dtype), pivots.origins)
    tuned = with_delta(snapshot, delta)
    found = measure(tuned, targets, ws, noise, distance)
    return tuned, delta, Report(*found, settings.steps, time.monotonic() - started)
