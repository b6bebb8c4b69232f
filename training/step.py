"""One training step: the discriminator learns, the averaged generator follows, the generator learns.

A step is two phases, each with a loss and an optimiser (StyleGAN's order: D before G). A phase works its batch off in
micro-batches whose gradients add up, over rounds and over processes, to what the batch at once would have given.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from stylegan.networks.base import Generator
from stylegan.networks.mapping import class_weights
from stylegan.networks.sampling import places_of
from torch_utils.adam import share_of, track
from torch_utils.device import return_freed_memory
from torch_utils.distributed import SINGLE_PROCESS, DistContext, all_reduce_sum
from torch_utils.distributed.gradients import GradientSums
from torch_utils.errors import UserError
from training.config import RunConfig
from training.inputs import Inputs, Reals, draw_at
from training.losses import GANLoss, Stats, regularisers
from training.recorded import Fed, Recorder
from training.schedule import TrainingStage
from training.state import Checks, TrainState, lazy_factor

W_AVG_BETA = 0.995
Steps = tuple[Checks, Checks]
"""What the phases of D and of G report."""
REDUCED = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train_step(
    state: TrainState, reals: Reals, stage: TrainingStage, cfg: RunConfig, labels: Tensor | None,
    dtype: torch.dtype, dist: DistContext = SINGLE_PROCESS, recorder: Recorder[Steps] | None = None,
) -> Stats:  # fmt: skip
    """Train on one batch. A phase whose numbers are not all finite leaves its network as it was; D's also leaves G.

    The order is the published one: D, then the average (of G before this step), then G. `state.nimg` is not advanced.
    No number is read from the device, so that it has work while this process prepares the next: `state.tally` adds up
    what there is to report.
    reals: this process's share of the batch, every `dist.world_size`-th image of it from its rank on
    labels: classes of the data set on the device, from which the generated images draw theirs
    recorder: takes the step from a recording, where it has one
    Returns what there is to report, on the device.
    """
    images, real_c = reals
    if not state.micro_batch.get(stage.resolution):
        state.micro_batch[stage.resolution] = micro_batch_sizes(len(images), 1, cfg.batch_gpu)[0]
    positions = range(state.nimg + dist.rank, state.nimg + stage.batch, dist.world_size)
    # After a rollback the random numbers are others, or the same step would diverge again.
    salt = f"/{state.rollbacks}" if state.rollbacks else ""
    weights = {r.name: r.weight_at(state.nimg, stage) for r in regularisers(cfg.loss)}
    ramp = math.inf if cfg.ema_ramp is None else state.nimg * cfg.ema_ramp / 1000
    share = share_of(stage.batch, min(cfg.ema_kimg, ramp))
    fed = {"reals": images} | ({} if real_c is None else {"real_c": real_c})
    fed |= {phase: places_of(cfg.seed, stream + salt, positions, images.device)
            for phase, stream in (("D", "g" if cfg.loss.share_fakes else "d"), ("G", "g"))}  # fmt: skip
    if recorder is not None:  # what a recording must not keep
        fed |= {"share": images.new_full((), share)} if cfg.ema_ramp is not None else {}
        fed |= {"alpha": images.new_full((), stage.alpha)} if stage.alpha < 1 else {}

    def take(fed: Fed) -> Steps:
        at = replace(stage, weight=fed.get("alpha"))
        losses = losses_of(state, at, cfg, dtype, weights, len(images))

        def inputs_of(phase: str) -> Inputs:
            drawn = draw_at(cfg.model, fed[phase], stage.resolution, labels, bool(cfg.loss.diffaugment))
            # A relativistic score compares a real and a generated image: of one class, or the classes would differ.
            c = fed.get("real_c") if cfg.loss.name == "relativistic" else drawn.c
            return replace(drawn, reals=fed["reals"], real_c=fed.get("real_c"), c=c)

        for optimizer in (state.opt_d, state.opt_g):
            optimizer.zero_grad()  # of a recording that failed halfway
        state.discriminators.requires_grad_(True)
        d = run_phase("D", state, losses, inputs_of("D"), cfg, dist)
        track(state.G_ema, state.G, fed.get("share", share))
        # No gradients for D's weights while G learns: that is a third of the work of this phase.
        state.discriminators.requires_grad_(False)
        return d, run_phase("G", state, losses, inputs_of("G"), cfg, dist, d.good)

    if recorder is None:
        steps = take(fed)
    else:
        numbers = (stage.lr, *weights.values(), "share" in fed or share, state.micro_batch[stage.resolution])
        steps = recorder.take((stage.phase, state.rollbacks), (*fed, *numbers), fed, take, state.changing)
    state.tally.add(steps, state.nimg, state.bad_steps)
    return steps[0].stats | steps[1].stats


def losses_of(
    state: TrainState, stage: TrainingStage, cfg: RunConfig, dtype: torch.dtype, weights: dict[str, float], share: int
) -> GANLoss:  # fmt: skip
    """The losses of a step. weights: of the regularisers in it   share: images of the batch that are this process's"""
    return GANLoss(cfg.loss, state.G, state.D, state.vision_aid, stage, cfg.model.resolution, dtype, weights, share)


def learning_rate(phase: str, stage: TrainingStage, cfg: RunConfig) -> float:
    """Of the network that learns in the phase: smaller, as the moments are shorter, where penalties are lazy."""
    intervals = [r.interval for r in regularisers(cfg.loss) if r.phase == phase]
    lr = stage.lr * lazy_factor(max(intervals, default=1))
    return lr if phase == "D" else lr * cfg.optim.g_share


