"""One training step: the discriminator learns, the average follows, the generator learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from stylegan.generator import Generator
from torch_utils.adam import Adam
from torch_utils.distributed import ALONE, World, add_up, add_up_gradients
from torch_utils.ema import track
from training.config import RunConfig
from training.inputs import Inputs, draw
from training.schedule import Stage
from training.state import TrainState, lazy_factor
from training.step import Game, Stats, discriminator_terms, generator_loss, make_fakes

W_AVG_BETA = 0.995
REDUCED = {"fp32": torch.float32, "bf16": torch.bfloat16}

Part = tuple[Iterable[tuple[Tensor, Stats]], Tensor | None]


@dataclass(frozen=True)
class Reals:
    """Pictures [N,C,H,W] in [-1, 1], already faded, and their classes [N] or None."""

    images: Tensor
    c: Tensor | None

    def split(self, parts: int) -> Iterator[Reals]:
        """In equal parts, each of every parts-th picture: `Inputs.split` says why."""
        for start in range(parts):
            part = slice(start, None, parts)
            yield Reals(self.images[part], None if self.c is None else self.c[part])


@dataclass(frozen=True)
class Outcome:
    """What a step reports, and the first thing in it that was not finite, if there was one."""

    stats: Stats
    bad: str | None


@dataclass(frozen=True)
class Half:
    """One network's half of a step. terms_of: the terms of its loss for a part of the batch, and w [N,w_dim]."""

    name: str
    net: nn.Module
    optimizer: Adam
    terms_of: Callable[[Reals, Inputs], Part]
    lr: float


def update(
    state: TrainState, reals: Reals, stage: Stage, cfg: RunConfig, labels: np.ndarray | None, dtype: torch.dtype,
    world: World = ALONE,
) -> Outcome:  # fmt: skip
    """Train on one batch. A half whose numbers are not all finite leaves its network as it was.

    The order is the published one: D, then the average (of G before this step), then G. `state.nimg` is not advanced.
    reals: this process's share of the batch, every `world.size`-th picture of it from its rank on
    labels: classes of the data set, from which the fakes draw theirs.
    """
    game = Game(cfg.loss, stage, cfg.model.resolution, dtype)
    device = reals.images.device
    positions = range(state.nimg + world.rank, state.nimg + stage.batch, world.size)
    # A rollback must not walk into the same wall again, so it also changes the random numbers.
    salt = f"/{state.rollbacks}" if state.rollbacks else ""

    def inputs(half: str) -> Inputs:
        drawn = draw(cfg.model, cfg.seed, half + salt, positions, stage.resolution, labels, device)
        # A relativistic score compares a real and a made picture: of one class, or it is the classes that differ.
        return replace(drawn, c=reals.c) if cfg.loss.name == "relativistic" else drawn

    penalty = _penalty_weight(state.nimg, stage.batch, cfg.loss.r1_interval)

    def d_part(real: Reals, fed: Inputs) -> Part:
        with torch.no_grad():
            fakes, w = make_fakes(state.G, fed, game)
        return discriminator_terms(state.D, real.images, real.c, fakes, fed, game, penalty), w

    def g_part(real: Reals, fed: Inputs) -> Part:
        fakes, w = make_fakes(state.G, fed, game)
        return [generator_loss(state.D, fakes, fed, real.images, real.c, game)], w

    state.D.requires_grad_(True)
    d_half = Half("D", state.D, state.opt_d, d_part, stage.lr * lazy_factor(cfg.loss.r1_interval))
    d_stats, w_mean, d_bad = _descend(d_half, reals, inputs("d"), cfg, world)
    move_w_avg(state.G, w_mean)
    if d_bad:  # nothing has moved yet, and nothing shall: G would learn from a judge that is out of its mind
        return Outcome(d_stats, f"D's {d_bad}")
    track(state.G_ema, state.G, _halflife(cfg, state.nimg), stage.batch)
    # No gradients for D's weights while G learns: that is a third of the work of this half.
    state.D.requires_grad_(False)
    g_half = Half("G", state.G, state.opt_g, g_part, stage.lr * cfg.optim.g_share)
    g_stats, w_mean, g_bad = _descend(g_half, reals, inputs("g"), cfg, world)
    move_w_avg(state.G, w_mean)
    stats = {**d_stats, **g_stats, "norm_d": d_stats["norm"], "norm_g": g_stats["norm"]}
    return Outcome(stats, f"G's {g_bad}" if g_bad else None)


