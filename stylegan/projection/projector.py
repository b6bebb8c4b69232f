"""Projection: the search for the latents whose images come closest to given ones.

Adam changes a w and noise maps, of several images at once, each as if it were the only one (Karras et al. 2020,
appendix D). A second phase may follow, in which each layer gets a w of its own (W+, Abdal et al. 2019).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents, require_fit
from stylegan.networks.arguments import require_ws
from stylegan.networks.base import Generator, require_w
from stylegan.networks.inference import folded
from stylegan.networks.sampling import generator
from stylegan.projection.distance import Against, AnyDistance, against
from stylegan.projection.settings import ProjectionSettings, check_settings
from torch_utils.adam import Adam
from torch_utils.device import fast_bf16, single_thread_workers
from torch_utils.errors import UserError

BETAS, EPS = (0.9, 0.999), 1e-8
W_BATCH = 1000


@dataclass(frozen=True)
class SearchStep:
    """One step of a search, for those who watch it.

    phase: "w" or "w+"   step, steps: its number in the phase, from 0, and how many there are
    distances: [N], of the images [N,C,H,W] as they were generated in this step   state: what resumes after it
    """

    phase: str
    step: int
    steps: int
    distances: Tensor
    images: Tensor
    state: Callable[[], dict[str, Any]]


Watch = Callable[[SearchStep], None]


@dataclass(frozen=True)
class Report:
    """The result of a projection or of pivotal tuning, and what it took.

    images: generated from what was found, [N,C,H,W] on the CPU
    distance, mse: [N], the distance that was minimised and the mean square error of these images, on the CPU
    """

    images: Tensor
    distance: Tensor
    mse: Tensor
    steps: int
    seconds: float


def project(
    snapshot: Snapshot, targets: Tensor, settings: ProjectionSettings, distance: AnyDistance, c: Tensor | None = None,
    watch: Watch | None = None, resume: Mapping[str, Any] | None = None, start: Latents | None = None,
) -> tuple[Latents, Report]:  # fmt: skip
    """The latents of images; see `Projector.project`. Several batches should share a `Projector`."""
    return Projector(snapshot, settings, distance).project(targets, c, watch, resume, start)


@dataclass(frozen=True)
class Projector:
    """Projects batches of images, and computes once what they share. distance: see `distance.py`."""

    snapshot: Snapshot
    settings: ProjectionSettings
    distance: AnyDistance
    _mean_images: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def w_statistics(self) -> WStatistics:
        return WStatistics(self.snapshot.G, self.settings.w_samples, self.settings.seed)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type of the feature maps of the search, those of the distance included."""
        return pick_dtype(self.settings.dtype, self.snapshot.device)

    @cached_property
    def G(self) -> Generator:
        """The generator with weights prepared for the search."""
        return folded(self.snapshot.G, self.dtype)

    def project(
        self, targets: Tensor, c: Tensor | None = None, watch: Watch | None = None,
        resume: Mapping[str, Any] | None = None, start: Latents | None = None,
    ) -> tuple[Latents, Report]:  # fmt: skip
        """The latents of images [N,C,H,W] in [-1, 1], of the size of the network's images, noise maps included.

        c: classes [N]. watch: is called after every step. resume: a `SearchStep.state()` of this very search, which
        then continues to the same end, to the last bit. The latents of an image do not depend on the others, except
        for the rounding of sums in batches of another size.
        start: where to start instead of the mean of w, one for all images or one for each. In W+, only W+ is searched.

        Raises UserError for a network without w (ProGAN), images of another size, where classes are missing, and for a
        start that does not fit.
        """
        check_settings(self.settings)
        check_targets(self.snapshot, targets)
        started = time.monotonic()
        G, device = self.snapshot.G, self.snapshot.device
        targets, c = targets.to(device), None if c is None else c.to(device)
        mean, deviation = self.w_statistics.of(c, len(targets))
        ws = mean[:, None]
        layers = len(self.snapshot.config.noise_shapes(self.snapshot.stage.resolution))
        noise = [m.expand(len(ws), -1, -1, -1) for m in G.own_noise()[:layers]]
        searched = phases(self.settings, start)
        if start is not None:
            check_start(self.snapshot, start, len(targets))
            ws = (start.ws if start.plus else start.ws[:, :1]).to(device).expand(len(targets), -1, -1)
            if len(start.noise) >= layers:
                noise = [m.to(device).expand(len(targets), -1, -1, -1) for m in start.noise[:layers]]
        for phase in searched:
            state = None
            if resume is not None:
                if phase.name != resume["stage"]:
                    continue
                state, resume = resume, None
            if phase.name == "w+":
                ws = ws.expand(-1, G.config.num_ws, -1)
            ws, noise = self._search(phase, targets, ws, noise, deviation, watch, state)
        ws = ws.expand(-1, G.config.num_ws, -1).contiguous()
        names = tuple(f"photo{i:04d}" for i in range(len(ws)))
        latents = Latents(ws, names, names, c=c, noise=tuple(noise), psi=1.0)
        measured = measure(self.snapshot, targets, ws, noise, self.distance)
        return latents, Report(*measured, sum(phase.steps for phase in searched), time.monotonic() - started)

    def mean_images(self, c: Tensor | None, count: int) -> Tensor:
        """The images of the mean of w of each class of c, where a search starts: [N,C,H,W] on the CPU."""
        kinds = [0] * count if c is None else c.tolist()
        for kind in sorted(set(kinds) - self._mean_images.keys()):
            mean, _ = self.w_statistics.of(None if c is None else torch.tensor([kind]), 1)
            self._mean_images[kind] = self.snapshot.renderer.draw(self.snapshot.G.broadcast(mean), "const")
        return torch.cat([self._mean_images[kind] for kind in kinds])

    def _search(
        self, phase: SearchPhase, targets: Tensor, ws: Tensor, noise: Sequence[Tensor], deviation: Tensor,
        watch: Watch | None, resume: Mapping[str, Any] | None,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """Search from ws [N,1 or L,w_dim] and noise maps [N,1,H,W], or from a state of this phase.

        deviation: of w, [N,1,1]. A step is measured in that of a single number of w.
        """
        unit = deviation / ws.shape[-1] ** 0.5
        params = [nn.Parameter(ws / unit), *(nn.Parameter(m.clone()) for m in noise)]
        adam = Adam(params, BETAS, EPS)
        first = 0
        if resume is not None:
            first = resume["step"]
            adam.load_state_dict(resume["adam"])
            with torch.no_grad():
                for mine, saved in zip(params, resume["tensors"], strict=True):
                    mine.copy_(saved)
        with _workers(self.G, len(ws)) as (parts, run):
            goals = [against(self.distance, targets[part], self.dtype) for part in parts]
            for step in range(first, phase.steps):
                shift = self._shift(phase, step, deviation, ws.shape[-1])
                for p in params:
                    p.grad = torch.zeros_like(p)
                found = list(run(partial(self._gradients, params, unit, shift), parts, goals))
                adam.step(phase.lr * lr_factor(self.settings, step, phase.steps))
                normalize(params[1:])
                if watch is not None:
                    distances, images = (torch.cat(parts_of) for parts_of in zip(*found, strict=True))
                    state = _state(phase, step, params, adam)
                    watch(SearchStep(phase.name, step, phase.steps, distances, images, state))
        return params[0].detach() * unit, [p.detach() for p in params[1:]]

    def _gradients(
        self, params: Sequence[nn.Parameter], unit: Tensor, shift: Tensor | None, part: slice, goal: Against
    ) -> tuple[Tensor, Tensor]:
        """Fill in the gradients of a part of the images; their distances [n], and the images [n,C,H,W] themselves."""
        leaves = [p.detach()[part].requires_grad_() for p in params]
        ws = leaves[0] * unit[part]
        ws = ws if shift is None else ws + shift[part]
        ws = ws.expand(-1, self.G.config.num_ws, -1)
        images = self.G.synthesis(ws, self.snapshot.stage, leaves[1:] or "none", self.dtype)
        distances = goal(images)
        loss = distances.sum()
        if leaves[1:]:
            loss = loss + self.settings.noise_weight * autocorrelation(leaves[1:]).sum()
        loss.backward()
        for p, leaf in zip(params, leaves, strict=True):
            if leaf.grad is not None and p.grad is not None:
                p.grad[part] = leaf.grad
        return distances.detach(), images.detach()

    def _shift(self, phase: SearchPhase, step: int, deviation: Tensor, w_dim: int) -> Tensor | None:
        """What is added to w in a step, [N,1,w_dim]: the same direction for all, so that none depends on its place."""
        strength = jitter(self.settings, step, phase.steps) if phase.name == "w" else 0.0
        if not strength:
            return None
        random = generator(self.settings.seed, "projection jitter", step)
        direction = torch.from_numpy(random.standard_normal(w_dim, dtype="float32")).to(deviation.device)
        return direction * deviation * strength


# The schedule of a search


@dataclass(frozen=True)
class SearchPhase:
    """Part of a search: in W ("w"), where noise is added to w, or in W+ ("w+"). lr: peak learning rate"""

    name: str
    steps: int
    lr: float


def phases(settings: ProjectionSettings, start: Latents | None = None) -> list[SearchPhase]:
    """The phases of a search, in their order. start: where it starts; in W+, there is nothing to search in W

    Raises UserError for a search in W that starts in W+.
    """
    found = [SearchPhase("w", settings.num_steps, settings.lr)]
    if start is not None and start.plus:
        if settings.space != "w+":
            raise UserError("the latents to start at have another w in each layer, which a search in W would lose; use "
                            "space w+")  # fmt: skip
        found = []
    if settings.space == "w+":
        found.append(SearchPhase("w+", settings.plus_steps, settings.plus_lr))
    return found


def lr_factor(settings: ProjectionSettings, step: int, steps: int) -> float:
    """The learning rate at a step as a share of its peak: up in a line, flat, down in a cosine to 0."""
    t = step / steps
    down = min(1.0, (1 - t) / settings.lr_rampdown) if settings.lr_rampdown else 1.0
    up = min(1.0, (step + 1) / steps / settings.lr_rampup) if settings.lr_rampup else 1.0
    return (0.5 - 0.5 * math.cos(down * math.pi)) * up


def jitter(settings: ProjectionSettings, step: int, steps: int) -> float:
    """How much noise is added to w at a step, in deviations of w: falls as a square to 0."""
    if not settings.jitter_until:
        return 0.0
    return settings.jitter * max(0.0, 1 - step / steps / settings.jitter_until) ** 2


def _state(phase: SearchPhase, step: int, params: Sequence[Tensor], adam: Adam) -> Callable[[], dict[str, Any]]:
    # "stage" is what files of earlier versions call the phase.
    return lambda: {
        "stage": phase.name, "step": step + 1, "tensors": [p.detach() for p in params], "adam": adam.state_dict()
    }  # fmt: skip


# Where it starts: the mean of w


@dataclass(frozen=True)
class WStatistics:
    """The mean of w and its deviation, of each class: measured when first needed, from so many samples of a seed."""

    G: Generator
    samples: int
    seed: int = 0
    _measured: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, c: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
        """Mean [N,w_dim] and root mean squared distance from it [N,1,1], of the class of each of `count` images.

        Raises UserError for classes that the network does not have, and for none where it has some.
        """
        if c is not None and not self.G.config.num_classes:
            raise UserError("this network is unconditional: it has no classes to choose from")
        kinds = [0] * count if c is None else c.tolist()
        for kind in sorted(set(kinds) - self._measured.keys()):
            self._measured[kind] = self._measure(None if c is None else kind)
        means, deviations = zip(*(self._measured[kind] for kind in kinds), strict=True)
        return torch.stack(means), torch.stack(deviations)[:, None, None]

    @torch.no_grad()
    def _measure(self, kind: int | None) -> tuple[Tensor, Tensor]:
        G, device = self.G, self.G.device
        rows = []
        for start in range(0, self.samples, W_BATCH):
            rest = min(W_BATCH, self.samples - start)
            random = generator(self.seed, "projection centre", start)
            z = torch.from_numpy(random.standard_normal((rest, G.config.z_dim), dtype="float32")).to(device)
            rows.append(G.mapping(z, None if kind is None else torch.full((rest,), kind, device=device)))
        w = torch.cat(rows)
        mean = w.mean(dim=0)
        return mean, (w - mean).square().sum(dim=1).mean().sqrt()


# The regulariser of the noise maps, which must remain noise (appendix D)


def autocorrelation(maps: Sequence[Tensor]) -> Tensor:
    """How far maps [N,1,H,W] are from white noise, [N]: squared correlation with themselves, shifted by one, each way.

    Summed over the maps and, by averaging 2x2 (which keeps white noise white if doubled), over scales down to 8 pixels.
    """
    total = maps[0].new_zeros(len(maps[0]))
    waiting = sorted(maps, key=lambda m: m.shape[2])
    while waiting:
        # All maps of a size at once, the reduced ones among them: a few operations for each size, not for each map.
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
    """Bring each map of each image to mean 0 and variance 1, in place."""
    for m in maps:
        m -= m.mean(dim=(1, 2, 3), keepdim=True)
        m *= m.square().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12).rsqrt()


