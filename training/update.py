"""One training step: the discriminator learns, the average follows, the generator learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stylegan.generator import Generator
from torch_utils.adam import Adam
from torch_utils.ema import track
from training.config import RunConfig
from training.inputs import Inputs, draw
from training.schedule import Stage
from training.state import TrainState, lazy_factor
from training.step import Game, Stats, discriminator_terms, generator_loss, make_fakes

W_AVG_BETA = 0.995


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


def update(
    state: TrainState, reals: Reals, stage: Stage, cfg: RunConfig, labels: np.ndarray | None, dtype: torch.dtype
) -> Outcome:
    """Train on one batch. A half whose numbers are not all finite leaves its network as it was.

    The order is the published one: D, then the average (of G before this step), then G. `state.nimg` is not advanced.
    labels: classes of the data set, from which the fakes draw theirs.
    """
    game = Game(cfg.loss, stage, cfg.model.resolution, dtype)
    device = reals.images.device
    positions = range(state.nimg, state.nimg + stage.batch)
    parts = stage.batch // min(stage.batch, cfg.batch_gpu or stage.batch)
    # A rollback must not walk into the same wall again, so it also changes the random numbers.
    salt = f"/{state.rollbacks}" if state.rollbacks else ""

    def inputs(half: str) -> Inputs:
        return draw(cfg.model, cfg.seed, half + salt, positions, stage.resolution, labels, device)

    penalty = _penalty_weight(state.nimg, stage.batch, cfg.loss.r1_interval)

    def d_part(real: Reals, fed: Inputs) -> Iterable[tuple[Tensor, Stats]]:
        with torch.no_grad():
            fakes, w = make_fakes(state.G, fed, game)
            move_w_avg(state.G, w, len(real.images) / stage.batch)
        return discriminator_terms(state.D, real.images, real.c, fakes, fed, game, penalty)

    def g_part(real: Reals, fed: Inputs) -> Iterable[tuple[Tensor, Stats]]:
        fakes, w = make_fakes(state.G, fed, game)
        move_w_avg(state.G, w, len(real.images) / stage.batch)
        return [generator_loss(state.D, fakes, fed, real.images, real.c, game)]

    state.D.requires_grad_(True)
    d_stats, d_bad = _descend(
        state.D, state.opt_d, d_part, reals, inputs("d"), parts, stage.lr * lazy_factor(cfg.loss.r1_interval)
    )
    if d_bad:  # nothing has moved yet, and nothing shall: G would learn from a judge that is out of its mind
        return Outcome(d_stats, f"D's {d_bad}")
    track(state.G_ema, state.G, _halflife(cfg, state.nimg), stage.batch)
    # No gradients for D's weights while G learns: that is a third of the work of this half.
    state.D.requires_grad_(False)
    g_stats, g_bad = _descend(state.G, state.opt_g, g_part, reals, inputs("g"), parts, stage.lr)
    stats = {**d_stats, **g_stats, "norm_d": d_stats["norm"], "norm_g": g_stats["norm"]}
    return Outcome(stats, f"G's {g_bad}" if g_bad else None)


def _descend(
    net: nn.Module, optimizer: Adam, terms_of: Callable[[Reals, Inputs], Iterable[tuple[Tensor, Stats]]],
    reals: Reals, inputs: Inputs, parts: int, lr: float,
) -> tuple[Stats, str | None]:  # fmt: skip
    """Add up the gradients of the parts of a batch and step, unless something is not finite. Returns stats and culprit.

    The scores and losses are looked at too: an infinite score can have a gradient of zero, so as to look like peace.
    """
    optimizer.zero_grad()
    total: Stats = {}
    for real, fed in zip(reals.split(parts), inputs.split(parts), strict=True):
        for loss, stats in terms_of(real, fed):
            (loss / parts).backward()
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value / parts
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    total["norm"] = torch.stack(torch._foreach_norm(grads)).norm()
    if not torch.stack([*total.values()]).isfinite().all():
        return total, _first_bad(net, total)
    optimizer.step(lr)
    return total, None


def _first_bad(net: nn.Module, stats: Stats) -> str:
    """The first layer with a gradient that is not finite; if they all are, the first of the stats."""
    for name, p in net.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            return f"gradient of {name}"
    return next(f"mean of '{name}'" for name, value in stats.items() if not value.isfinite())


def move_w_avg(G: Generator, w: Tensor | None, share: float) -> None:
    """Move the running average of w towards the mean of this batch, or of the given share of it.

    Where the mean is not finite the average stays: it would never recover.
    """
    if w is not None:
        mean, average = w.detach().mean(dim=0), G.mapping.w_avg
        average.lerp_(torch.where(mean.isfinite(), mean, average), 1 - W_AVG_BETA**share)


def _penalty_weight(nimg: int, batch: int, interval: int) -> float:
    """Lazy regularisation: every `interval` steps, and as many times as strong (StyleGAN2, section 3.1)."""
    return float(interval) if nimg // batch % interval == 0 else 0.0


def _halflife(cfg: RunConfig, nimg: int) -> float:
    return cfg.ema_kimg if cfg.ema_ramp is None else min(cfg.ema_kimg, nimg * cfg.ema_ramp / 1000)