def run_phase(
    phase: str, state: TrainState, losses: GANLoss, inputs: Inputs, cfg: RunConfig, dist: DistContext,
    before: Tensor | None = None,
) -> Checks:  # fmt: skip
    """Add up the gradients of the micro-batches of a batch and step, unless something is not finite.

    The parts are the rounds of this process and of all others; each part is of every so many-th image of the batch, so
    that the groups of the minibatch standard deviation are the same however many processes and rounds there are. All
    processes get the same sums to the last bit, find the same culprit, and take the same step. The device decides
    whether it is taken: Adam and the average of w get to know what is finite as a tensor.
    Scores and losses are checked too: an infinite score can have zero gradient and would otherwise pass unnoticed.
    Where memory runs out micro-batches become smaller, and all rounds are done again; the others wait as they would for
    a process that is slow. What it has sent them by then counts (`GradientSums`).

    before: was the phase before good? bool []
    """
    _, optimizer = state.learner(phase)
    stage, share, group = losses.stage, len(inputs.reals), cfg.model.minibatch_group
    fitting = state.micro_batch[stage.resolution]
    gradients = GradientSums(dist, f"gradients of {phase}", state.backward_order(phase), REDUCED[cfg.reduce])
    while True:
        try:
            names, means, w_sums = accumulate(losses, phase, inputs, share // fitting, gradients)
            break
        except (RuntimeError, MemoryError) as error:
            smaller = fewer(fitting, share, group, cfg.batch_gpu) if out_of_memory(error) else fitting
            if smaller == fitting:
                raise
            if not smaller:
                said = str(error).partition("\n")[0][:200]
                size = cfg.model.size(stage.resolution)
                raise UserError(f"{too_large(size, fitting, group)} ({said})") from error
        # Here and not above, where the error still holds what had been computed.
        optimizer.zero_grad()
        return_freed_memory(inputs.reals.device)
        fitting = smaller
    gradients.finish()
    means, w_sums = _over_all(dist, phase, means, w_sums)
    grads = {place: p.grad for place, p in enumerate(optimizer.params) if p.grad is not None}
    norms = torch.stack(torch._foreach_norm([*grads.values()]))
    values = torch.cat([norms, means, norms.norm()[None]])
    finite = values.abs() < math.inf  # which NaN is not either
    good = finite.all() if before is None else finite.all() & before
    optimizer.step(learning_rate(phase, stage, cfg), skip=(~good).float())
    optimizer.zero_grad()  # the other phase needs the memory
    move_w_avg(state.G, w_sums, good)
    state.micro_batch[stage.resolution] = fitting
    return Checks(phase, (*grads, *names, f"norm_{phase.lower()}"), values, finite, good)


def accumulate(
    losses: GANLoss, phase: str, inputs: Inputs, rounds: int, gradients: GradientSums
) -> tuple[tuple[str, ...], Tensor, Tensor | None]:  # fmt: skip
    """Add the gradients of this process to its parameters', and send them to the others in the last backward pass.

    Returns the names of what there is to report, its part of these means [names], and `w_by_class`.
    """
    parts = rounds * gradients.dist.world_size
    total: Stats = {}
    w_sums: Tensor | None = None
    for turn, fed in enumerate(inputs.split(rounds), 1):
        terms, w = losses.of(phase)(fed)
        count = losses.num_terms(phase, fed)
        for number, (term, stats) in zip(range(1, count + 1), terms, strict=True):
            with gradients.last_backward() if (turn, number) == (rounds, count) else nullcontext():
                (term / parts).backward()
            for name, value in stats.items():
                total[name] = total[name] + value if name in total else value
        if w is not None:
            sums = w_by_class(w.detach(), fed.c, losses.G.config.num_classes)
            w_sums = sums if w_sums is None else w_sums + sums
    return tuple(total), torch.stack([*total.values()]) / parts, w_sums


def _over_all(dist: DistContext, phase: str, means: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The sums of all processes, in one collective."""
    if dist.world_size == 1:
        return means, w
    flat = torch.cat([means, *([] if w is None else [w.flatten()])])
    all_reduce_sum(dist, f"losses of {phase}", flat)
    return flat[: len(means)], None if w is None else flat[len(means) :].view_as(w)


def w_by_class(w: Tensor, c: Tensor | None, num_classes: int) -> Tensor:
    """w [N,w_dim] added up by class, and how many there were in the last column: [classes,w_dim+1]; one row without."""
    of_class = w.new_ones(len(w), 1) if c is None or not num_classes else class_weights(c, num_classes).to(w)
    return of_class.T @ torch.cat([w, w.new_ones(len(w), 1)], dim=1)


def move_w_avg(G: Generator, sums: Tensor | None, good: Tensor | bool = True) -> None:
    """Move the running average of w of each class towards its mean in a batch, from `w_by_class`.

    A class moves the farther the more of the batch it is, so that each remembers equally many of its own images.
    Nothing moves without sums or after a step that is not good (bool []), and where a mean is not finite, as that of a
    class without images is not, the average stays: it would never recover.
    """
    if sums is not None:
        average = G.mapping.w_avg.view(len(sums), -1)
        counts = sums[:, -1:]
        mean = sums[:, :-1] / counts
        share = counts / counts.mean().clamp(min=1)  # of more classes than images, none must forget all at once
        average.lerp_(torch.where(mean.isfinite() & good, mean, average), 1 - W_AVG_BETA**share)


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