def _descend(
    half: Half, reals: Reals, inputs: Inputs, cfg: RunConfig, world: World
) -> tuple[Stats, Tensor | None, str | None]:
    """Add up the gradients of the parts of a batch and step, unless something is not finite.

    The parts are the rounds of this process and of all others; each part is of every so many-th picture of the batch,
    so that the groups of the minibatch deviation are the same however many processes and rounds there are. All
    processes get the same sums to the last bit, find the same culprit, and take the same step.
    The scores and losses are looked at too: an infinite score can have a gradient of zero, so as to look like peace.
    Returns stats, the mean of w [w_dim] (None for ProGAN), and the culprit.
    """
    half.optimizer.zero_grad()
    share = len(reals.images)
    rounds = share // min(share, cfg.batch_gpu or share)
    parts = rounds * world.size
    total: Stats = {}
    w_mean: Tensor | None = None
    for real, fed in zip(reals.split(rounds), inputs.split(rounds), strict=True):
        terms, w = half.terms_of(real, fed)
        for loss, stats in terms:
            (loss / parts).backward()
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value / parts
        if w is not None:
            mean = w.detach().mean(dim=0) / parts
            w_mean = mean if w_mean is None else w_mean + mean
    total, w_mean = _over_all(world, half.name, total, w_mean)
    add_up_gradients(world, f"gradients of {half.name}", half.optimizer.params, REDUCED[cfg.reduce])
    grads = [p.grad for p in half.net.parameters() if p.grad is not None]
    total["norm"] = torch.stack(torch._foreach_norm(grads)).norm()
    if not torch.stack([*total.values()]).isfinite().all():
        return total, w_mean, _first_bad(half.net, total)
    half.optimizer.step(half.lr)
    return total, w_mean, None


def _over_all(world: World, half: str, stats: Stats, w_mean: Tensor | None) -> tuple[Stats, Tensor | None]:
    """The sums of all processes, in one collective."""
    if world.size == 1:
        return stats, w_mean
    scalars = torch.stack([*stats.values()])
    flat = scalars if w_mean is None else torch.cat([scalars, w_mean])
    add_up(world, f"losses of {half}", flat)
    summed = dict(zip(stats, flat[: len(stats)], strict=True))
    return summed, None if w_mean is None else flat[len(stats) :]


def _first_bad(net: nn.Module, stats: Stats) -> str:
    """The first layer with a gradient that is not finite; if they all are, the first of the stats."""
    for name, p in net.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            return f"gradient of {name}"
    return next(f"mean of '{name}'" for name, value in stats.items() if not value.isfinite())


def move_w_avg(G: Generator, mean: Tensor | None) -> None:
    """Move the running average of w towards `mean` [w_dim], that of a batch. Nothing moves without one.

    Where the mean is not finite the average stays: it would never recover.
    """
    if mean is not None:
        average = G.mapping.w_avg
        average.lerp_(torch.where(mean.isfinite(), mean, average), 1 - W_AVG_BETA)


def _penalty_weight(nimg: int, batch: int, interval: int) -> float:
    """Lazy regularisation: every `interval` steps, and as many times as strong (StyleGAN2, section 3.1)."""
    return float(interval) if nimg // batch % interval == 0 else 0.0


def _halflife(cfg: RunConfig, nimg: int) -> float:
    return cfg.ema_kimg if cfg.ema_ramp is None else min(cfg.ema_kimg, nimg * cfg.ema_ramp / 1000)
