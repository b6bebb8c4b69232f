"""Noise maps as something to optimise: what keeps them noise (Karras et al. 2020, appendix D)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents
from stylegan.networks.base import Generator, require_w
from stylegan.networks.config import Stage as GrowthStage
from stylegan.networks.inference import folded
from stylegan.networks.sampling import generator
from stylegan.projection.distance import Against, AnyDistance, against
from stylegan.projection.settings import Moment, ProjectionSettings, Report, Watch, check_settings, jitter, ramp
from torch_utils.adam import Adam
from torch_utils.device import fast_bf16, single_thread_workers
from torch_utils.errors import UserError


def autocorrelation(maps: Sequence[Tensor]) -> Tensor:
    """How far maps [N,1,H,W] are from white noise, [N]: squared correlation with themselves, shifted by one, each way.

    Summed over the maps and, by averaging 2x2 (which keeps white noise white if doubled), over scales down to 8 pixels.
    """
    total = maps[0].new_zeros(len(maps[0]))
    waiting = sorted(maps, key=lambda m: m.shape[2])
    while waiting:
        # All of a size at once, the reduced ones among them: a few operations for each size, not for each map.
        size = waiting[-1].shape[2:]
        together = torch.cat([m for m in waiting if m.shape[2:] == size], dim=1)
        waiting = [m for m in waiting if m.shape[2:] != size]
        for dim in (2, 3):
            total = total + (together * together.roll(1, dim)).mean(dim=(2, 3)).square().sum(dim=1)
        if min(size) > 8 and not (size[0] % 2 or size[1] % 2):
            waiting.append(F.avg_pool2d(together, 2) * 2)
    return total


@torch.no_grad()
def normalize(maps: Sequence[Tensor]) -> None:
    """In place: each map of each picture to mean 0 and variance 1."""
    for m in maps:
        m -= m.mean(dim=(1, 2, 3), keepdim=True)
        m *= m.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12).rsqrt()


# Gradient descent on latents of several pictures at once, each as if it were alone, in steps that can be resumed


BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Stage:
    """Part of a search. unit: of w [N,1,1], in which steps are taken: how far one number of w is from its mean.

    deviation: that of all of w [N,1,1], in which noise is added to it; None where none is.
    """

    name: str
    steps: int
    lr: float
    unit: Tensor
    deviation: Tensor | None = None


@dataclass(frozen=True)
class Descent:
    """What does not change: a generator to be drawn with, what to come near to [N,C,H,W], by which measure."""

    G: Generator
    at: GrowthStage
    targets: Tensor
    distance: AnyDistance
    settings: ProjectionSettings
    dtype: torch.dtype
    watch: Watch | None

    def run(
        self, stage: Stage, ws: Tensor, noise: Sequence[Tensor], resume: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Descend from ws [N,1 or L,w_dim] and noise maps [N,1,H,W], or go on from a `Moment.state()` of this stage."""
        params = [nn.Parameter(ws / stage.unit), *(nn.Parameter(m.clone()) for m in noise)]
        adam = Adam(params, BETAS, EPS)
        first = 0
        if resume is not None:
            first = resume["step"]
            adam.load_state_dict(resume["adam"])
            with torch.no_grad():
                for mine, saved in zip(params, resume["tensors"], strict=True):
                    mine.copy_(saved)
        with _workers(self.G, len(ws)) as (parts, pool):
            goals = [against(self.distance, self.targets[part], self.dtype) for part in parts]
            for step in range(first, stage.steps):
                shift = self._shift(stage, step, ws)
                steps = [
                    _Share(self, stage.unit, goal, part, params, shift) for goal, part in zip(goals, parts, strict=True)
                ]
                for p in params:
                    p.grad = torch.zeros_like(p)
                found = list(pool(_Share.compute, steps))
                adam.step(stage.lr * ramp(self.settings, step, stage.steps))
                normalize(params[1:])
                if self.watch is not None:
                    distances, pictures = (torch.cat(parts_of) for parts_of in zip(*found, strict=True))
                    self.watch(
                        Moment(stage.name, step, stage.steps, distances, pictures, _state(stage, step, params, adam))
                    )
        return params[0].detach() * stage.unit, [p.detach() for p in params[1:]]

    def _shift(self, stage: Stage, step: int, ws: Tensor) -> Tensor | None:
        """What is added to w [N,1,w_dim] in a step: the same direction for all, so that none depends on its place."""
        strength = jitter(self.settings, step, stage.steps)
        if stage.deviation is None or not strength:
            return None
        random = generator(self.settings.seed, "projection jitter", step)
        direction = torch.from_numpy(random.standard_normal(ws.shape[-1], dtype="float32")).to(ws.device)
        return direction * stage.deviation * strength


