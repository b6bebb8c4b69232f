"""One training step: the discriminator learns, the average follows, the generator learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from stylegan.generator import Generator
from torch_utils.ema import track
from training.config import RunConfig
from training.inputs import Inputs, draw
from training.schedule import Stage
from training.state import TrainState, lazy_factor
from training.step import Game, Stats, discriminator_loss, generator_loss, make_fakes

W_AVG_BETA = 0.995


@dataclass(frozen=True)
class Reals:
    """Pictures [N,C,H,W] in [-1, 1], already faded, and their classes [N] or None."""

    images: Tensor
    c: Tensor | None

    def split(self, size: int) -> Iterator[Reals]:
        for start in range(0, len(self.images), size):
            part = slice(start, start + size)
            yield Reals(self.images[part], None if self.c is None else self.c[part])


@dataclass(frozen=True)
class Outcome:
    """What a step reports, and the first parameter with a non-finite gradient, if there was one."""

    stats: Stats
    bad: str | None


def update(
    state: TrainState, reals: Reals, stage: Stage, cfg: RunConfig, labels: np.ndarray | None, dtype: torch.dtype
) -> Outcome:
    """Train on one batch. A half whose gradients are not finite leaves its network as it was.

    The order is the published one: D, then the average (of G before this step), then G. `state.nimg` is not advanced.
    labels: classes of the data set, from which the fakes draw theirs.
    """
    game = Game(cfg.loss, stage, cfg.model.resolution, dtype)
    device = reals.images.device
    positions = range(state.nimg, state.nimg + stage.batch)
    part = min(stage.batch, cfg.batch_gpu or stage.batch)
    # A rollback must not walk into the same wall again, so it also changes the random numbers.
    salt = f"/{state.rollbacks}" if state.rollbacks else ""

    def inputs(half: str) -> Inputs:
        return draw(cfg.model, cfg.seed, half + salt, positions, stage.resolution, labels, device)

    penalty = _penalty_weight(state.nimg, stage.batch, cfg.loss.r1_interval)

    def d_part(real: Reals, fed: Inputs) -> tuple[Tensor, Stats]:
        with torch.no_grad():
            fakes, w = make_fakes(state.G, fed, game)
            move_w_avg(state.G, w, len(real.images) / stage.batch)
        return discriminator_loss(state.D, real.images, real.c, fakes, fed, game, penalty)

    def g_part(real: Reals, fed: Inputs) -> tuple[Tensor, Stats]:
        fakes, w = make_fakes(state.G, fed, game)
        move_w_avg(state.G, w, len(real.images) / stage.batch)
        return generator_loss(state.D, fakes, fed, real.images, real.c, game)

    state.D.requires_grad_(True)
    d_stats, d_bad = _descend(
        state.D, state.opt_d, d_part, reals, inputs("d"), part, stage.lr * lazy_factor(cfg.loss.r1_interval)
    )
    track(state.G_ema, state.G, _halflife(cfg, state.nimg), stage.batch)
    # No gradients for D's weights while G learns: that is a third of the work of this half.
    state.D.requires_grad_(False)
    g_stats, g_bad = _descend(state.G, state.opt_g, g_part, reals, inputs("g"), part, stage.lr)
    bad = f"D.{d_bad}" if d_bad else f"G.{g_bad}" if g_bad else None
    return Outcome({**d_stats, **g_stats, "norm_d": d_stats["norm"], "norm_g": g_stats["norm"]}, bad)


def _descend(
    net: nn.Module, optimizer: Adam, loss_of: Callable[[Reals, Inputs], tuple[Tensor, Stats]],
    reals: Reals, inputs: Inputs, part: int, lr: float,
) -> tuple[Stats, str | None]:  # fmt: skip
    """Add up the gradients of the parts of a batch and step, unless they are not finite. Returns stats and culprit."""
    optimizer.zero_grad(set_to_none=True)
    total: Stats = {}
    share = part / len(reals.images)
    for real, fed in zip(reals.split(part), inputs.split(part), strict=True):
        loss, stats = loss_of(real, fed)
        (loss * share).backward()
        for name, value in stats.items():
            total[name] = total.get(name, 0) + value * share
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    norm = torch.stack(torch._foreach_norm(grads)).norm()
    total["norm"] = norm
    if not math.isfinite(norm.item()):
        return total, _first_bad(net)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return total, None


def _first_bad(net: nn.Module) -> str:
    for name, p in net.named_parameters():
        if p.grad is not None and not torch.isfinite(p.grad).all():
            return name
    return "sum of the gradients' squares"


def move_w_avg(G: Generator, w: Tensor | None, share: float) -> None:
    """Move the running average of w towards the mean of this batch, or of the given share of it."""
    if w is not None:
        G.mapping.w_avg.lerp_(w.detach().mean(dim=0), 1 - W_AVG_BETA**share)


def _penalty_weight(nimg: int, batch: int, interval: int) -> float:
    """Lazy regularisation: every `interval` steps, and as many times as strong (StyleGAN2, section 3.1)."""
    return float(interval) if nimg // batch % interval == 0 else 0.0


def _halflife(cfg: RunConfig, nimg: int) -> float:
    return cfg.ema_kimg if cfg.ema_ramp is None else min(cfg.ema_kimg, nimg * cfg.ema_ramp / 1000)
