"""One training step: the discriminator learns, the averaged generator follows, the generator learns.

A step is two phases, each with a loss and an optimiser (StyleGAN's order: D before G). A phase works its batch off in
micro-batches whose gradients add up, over rounds and over processes, to what the batch at once would have given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from stylegan.networks.base import Generator
from torch_utils.adam import Adam, track
from torch_utils.device import return_freed_memory
from torch_utils.distributed import SINGLE_PROCESS, DistContext, all_reduce_gradients, all_reduce_max, all_reduce_sum
from torch_utils.errors import UserError
from training.config import RunConfig
from training.inputs import Batch, Inputs, draw
from training.losses import GANLoss, Regulariser, Stats, Terms, regularisers
from training.schedule import TrainingStage
from training.state import TrainState, lazy_factor

W_AVG_BETA = 0.995
REDUCED = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Phase:
    """One network's part of a step. loss: the terms of its loss for a micro-batch, and w [N,w_dim] where there is one.

    num_classes: how many the networks have, 0 for none
    """

    name: str
    net: nn.Module
    optimizer: Adam
    loss: Callable[[Batch, Inputs], Terms]
    lr: float
    num_classes: int


@dataclass(frozen=True)
class StepResult:
    """What a phase or a step reports, and the first thing in it that was not finite, if there was one.

    micro_batch: images worked on at once at its end   w: see `w_by_class`; None for a network without w
    fewer: the same, of a step in which memory did not suffice for as many as before
    """

    stats: Stats
    bad: str | None
    micro_batch: int
    w: Tensor | None = None
    fewer: int | None = None


def train_step(
    state: TrainState, reals: Batch, stage: TrainingStage, cfg: RunConfig, labels: np.ndarray | None,
    dtype: torch.dtype, dist: DistContext = SINGLE_PROCESS,
) -> StepResult:  # fmt: skip
    """Train on one batch. A phase whose numbers are not all finite leaves its network as it was.

    The order is the published one: D, then the average (of G before this step), then G. `state.nimg` is not advanced.
    reals: this process's share of the batch, every `dist.world_size`-th image of it from its rank on
    labels: classes of the data set, from which the generated images draw theirs.
    """
    device = reals.images.device
    positions = range(state.nimg + dist.rank, state.nimg + stage.batch, dist.world_size)
    # After a rollback the random numbers are others, or the same step would diverge again.
    salt = f"/{state.rollbacks}" if state.rollbacks else ""

    def inputs_of(phase: Phase) -> Inputs:
        stream, augmented = "g" if cfg.loss.share_fakes else phase.name.lower(), bool(cfg.loss.diffaugment)
        inputs = draw(cfg.model, cfg.seed, stream + salt, positions, stage.resolution, labels, device, augmented)
        if cfg.loss.name == "relativistic":
            # A score compares a real and a generated image: of one class, or it is the classes that differ.
            inputs = replace(inputs, c=reals.c)
        return inputs

    if not state.micro_batch.get(stage.resolution):
        state.micro_batch[stage.resolution] = micro_batch_sizes(len(reals.images), 1, cfg.batch_gpu)[0]
    before = state.micro_batch[stage.resolution]
    weights = {r.name: r.weight_at(state.nimg, stage) for r in regularisers(cfg.loss)}
    d_phase, g_phase = phases(state, stage, cfg, dtype, weights, len(reals.images))
    state.discriminators.requires_grad_(True)
    d = run_phase(d_phase, reals, inputs_of(d_phase), cfg, dist, before)
    _note(state, stage, d)
    if d.bad:  # D has diverged: skip G's phase, nothing has been updated yet
        return replace(d, bad=f"D's {d.bad}", fewer=_fewer(d, before))
    track(state.G_ema, state.G, _halflife(cfg, state.nimg), stage.batch)
    # No gradients for D's weights while G learns: that is a third of the work of this phase.
    state.discriminators.requires_grad_(False)
    g = run_phase(g_phase, reals, inputs_of(g_phase), cfg, dist, d.micro_batch)
    _note(state, stage, g)
    stats = {**d.stats, **g.stats, "norm_d": d.stats["norm"], "norm_g": g.stats["norm"]}
    return replace(g, stats=stats, bad=f"G's {g.bad}" if g.bad else None, fewer=_fewer(g, before))


def _note(state: TrainState, stage: TrainingStage, result: StepResult) -> None:
    """What a phase has found out: the mean w of its images, and how many of them memory has room for."""
    move_w_avg(state.G, result.w)
    state.micro_batch[stage.resolution] = result.micro_batch


def _fewer(result: StepResult, before: int) -> int | None:
    return result.micro_batch if result.micro_batch < before else None


def phases(
    state: TrainState, stage: TrainingStage, cfg: RunConfig, dtype: torch.dtype, weights: dict[str, float], share: int
) -> tuple[Phase, Phase]:  # fmt: skip
    """The discriminator's phase of a step, and the generator's.

    weights: of the regularisers in this step   share: images of the batch that are this process's
    """
    loss = GANLoss(cfg.loss, state.G, state.D, state.vision_aid, stage, cfg.model.resolution, dtype, weights, share)
    every = {name: lazy_factor(_interval(regularisers(cfg.loss), name)) for name in ("D", "G")}
    num_classes = cfg.model.num_classes
    d_lr, g_lr = stage.lr * every["D"], stage.lr * every["G"] * cfg.optim.g_share
    return (
        Phase("D", state.discriminators, state.opt_d, loss.d_loss, d_lr, num_classes),
        Phase("G", state.G, state.opt_g, loss.g_loss, g_lr, num_classes),
    )


def _interval(terms: Iterable[Regulariser], phase: str) -> int:
    return max((term.interval for term in terms if term.phase == phase), default=1)


def run_phase(
    phase: Phase, reals: Batch, inputs: Inputs, cfg: RunConfig, dist: DistContext, micro_batch: int
) -> StepResult:  # fmt: skip
    """Add up the gradients of the micro-batches of a batch and step, unless something is not finite.

    The parts are the rounds of this process and of all others; each part is of every so many-th image of the batch, so
    that the groups of the minibatch standard deviation are the same however many processes and rounds there are. All
    processes get the same sums to the last bit, find the same culprit, and take the same step.
    Scores and losses are checked too: an infinite score can have zero gradient and would otherwise pass unnoticed.
    micro_batch: images at once. Where memory runs out they become fewer, and all rounds are done again; that is before
    the processes add up anything together, so that those who are done wait as they would for one that is slow.
    """
    device, share, group = reals.images.device, len(reals.images), cfg.model.minibatch_group
    fitting = micro_batch
    while True:
        try:
            sums = accumulate(phase, reals, inputs, share // fitting, dist.world_size)
            break
        except (RuntimeError, MemoryError) as error:
            smaller = fewer(fitting, share, group, cfg.batch_gpu) if out_of_memory(error) else fitting
            if smaller == fitting:
                raise
            if not smaller:
                height, width = reals.images.shape[2:]
                said = str(error).partition("\n")[0][:200]
                raise UserError(f"{too_large((height, width), fitting, group)} ({said})") from error
        # Here and not above, where the error still holds what had been computed.
        phase.optimizer.zero_grad()
        return_freed_memory(device)
        fitting = smaller
    total, w, short = _over_all(dist, phase.name, *sums, fitting < micro_batch)
    all_reduce_gradients(dist, f"gradients of {phase.name}", phase.optimizer.params, REDUCED[cfg.reduce])
    grads = [p.grad for p in phase.net.parameters() if p.grad is not None]
    total["norm"] = torch.stack(torch._foreach_norm(grads)).norm()
    finite = bool(torch.stack([*total.values()]).isfinite().all())
    if short > 0:
        fitting = -all_reduce_max(dist, "memory", -fitting)
    bad = None if finite else _first_bad(phase.net, total)
    if finite:
        phase.optimizer.step(phase.lr)
    phase.optimizer.zero_grad()  # the other phase needs the memory
    return StepResult(total, bad, fitting, w)


def accumulate(
    phase: Phase, reals: Batch, inputs: Inputs, rounds: int, processes: int
) -> tuple[Stats, Tensor | None]:  # fmt: skip
    """Add the gradients of this process to its parameters'. Returns its part of the stats and `w_by_class`."""
    parts = rounds * processes
    total: Stats = {}
    w_sums: Tensor | None = None
    for real, fed in zip(reals.split(rounds), inputs.split(rounds), strict=True):
        terms, w = phase.loss(real, fed)
        for loss, stats in terms:
            (loss / parts).backward()
            for name, value in stats.items():
                total[name] = total.get(name, 0) + value / parts
        if w is not None:
            sums = w_by_class(w.detach(), fed.c, phase.num_classes)
            w_sums = sums if w_sums is None else w_sums + sums
    return total, w_sums


