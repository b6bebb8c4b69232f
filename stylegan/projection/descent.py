"""Gradient descent on latents of several pictures at once, each as if it were alone, in steps that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylegan.generator import Generator
from stylegan.projection.distance import Against, AnyDistance, against
from stylegan.projection.noise_maps import autocorrelation, normalize
from stylegan.projection.settings import Moment, ProjectionSettings, Watch, jitter, ramp
from torch_utils.adam import Adam
from torch_utils.rng import generator

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
        ws = ws.expand(-1, descent.G.num_ws, -1)
        pictures = descent.G.synthesis(ws, noise=leaves[1:] or "none", dtype=descent.dtype)
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
    threads = torch.get_num_threads()
    shares = min(threads, count) if next(G.parameters()).device.type == "cpu" else 1
    if shares == 1:
        yield [slice(0, count)], map
        return
    edges = [count * i // shares for i in range(shares + 1)]
    pool = ThreadPoolExecutor(shares, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)], pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # this thread kept its number, but new ones would get the pool's