# What searches and pivotal tuning share


def check_targets(snapshot: Snapshot, targets: Tensor) -> None:
    """Raises UserError unless the network has a w, and the targets are finite and of the size of its images."""
    require_w(snapshot.G)
    wanted = [snapshot.config.channels, *snapshot.config.size(snapshot.stage.resolution)]
    if targets.ndim != 4 or list(targets.shape[1:]) != wanted or not len(targets):
        raise UserError(f"images to project must be [N, {', '.join(map(str, wanted))}], got {list(targets.shape)}")
    if not bool(targets.isfinite().all()):
        raise UserError("images to project contain numbers that are not finite; scale them to [-1, 1]")


def check_start(snapshot: Snapshot, start: Latents, count: int) -> None:
    """Raises UserError unless a search for `count` images can start at these latents."""
    if len(start) not in (1, count):
        raise UserError(f"there are {len(start)} latents to start at, for {count} images; give one for all, or one for "
                        "each")  # fmt: skip
    if start.styles:
        raise UserError(
            "the latents to start at change styles, which a search cannot; start at those before the change"
        )
    require_ws(start.ws, snapshot.config)
    require_fit("the latents to start at", start, snapshot)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of feature maps of a search. Its result is measured in float32."""
    short = fast_bf16(device) if name == "auto" else name == "bfloat16"
    return torch.bfloat16 if short else torch.float32


@torch.no_grad()
def measure(
    snapshot: Snapshot, targets: Tensor, ws: Tensor, noise: Sequence[Tensor], distance: AnyDistance
) -> tuple[Tensor, Tensor, Tensor]:
    """The images [N,C,H,W] of ws [N,L,w_dim], their distances [N] and mean square errors [N] to targets, on the CPU."""
    images = snapshot.renderer.draw(ws, list(noise) or "const")
    return images, distances_between(images, targets, distance, snapshot.device), mean_square_errors(images, targets)


@torch.no_grad()
def distances_between(images: Tensor, targets: Tensor, distance: AnyDistance, device: torch.device) -> Tensor:
    """Distance [N] of each image to its target, both [N,C,H,W], each pair by itself: the same in any batch."""
    pairs = zip(images.split(1), targets.split(1), strict=True)
    return torch.cat([distance(a.to(device), b.to(device)).cpu() for a, b in pairs])


def mean_square_errors(images: Tensor, targets: Tensor) -> Tensor:
    """Mean square error [N] of each image to its target, both [N,C,H,W], on the CPU."""
    return torch.stack([(a - b).square().mean() for a, b in zip(images.cpu(), targets.cpu(), strict=True)])


@contextmanager
def _workers(G: Generator, count: int) -> Iterator[tuple[list[slice], Callable[..., Any]]]:
    """Parts of `count` images, and a `map` that works on them side by side: on a CPU, one thread for each part.

    That is faster than all threads in every operation of a small network. One image gets all threads.
    """
    parts = min(torch.get_num_threads(), count) if G.device.type == "cpu" else 1
    if parts == 1:
        yield [slice(0, count)], map
        return
    edges = [count * i // parts for i in range(parts + 1)]
    with single_thread_workers(parts) as run:
        yield [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)], run
