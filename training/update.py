"""One training step: the discriminator learns, the average follows, the generator learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from stylegan.networks.generator import Generator
from torch_utils.adam import Adam, track
from torch_utils.device import return_freed_memory
from torch_utils.distributed import SINGLE_PROCESS, DistContext, all_reduce_gradients, all_reduce_max, all_reduce_sum
from training.config import RunConfig
from training.inputs import Inputs, draw
from training.micro_batches import fewer, portions, too_large, unless_short
from training.schedule import Stage
from training.state import TrainState, lazy_factor
from training.step import Game, Sight, Stats, discriminator_terms, generator_loss, look, make_fakes

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
    """What a step reports, and the first thing in it that was not finite, if there was one.

    fewer: pictures that are worked on at once from now on, where memory did not suffice for as many as before
    """

    stats: Stats
    bad: str | None
    fewer: int | None = None


@dataclass(frozen=True)
class Half:
    """One network's half of a step. terms_of: the terms of its loss for a part of the batch, and w [N,w_dim].

    classes: how many the networks have, 0 for none
    """

    name: str
    net: nn.Module
    optimizer: Adam
    terms_of: Callable[[Reals, Inputs], Part]
    lr: float
    classes: int


@dataclass(frozen=True)
class Descent:
    """What a half has come to. w: as `w_by_class`, None for ProGAN   bad: as in `Outcome`   at_once: at the end"""

    stats: Stats
    w: Tensor | None
    bad: str | None
    at_once: int


def update(
    state: TrainState, reals: Reals, stage: Stage, cfg: RunConfig, labels: np.ndarray | None, dtype: torch.dtype,
    dist: DistContext = SINGLE_PROCESS,
) -> Outcome:  # fmt: skip
    """Train on one batch. A half whose numbers are not all finite leaves its network as it was.

    The order is the published one: D, then the average (of G before this step), then G. `state.nimg` is not advanced.
    reals: this process's share of the batch, every `dist.world_size`-th picture of it from its rank on
    labels: classes of the data set, from which the fakes draw theirs.
    """
    device = reals.images.device
    positions = range(state.nimg + dist.rank, state.nimg + stage.batch, dist.world_size)
    # A rollback must not walk into the same wall again, so it also changes the random numbers.
    salt = f"/{state.rollbacks}" if state.rollbacks else ""

    def descend(half: Half, at_once: int) -> Descent:
        stream, augmented = "g" if cfg.loss.share_fakes else half.name.lower(), bool(cfg.loss.diffaugment)
        inputs = draw(cfg.model, cfg.seed, stream + salt, positions, stage.resolution, labels, device, augmented)
        if cfg.loss.name == "relativistic":
            # A score compares a real and a made picture: of one class, or it is the classes that differ.
            inputs = replace(inputs, c=reals.c)
        found = _descend(half, reals, inputs, cfg, dist, at_once)
        move_w_avg(state.G, found.w)
        state.at_once[stage.resolution] = found.at_once
        return found

    at_once = state.at_once.get(stage.resolution) or portions(len(reals.images), 1, cfg.batch_gpu)[0]
    penalty = _penalty_weight(state.nimg, stage.batch, cfg.loss.r1_interval)
    d_half, g_half = halves(state, stage, cfg, dtype, penalty, len(reals.images))
    state.judges.requires_grad_(True)
    d = descend(d_half, at_once)
    if d.bad:  # nothing has moved yet, and nothing shall: G would learn from a judge that is out of its mind
        return Outcome(d.stats, f"D's {d.bad}", d.at_once if d.at_once < at_once else None)
    track(state.G_ema, state.G, _halflife(cfg, state.nimg), stage.batch)
    # No gradients for D's weights while G learns: that is a third of the work of this half.
    state.judges.requires_grad_(False)
    g = descend(g_half, d.at_once)
    stats = {**d.stats, **g.stats, "norm_d": d.stats["norm"], "norm_g": g.stats["norm"]}
    return Outcome(stats, f"G's {g.bad}" if g.bad else None, g.at_once if g.at_once < at_once else None)


def halves(
    state: TrainState, stage: Stage, cfg: RunConfig, dtype: torch.dtype, penalty: float, share: int
) -> tuple[Half, Half]:  # fmt: skip
    """The discriminator's half of a step, and the generator's.

    Where they share the fakes, these are kept from the one to the other with all that leads back to G, if they are the
    whole share of this process; those of parts are made anew, which takes no more memory than one part does.
    penalty: see `discriminator_terms`   share: pictures of the batch that are this process's
    """
    game = Game(cfg.loss, stage, cfg.model.resolution, dtype, state.aid)
    kept: list[Sight] = []

    def sight_of(real: Reals, fed: Inputs) -> tuple[Sight, Tensor | None]:
        fakes, w = make_fakes(state.G, fed, game)
        return look(real.images, fakes, fed, game), w

    def d_part(real: Reals, fed: Inputs) -> Part:
        kept.clear()  # of a try for which memory did not suffice
        keep = cfg.loss.share_fakes and len(real.images) == share
        with torch.set_grad_enabled(keep):
            sight, w = sight_of(real, fed)
        if keep:
            kept.append(sight)
        return discriminator_terms(state.D, sight, real.c, fed, game, penalty), w

    def g_part(real: Reals, fed: Inputs) -> Part:
        sight, w = (kept.pop(), None) if kept else sight_of(real, fed)
        w = None if cfg.loss.share_fakes else w  # it has been counted
        return [generator_loss(state.D, sight, real.c, fed, game)], w

    d_lr, g_lr = stage.lr * lazy_factor(cfg.loss.r1_interval), stage.lr * cfg.optim.g_share
    classes = cfg.model.num_classes
    d_half = Half("D", state.judges, state.opt_d, d_part, d_lr, classes)
    return d_half, Half("G", state.G, state.opt_g, g_part, g_lr, classes)


def _descend(half: Half, reals: Reals, inputs: Inputs, cfg: RunConfig, dist: DistContext, at_once: int) -> Descent:
    """Add up the gradients of the parts of a batch and step, unless something is not finite.

    The parts are the rounds of this process and of all others; each part is of every so many-th picture of the batch,
    so that the groups of the minibatch deviation are the same however many processes and rounds there are. All
    processes get the same sums to the last bit, find the same culprit, and take the same step.
    The scores and losses are looked at too: an infinite score can have a gradient of zero, so as to look like peace.
    at_once: pictures in a part. Where memory runs out they become fewer, and all rounds are done anew; that is before
    the processes add up anything together, so that those who are done wait as they would for one that is slow.
    """
    device, share, group = reals.images.device, len(reals.images), cfg.model.mbstd_group
    height, width = reals.images.shape[2:]
    fitting, sums = at_once, None
    while sums is None:
        smaller = fewer(fitting, share, group, cfg.batch_gpu)
        last_word = "" if smaller else too_large((height, width), fitting, group)
        sums = unless_short(partial(_accumulate, half, reals, inputs, share // fitting, dist.world_size), last_word)
        if sums is None and smaller:
            half.optimizer.zero_grad()
            return_freed_memory(device)
            fitting = smaller
    total, w, short = _over_all(dist, half.name, *sums, fitting < at_once)
    all_reduce_gradients(dist, f"gradients of {half.name}", half.optimizer.params, REDUCED[cfg.reduce])
    grads = [p.grad for p in half.net.parameters() if p.grad is not None]
    total["norm"] = torch.stack(torch._foreach_norm(grads)).norm()
    finite = bool(torch.stack([*total.values()]).isfinite().all())
    if short > 0:
        fitting = -all_reduce_max(dist, "memory", -fitting)
    bad = None if finite else _first_bad(half.net, total)
    if finite:
        half.optimizer.step(half.lr)
    half.optimizer.zero_grad()  # the other half needs the memory
    return Descent(total, w, bad, fitting)


def _accumulate(
    half: Half, reals: Reals, inputs: Inputs, rounds: int, processes: int
) -> tuple[Stats, Tensor | None]:  # fmt: skip
    """Add the gradients of this process to its parameters'. Returns its part of the stats and `w_by_class`."""
    parts = rounds * processes
    total: Stats = {}
    w_sums: Tensor | None = None
    for real, fed in zip(reals.split(rounds), inputs.split(rounds), strict=True):
        terms, w = half.terms_of(real, fed)
        for loss, stats in terms:
            (loss / parts).backward()
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value / parts
        if w is not None:
            sums = w_by_class(w.detach(), fed.c, half.classes)
            w_sums = sums if w_sums is None else w_sums + sums
    return total, w_sums