def _over_all(
    dist: DistContext, phase: str, stats: Stats, w: Tensor | None, short: bool
) -> tuple[Stats, Tensor | None, Tensor | int]:  # fmt: skip
    """The sums of all processes, in one collective; the last is of how many were short of memory."""
    if dist.world_size == 1:
        return stats, w, 0
    scalars = torch.stack([*stats.values()])
    flat = torch.cat([scalars, scalars.new_tensor([float(short)]), *([] if w is None else [w.flatten()])])
    all_reduce_sum(dist, f"losses of {phase}", flat)
    summed = dict(zip(stats, flat[: len(stats)], strict=True))
    return summed, None if w is None else flat[len(stats) + 1 :].view_as(w), flat[len(stats)]


def _first_bad(net: nn.Module, stats: Stats) -> str:
    """The first layer with a gradient that is not finite; if they all are, the first of the stats."""
    for name, p in net.named_parameters():
        if p.grad is not None and not p.grad.isfinite().all():
            return f"gradient of {name}"
    return next(f"mean of '{name}'" for name, value in stats.items() if not value.isfinite())


def w_by_class(w: Tensor, c: Tensor | None, num_classes: int) -> Tensor:
    """w [N,w_dim] added up by class, and how many there were in the last column: [classes,w_dim+1]; one row without."""
    of_class = w.new_ones(len(w), 1) if c is None or not num_classes else one_hot(c, num_classes).to(w)
    return of_class.T @ torch.cat([w, w.new_ones(len(w), 1)], dim=1)


