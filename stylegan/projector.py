"""Pictures -> the latents whose pictures they are, by gradient descent (Karras et al. 2020, appendix D)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylegan.baked import baked
from stylegan.distance import Against, AnyDistance, against
from stylegan.generator import Generator
from stylegan.latent_file import Latents
from stylegan.latents import broadcast
from stylegan.noise_maps import autocorrelation, initial_noise, normalize
from stylegan.projection import Moment, ProjectionSettings, Report, Watch, check_settings, jitter, ramp
from stylegan.snapshot import Snapshot
from torch_utils.adam import Adam
from torch_utils.errors import UserError
from torch_utils.rng import generator

BETAS, EPS = (0.9, 0.999), 1e-8
_STATISTICS_AT_ONCE = 1000


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
    targets = targets.to(snapshot.device)
    classes = None if c is None else c.to(snapshot.device)
    search = _Search(baked(snapshot.G), settings, against(distance, targets), watch, dict(resume or {}))
    centre, deviation = centre_of_w(snapshot.G, len(targets), classes, settings)
    sizes = snapshot.G.synthesis.noise_sizes(snapshot.G.synthesis.grown[0])
    maps = [m.to(snapshot.device) for m in initial_noise(sizes, len(targets), settings.seed)]
    ws, noise = search.run(_Stage("w", settings.num_steps, settings.lr, deviation), centre[:, None], maps)
    steps, stages = settings.num_steps, {"w": measure(snapshot, targets, ws, noise, distance)}
    if settings.space == "w+":
        ws = broadcast(ws[:, 0], snapshot.G.num_ws).clone()
        ws, noise = search.run(_Stage("w+", settings.plus_steps, settings.plus_lr, None), ws, noise)
        steps += settings.plus_steps
        stages["w+"] = measure(snapshot, targets, ws, noise, distance)
    names = tuple(f"photo{i:04d}" for i in range(len(targets)))
    ws = ws.expand(-1, snapshot.G.num_ws, -1).contiguous()
    latents = Latents(ws, names, names, c=classes, noise=tuple(noise), psi=1.0)
    found, mse = stages[settings.space]
    return latents, Report(found, mse, steps, time.monotonic() - started, {k: v[0] for k, v in stages.items()})


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
def centre_of_w(
    G: Generator, count: int, c: Tensor | None, settings: ProjectionSettings
) -> tuple[Tensor, Tensor]:
    """Mean [count,w_dim] and root mean squared distance from it [count,1,1] of many w, of each picture's class c."""
    device = next(G.parameters()).device
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for kind in [0] if c is None else sorted(set(c.tolist())):
        rows = []
        for start in range(0, settings.w_samples, _STATISTICS_AT_ONCE):
            rest = min(_STATISTICS_AT_ONCE, settings.w_samples - start)
            random = generator(settings.seed, "projection centre", start)
            z = torch.from_numpy(random.standard_normal((rest, G.cfg.z_dim), dtype="float32")).to(device)
            rows.append(G.mapping(z, None if c is None else torch.full((rest,), kind, device=device)))
        w = torch.cat(rows)
        mean = w.mean(dim=0)
        found[kind] = mean, (w - mean).square().sum(dim=1).mean().sqrt()
    kinds = [0] * count if c is None else c.tolist()
    return torch.stack([found[k][0] for k in kinds]), torch.stack([found[k][1] for k in kinds])[:, None, None]


@torch.no_grad()
def measure(
    snapshot: Snapshot, targets: Tensor, ws: Tensor, noise: Sequence[Tensor], distance: AnyDistance
) -> tuple[Tensor, Tensor]:
    """Distance and mean square [N], on the CPU, of pictures from ws [N,1 or L,w_dim] and their targets [N,C,H,W]."""
    drawn = snapshot.G.synthesis(ws.expand(-1, snapshot.G.num_ws, -1), noise=list(noise) or "const")
    return distance(drawn, targets).cpu(), (drawn - targets).square().mean(dim=(1, 2, 3)).cpu()


@dataclass(frozen=True)
class _Stage:
    """Part of a search. deviation: of w [N,1,1], where noise is added to it."""

    name: str
    steps: int
    lr: float
    deviation: Tensor | None


@dataclass(frozen=True)
class _Search:
    """A network, what to come near to, and who is told. `resume` is emptied by the stage that it is of."""

    G: Generator
    settings: ProjectionSettings
    goal: Against
    watch: Watch | None
    resume: dict[str, Any]

    def run(self, stage: _Stage, ws: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Descend from ws [N,1 or L,w_dim] and noise maps; a stage that was left behind before is passed over."""
        first = 0
        w, maps = nn.Parameter(ws.clone()), [nn.Parameter(m.clone()) for m in noise]
        adam = Adam([w, *maps], BETAS, EPS)
        if self.resume:
            with torch.no_grad():
                for mine, saved in zip([w, *maps], self.resume["tensors"], strict=True):
                    if stage.name != self.resume["stage"]:
                        return ws, list(noise)
                    mine.copy_(saved)
            adam.load_state_dict(self.resume["adam"])
            first = self.resume["step"]
            self.resume.clear()
        for step in range(first, stage.steps):
            ...
        return w.detach(), [m.detach() for m in maps]