def _over_all(
    dist: DistContext, half: str, stats: Stats, w: Tensor | None, short: bool
) -> tuple[Stats, Tensor | None, Tensor | int]:  # fmt: skip
    """The sums of all processes, in one collective; the last is of how many were short of memory."""
    if dist.world_size == 1:
        return stats, w, 0
    scalars = torch.stack([*stats.values()])
    flat = torch.cat([scalars, scalars.new_tensor([float(short)]), *([] if w is None else [w.flatten()])])
    all_reduce_sum(dist, f"losses of {half}", flat)
    summed = dict(zip(stats, flat[: len(stats)], strict=True))
    return summed, None if w is None else flat[len(stats) + 1 :].view_as(w), flat[len(stats)]


def _first_bad(net: nn.Module, stats: Stats) -> str:
    """The first layer with a gradient that is not finite; if they all are, the first of the stats."""
    for name, p in net.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            return f"gradient of {name}"
    return next(f"mean of '{name}'" for name, value in stats.items() if not value.isfinite())


def w_by_class(w: Tensor, c: Tensor | None, classes: int) -> Tensor:
    """w [N,w_dim] added up by class, and how many there were in the last column: [classes,w_dim+1]; one row without."""
    of_class = w.new_ones(len(w), 1) if c is None or not classes else one_hot(c, classes).to(w)
    return of_class.T @ torch.cat([w, w.new_ones(len(w), 1)], dim=1)


def move_w_avg(G: Generator, sums: Tensor | None) -> None:
    """Move the running average of w of each class towards its mean in a batch, from `w_by_class`.

    A class moves the farther the more of the batch it is, so that each remembers equally many of its own pictures.
    Nothing moves without sums, and where a mean is not finite the average stays: it would never recover.
    """
    if sums is not None:
        average = G.mapping.w_avg.view(len(sums), -1)
        counts = sums[:, -1:]
        mean = sums[:, :-1] / counts
        share = counts / counts.mean().clamp(min=1)  # of more classes than pictures, none must forget all at once
        average.lerp_(torch.where(mean.isfinite(), mean, average), 1 - W_AVG_BETA**share)


def _penalty_weight(nimg: int, batch: int, interval: int) -> float:
    """Lazy regularisation: every `interval` steps, and as many times as strong (StyleGAN2, section 3.1)."""
    return float(interval) if nimg // batch % interval == 0 else 0.0


def _halflife(cfg: RunConfig, nimg: int) -> float:
    return cfg.ema_kimg if cfg.ema_ramp is None else min(cfg.ema_kimg, nimg * cfg.ema_ramp / 1000)