@dataclass(frozen=True)
class _Share:
    """A step's work on some of the pictures."""

    descent: Descent
    unit: Tensor
    goal: Against
    part: slice
    params: Sequence[nn.Parameter]
    shift: Tensor | None

    def compute(self) -> tuple[Tensor, Tensor]:
        """Fill in the gradients of this part; the distances [n] and the pictures [n,C,H,W] that they are of."""
        descent = self.descent
        leaves = [p.detach()[self.part].requires_grad_() for p in self.params]
        ws = leaves[0] * self.unit[self.part]
        ws = ws if self.shift is None else ws + self.shift[self.part]
        ws = ws.expand(-1, descent.G.config.num_ws, -1)
        pictures = descent.G.synthesis(ws, descent.at, leaves[1:] or "none", descent.dtype)
        distances = self.goal(pictures)
        loss = distances.sum()
        if leaves[1:]:
            loss = loss + descent.settings.noise_weight * autocorrelation(leaves[1:]).sum()
        loss.backward()
        for p, leaf in zip(self.params, leaves, strict=True):
            if leaf.grad is not None and p.grad is not None:
                p.grad[self.part] = leaf.grad
        return distances.detach(), pictures.detach()


def _state(stage: Stage, step: int, params: Sequence[Tensor], adam: Adam) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "stage": stage.name, "step": step + 1, "tensors": [p.detach() for p in params], "adam": adam.state_dict()
    }  # fmt: skip


@contextmanager
def _workers(G: Generator, count: int) -> Iterator[tuple[list[slice], Callable[..., Any]]]:
    """Shares of `count` pictures, and a `map` that computes them side by side: on a CPU, one thread for each share.

    That is faster than all threads in every operation of a small network. One picture is left to all threads.
    """
    shares = min(torch.get_num_threads(), count) if next(G.parameters()).device.type == "cpu" else 1
    if shares == 1:
        yield [slice(0, count)], map
        return
    edges = [count * i // shares for i in range(shares + 1)]
    with single_thread_workers(shares) as run:
        yield [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)], run


# Pictures -> the latents whose pictures they are (Karras et al. 2020, appendix D; W+ as in Abdal et al. 2019)


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
    descent = Descent(folded(G, dtype), snapshot.stage, targets, distance, settings, dtype, watch)
    centre, deviation = centre_of_w(G, len(targets), c, settings)
    ws = centre[:, None]
    layers = len(snapshot.config.noise_shapes(snapshot.stage.resolution))
    noise = [m.expand(len(ws), -1, -1, -1) for m in G.own_noise()[:layers]]
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
            ws = ws.expand(-1, G.config.num_ws, -1)
        ws, noise = descent.run(stage, ws, noise, ours)
    ws = ws.expand(-1, G.config.num_ws, -1).contiguous()
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
    require_w(snapshot.G)
    wanted = [snapshot.config.channels, *snapshot.config.size(snapshot.stage.resolution)]
    if targets.ndim != 4 or list(targets.shape[1:]) != wanted or not len(targets):
        raise UserError(f"pictures to project must be [N, {', '.join(map(str, wanted))}], not {list(targets.shape)}")
    if not bool(targets.isfinite().all()):
        raise UserError("pictures to project hold numbers that are not finite")


@torch.no_grad()
def centre_of_w(G: Generator, count: int, c: Tensor | None, settings: ProjectionSettings) -> tuple[Tensor, Tensor]:
    """Mean [count,w_dim] and root mean squared distance from it [count,1,1] of many w, of each picture's class c."""
    if c is not None and not G.config.num_classes:
        raise UserError("this network is unconditional: it has no classes to choose from")
    device = next(G.parameters()).device
    found: dict[int, tuple[Tensor, Tensor]] = {}
    kinds = [0] * count if c is None else c.tolist()
    for kind in sorted(set(kinds)):
        rows = []
        for start in range(0, settings.w_samples, _AT_ONCE):
            rest = min(_AT_ONCE, settings.w_samples - start)
            random = generator(settings.seed, "projection centre", start)
            z = torch.from_numpy(random.standard_normal((rest, G.config.z_dim), dtype="float32")).to(device)
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
    drawn = snapshot.G.synthesis(ws, snapshot.stage, list(noise) or "const")
    return distance(drawn, targets).cpu(), (drawn - targets).square().mean(dim=(1, 2, 3)).cpu()
