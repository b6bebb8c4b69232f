"""Pictures -> the latents whose pictures they are (Karras et al. 2020, appendix D; W+ as in Abdal et al. 2019)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan.baked import baked
from stylegan.generator import Generator
from stylegan.latent_file import Latents
from stylegan.projection.descent import Descent, Stage
from stylegan.projection.distance import AnyDistance
from stylegan.projection.settings import ProjectionSettings, Report, Watch, check_settings
from stylegan.snapshot import Snapshot
from torch_utils.device import fast_bf16
from torch_utils.errors import UserError
from torch_utils.rng import generator

_AT_ONCE = 1000


def project(
    snapshot: Snapshot,
    targets: Tensor,
    settings: ProjectionSettings,
    distance: AnyDistance,
    c: Tensor | None = None,
    watch: Watch | None = None,
    resume: Mapping[str, Any] | None = None,
) -> tuple[Latents, Report]:
    """The latents of pictures [N,C,H,W] in [-1, 1], of the size that the network draws, noise maps included.

    c: classes [N]. distance: see `distance.py`. watch: is called after every step. resume: a `Moment.state()` of this
    very search, which then goes on from there to the same end, to the last bit. What a picture becomes does not depend
    on those beside it, but for the rounding of sums in batches of another size.

    Raises UserError for a network without w (ProGAN), pictures of another size, and where classes are missing.
    """
    check_settings(settings)
    check_targets(snapshot, targets)
    started = time.monotonic()
    G, device = snapshot.G, snapshot.device
    targets, c = targets.to(device), None if c is None else c.to(device)
    dtype = pick_dtype(settings.dtype, device)
    descent = Descent(baked(G, dtype), targets, distance, settings, dtype, watch)
    centre, deviation = centre_of_w(G, len(targets), c, settings)
    ws = centre[:, None]
    layers = len(G.synthesis.noise_sizes(G.synthesis.grown[0]))
    noise = [m.expand(len(ws), -1, -1, -1) for m in G.synthesis.own_noise()[:layers]]
    unit = deviation / ws.shape[-1] ** 0.5
    stages = [Stage("w", settings.num_steps, settings.lr, unit, deviation)]
    if settings.space == "w+":
        stages.append(Stage("w+", settings.plus_steps, settings.plus_lr, unit))
    for stage in stages:
        ours = None
        if resume is not None:
            if stage.name != resume["stage"]:
                continue
            ours, resume = resume, None
        if stage.name == "w+":
            ws = ws.expand(-1, G.num_ws, -1)
        ws, noise = descent.run(stage, ws, noise, ours)
    ws = ws.expand(-1, G.num_ws, -1).contiguous()
    found = measure(snapshot, targets, ws, noise, distance)
    names = tuple(f"photo{i:04d}" for i in range(len(ws)))
    latents = Latents(ws, names, names, c=c, noise=tuple(noise), psi=1.0)
    return latents, Report(*found, sum(stage.steps for stage in stages), time.monotonic() - started)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Of the feature maps of a search, the distance's included. What is reported of its end is measured in float32."""
    if name == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def check_targets(snapshot: Snapshot, targets: Tensor) -> None:
    """Raises UserError unless they are pictures of the size that the network draws, and it has a w."""
    if snapshot.config.family == "progan":
        raise UserError("ProGAN has no w to project into; use a StyleGAN network for this")
    wanted = [snapshot.config.channels, *snapshot.config.size(snapshot.G.synthesis.grown[0])]
    if targets.ndim != 4 or list(targets.shape[1:]) != wanted or not len(targets):
        raise UserError(f"pictures to project must be [N, {', '.join(map(str, wanted))}], not {list(targets.shape)}")
    if not bool(targets.isfinite().all()):
        raise UserError("pictures to project hold numbers that are not finite")


@torch.no_grad()
def centre_of_w(G: Generator, count: int, c: Tensor | None, settings: ProjectionSettings) -> tuple[Tensor, Tensor]:
    """Mean [count,w_dim] and root mean squared distance from it [count,1,1] of many w, of each picture's class c."""
    if c is not None and not G.cfg.num_classes:
        raise UserError("this network is unconditional: it has no classes to choose from")
    device = next(G.parameters()).device
    found: dict[int, tuple[Tensor, Tensor]] = {}
    kinds = [0] * count if c is None else c.tolist()
    for kind in sorted(set(kinds)):
        rows = []
        for start in range(0, settings.w_samples, _AT_ONCE):
            rest = min(_AT_ONCE, settings.w_samples - start)
            random = generator(settings.seed, "projection centre", start)
            z = torch.from_numpy(random.standard_normal((rest, G.cfg.z_dim), dtype="float32")).to(device)
            rows.append(G.mapping(z, None if c is None else torch.full((rest,), kind, device=device)))
        w = torch.cat(rows)
        mean = w.mean(dim=0)
        found[kind] = mean, (w - mean).square().sum(dim=1).mean().sqrt()
    return torch.stack([found[k][0] for k in kinds]), torch.stack([found[k][1] for k in kinds])[:, None, None]


@torch.no_grad()
def measure(
    snapshot: Snapshot, targets: Tensor, ws: Tensor, noise: Sequence[Tensor], distance: AnyDistance
) -> tuple[Tensor, Tensor]:
    """Distance and mean square [N], on the CPU, between pictures of ws [N,L,w_dim] and their targets [N,C,H,W]."""
    drawn = snapshot.G.synthesis(ws, noise=list(noise) or "const")
    return distance(drawn, targets).cpu(), (drawn - targets).square().mean(dim=(1, 2, 3)).cpu()