def move_w_avg(G: Generator, sums: Tensor | None) -> None:
    """Move the running average of w of each class towards its mean in a batch, from `w_by_class`.

    A class moves the farther the more of the batch it is, so that each remembers equally many of its own images.
    Nothing moves without sums, and where a mean is not finite the average stays: it would never recover.
    """
    if sums is not None:
        average = G.mapping.w_avg.view(len(sums), -1)
        counts = sums[:, -1:]
        mean = sums[:, :-1] / counts
        share = counts / counts.mean().clamp(min=1)  # of more classes than images, none must forget all at once
        average.lerp_(torch.where(mean.isfinite(), mean, average), 1 - W_AVG_BETA**share)


def _halflife(cfg: RunConfig, nimg: int) -> float:
    return cfg.ema_kimg if cfg.ema_ramp is None else min(cfg.ema_kimg, nimg * cfg.ema_ramp / 1000)


# What PyTorch says, besides by the type of its error, when the system, CUDA or one of its libraries has no more memory.
# oneDNN has no word for it but the first; the second is what our compiled ops pass on of what PyTorch tells them.
_SIGNS = (
    "could not create a primitive",
    'torch_call_dispatcher( "aten::empty',
    "can't allocate memory",
    "bad_alloc",
    "bad allocation",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
)


def micro_batch_sizes(share: int, group: int, most: int | None = None) -> list[int]:
    """The sizes of part in which `share` images can be worked off, the largest first.

    group: images whose standard deviation the discriminator looks at; a smaller share, or `most`, is the group
    most: the largest part to be had, all if None; it has been checked to divide the share
    """
    largest = min(share, most or share)
    whole = min(max(group, 1), largest)
    return [size for size in range(largest, 0, -1) if share % size == 0 and size % whole == 0]


def fewer(micro_batch: int, share: int, group: int, most: int | None = None) -> int | None:
    """The largest micro-batch of at most half of `micro_batch` images, None if there is none."""
    return next((size for size in micro_batch_sizes(share, group, most) if size <= micro_batch // 2), None)


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Is that what the error says?"""
    by_type = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return by_type or any(sign in str(error) for sign in _SIGNS)


def too_large(size: tuple[int, int], micro_batch: int, group: int) -> str:
    """What to say of a step that fits in no part. size: height and width   micro_batch: of the smallest part."""
    height, width = size
    what = "one image" if micro_batch == 1 else f"{micro_batch} images"
    groups = "--mbstd-group, " if micro_batch > 1 and group > 1 else ""
    return (
        f"memory is too small for {what} of {width}x{height} at once, the least there can be here; free some and go on "
        f"with --resume, or start a new run with less {groups}--fmap-base, --fmap-max or --resolution"
    )
