"""How much memory a step takes: tried on blank images, or counted without holding any; and how many images fit."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_utils.adam import Adam
from torch_utils.device import require_workers, return_freed_memory, total_memory, without_contents
from torch_utils.distributed import DistContext, all_reduce_max
from torch_utils.errors import UserError
from torch_utils.untrusted import excess
from training.augment import DRAWS
from training.config import RunConfig
from training.data.ahead import IN_MEMORY
from training.inputs import Inputs
from training.losses import regularisers
from training.runs.plan import Footprint, gib, parameter_counts
from training.runs.run_dir import OPTIONS, PREVIOUS, STATE
from training.schedule import TrainingStage
from training.state import TrainState, fresh_state
from training.step import losses_of, micro_batch_sizes, out_of_memory, too_large


class LiveBytes(TorchDispatchMode):
    """While it is active, the memory behind tensors that are made is counted as long as somebody holds it.

    For programs on meta tensors, whose memory is none.
    now: bytes held   peak: the most there were
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                self._count(made)
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        key = storage._cdata
        if key not in self._held:  # views share what they are of
            self._held[key] = storage.nbytes()
            self.now += self._held[key]
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._held.pop(key)


# The heaviest step of a stage, on blank images and without consequences: to find out how many fit at once


Fits = Callable[[int], bool]  # so many images at once


def fit(
    state: TrainState, stage: TrainingStage, cfg: RunConfig, dtype: torch.dtype, dist: DistContext,
    say: Callable[[str], object], fits: Fits | None = None,
) -> None:  # fmt: skip
    """Decide how many images are worked on at once at the resolution of `stage`, unless that has been done.

    On a GPU, without --batch-gpu, as many as fit in the process that has the least memory; said once. Elsewhere as many
    as --batch-gpu allows: a CPU's memory has no end that could be felt before it is too late.
    fits: tries it, in place of a rehearsal on the GPU. Raises UserError, in all processes, if not even the fewest fit.
    """
    if stage.resolution in state.micro_batch:
        return
    device = next(state.G.parameters()).device
    share, group = stage.batch // dist.world_size, cfg.model.minibatch_group
    if cfg.batch_gpu or (device.type != "cuda" and fits is None):
        state.micro_batch[stage.resolution] = min(share, cfg.batch_gpu or share)
        return
    fits = fits or partial(rehearsed, state, stage, cfg, dtype, dist.world_size)
    sizes = micro_batch_sizes(share, group)
    own = next(filter(fits, sizes), 0)
    micro_batch = -all_reduce_max(dist, "memory", -own)
    if not micro_batch:
        raise UserError(too_large(cfg.model.size(stage.resolution), sizes[-1], group))
    state.micro_batch[stage.resolution] = micro_batch
    rest = "all that fit" if micro_batch < share else "all"
    say(f"at {stage.resolution}: {micro_batch} of {share} images per GPU at once, {rest}")


def rehearsed(
    state: TrainState, stage: TrainingStage, cfg: RunConfig, dtype: torch.dtype, processes: int, micro_batch: int
) -> bool:  # fmt: skip
    """Does a step with so many images at once fit into the memory of this process? None of it is kept."""
    device = next(state.G.parameters()).device
    kept = [[t.clone() for t in net.buffers()] for net in (state.G, state.D)]
    fits = True
    try:
        rehearse(state, stage, cfg, dtype, processes, micro_batch)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        fits = False
    for net, before in zip((state.G, state.D), kept, strict=True):  # as batch norm counts what it has seen
        for buffer, value in zip(net.buffers(), before, strict=True):
            buffer.copy_(value)
    for optimizer in (state.opt_g, state.opt_d):
        optimizer.zero_grad()  # of a rehearsal that was cut short
    return_freed_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return fits


def rehearse(
    state: TrainState, stage: TrainingStage, cfg: RunConfig, dtype: torch.dtype, processes: int, micro_batch: int
) -> None:  # fmt: skip
    """Work off `micro_batch` images in each phase of a step, with regularisers, but let no weight move.

    Beside them is held what a step finds when training is in full swing: Adam's moments, the images of the next steps,
    where there are several parts the gradients of the parts before, and where there are several processes the sums of
    gradients that are on their way. Raises what PyTorch raises when memory runs out.
    """
    device, share = next(state.G.parameters()).device, stage.batch // processes
    inputs, rounds = blank(stage, cfg, share, device), share // micro_batch
    weights = {r.name: r.gamma.at(stage.resolution) for r in regularisers(cfg.loss)}
    losses = losses_of(state, stage, cfg, dtype, weights, share)
    held = [_beside(optimizer, 2) for optimizer in (state.opt_d, state.opt_g)]
    held.append([torch.empty(IN_MEMORY, *inputs.reals.shape, dtype=torch.uint8, device=device)])
    for phase in ("D", "G"):
        _, optimizer = state.learner(phase)
        state.discriminators.requires_grad_(phase == "D")
        gradients = [_beside(optimizer, 1) for several in (rounds > 1, processes > 1) if several]
        terms, _ = losses.of(phase)(next(inputs.split(rounds)))
        for loss, _ in terms:
            loss.backward()
        optimizer.zero_grad()
        del gradients


def blank(stage: TrainingStage, cfg: RunConfig, count: int, device: torch.device) -> Inputs:
    """What `count` images take in a step, all zeros: no random number is drawn."""
    model = cfg.model
    classes = torch.zeros(count, dtype=torch.long, device=device) if cfg.data.cond else None
    z, z_mix = torch.zeros(2, count, model.z_dim, device=device)
    return Inputs(
        z=z, z_mix=z_mix, crossover=torch.zeros(count, dtype=torch.long, device=device), c=classes,
        places=torch.zeros(count, 2, dtype=torch.long, device=device), blend=torch.zeros(count, device=device),
        views=torch.zeros(count, 2, DRAWS, device=device) if cfg.loss.diffaugment else None,
        reals=torch.zeros(count, model.channels, *model.size(stage.resolution), device=device), real_c=classes,
    )  # fmt: skip


def _beside(optimizer: Adam, times: int) -> list[Tensor]:
    """Memory for so many numbers per parameter, if Adam has no moments of it yet or only one number is asked for."""
    return [torch.empty(times * p.numel(), dtype=p.dtype, device=p.device)
            for p in optimizer.params if times == 1 or p not in optimizer.state]  # fmt: skip


# How much memory a run takes at each resolution, found by going through a step on tensors without contents


META = torch.device("meta")

# Measured on a CPU (docs/performance-log.md): a process holds this much before there is a network, and of what tensors
# hold so many times as much, as freed memory is kept in pieces. A GPU's allocator counts tensors only.
PROCESS_BYTES = {"cpu": 250 << 20, "cuda": 0}
KEPT = {"cpu": 1.4, "cuda": 1.0}


def footprint(cfg: RunConfig, dtype: torch.dtype, device: torch.device) -> Footprint:
    """Peak memory at a resolution, and how many images are worked on at once.

    The most that tensors hold at any moment of the heaviest step: weights, gradients, moments, the average, and what
    the graphs of two derivatives keep. On a GPU, without --batch-gpu, of as many images at once as fit in it.
    """
    with without_contents():
        state = fresh_state(cfg, META)
    kind = device.type if device.type in KEPT else "cuda"
    room = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None

    @cache
    def at(resolution: int) -> tuple[int, int]:
        share = cfg.growth.batch.at(resolution) // cfg.gpus
        sizes = micro_batch_sizes(share, cfg.model.minibatch_group, cfg.batch_gpu)
        if cfg.batch_gpu or room is None:
            sizes = sizes[:1]
        for size in sizes:
            held = peak_bytes(state, cfg, resolution, size, dtype)
            peak = PROCESS_BYTES[kind] + round(KEPT[kind] * held)
            if room is None or peak <= room:
                break
        return peak, size

    return at


def require_fits(cfg: RunConfig, device: torch.device, processes: int) -> None:
    """Raises UserError if training certainly does not fit into memory. It is counted in no time, without a network.

    processes: on this machine; with 0, only the weights are counted, as for a plan
    """
    if cfg.device == "cpu":
        require_workers("--gpus", processes)
    generator, discriminator = parameter_counts(cfg.model)
    fault = excess("the larger of the networks", max(generator, discriminator), "million_weights")
    if fault:
        raise UserError(fault)
    room = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else total_memory()
    # Weights, gradients of one network at a time, Adam's two moments, and the averaged generator.
    weights = 4 * (4 * generator + 3 * discriminator + max(generator, discriminator))
    several = processes if device.type == "cpu" else 1
    if weights * max(several, 1) > room:
        raise UserError(
            f"networks of {generator + discriminator:,} weights take {gib(weights * max(several, 1))} of memory to "
            f"train, but there are {gib(room)}; use a smaller --fmap-max or --z-dim, or fewer --gpus"
        )
    for resolution in cfg.growth.resolutions if several else ():
        least = several * (weights + _least_bytes(cfg, resolution, device))
        if least > room:
            raise UserError(
                f"--batch {cfg.growth.batch.at(resolution)} (at {resolution}) takes more than {gib(least)} of memory, "
                f"but there are {gib(room)}; use a smaller --batch, or a smaller --batch-gpu"
            )


SMALL_BYTES = 200_000_000  # of networks that may be built on trial


def require_state_of(run_dir: Path, cfg: RunConfig) -> None:
    """Raises UserError if the states of a run have fewer bytes than the large networks that its settings describe.

    A few bytes of settings could otherwise take all memory before it turns out that no state fits these networks. What
    small ones do not fit is said when they are restored.
    """
    generator, discriminator = parameter_counts(cfg.model)
    files = [path for path in (run_dir / STATE, run_dir / PREVIOUS) if path.is_file()]
    held = max((path.stat().st_size for path in files), default=0)
    least = 4 * (2 * generator + discriminator)  # the average has all weights of the generator as well
    if files and held < least and least > SMALL_BYTES:
        raise UserError(
            f"{run_dir / OPTIONS} describes networks of {generator + discriminator:,} weights, but {files[0].name} has "
            f"only {held:,} bytes: these are not the settings of this run, or the state is cut short; restore "
            f"{OPTIONS}, or else the state"
        )


def _least_bytes(cfg: RunConfig, resolution: int, device: torch.device) -> float:
    """Of a step at least: its inputs, and on a CPU the feature maps of the images that D works on at once."""
    model, share = cfg.model, max(cfg.growth.batch.at(resolution) // cfg.gpus, 1)
    height, width = model.size(resolution)
    inputs = 4 * share * (model.channels * height * width + 2 * model.z_dim)
    if device.type != "cpu":
        return inputs
    held = model.discriminator_cost(resolution).activations * (4 if cfg.precision == "fp32" else 2)
    return inputs + min(share, cfg.batch_gpu or share) * held


def peak_bytes(state: TrainState, cfg: RunConfig, resolution: int, micro_batch: int, dtype: torch.dtype) -> int:
    """Of all tensors, in bytes. state: on the meta device"""
    alpha = 0.5 if resolution > cfg.growth.initial else 1.0
    stage = TrainingStage(resolution, alpha, phase=0, batch=cfg.growth.batch.at(resolution), lr=0.0)
    networks = (state.G, state.discriminators, state.G_ema)
    held = [t for net in networks for t in (*net.parameters(), *net.buffers())]
    if state.vision_aid:
        held += [t for kind in {torch.float32, dtype} for t in state.vision_aid.backbone(kind).values()]
    fixed = sum(t.numel() * t.element_size() for t in held)
    with META, LiveBytes() as live:
        rehearse(state, stage, cfg, dtype, cfg.gpus, micro_batch)
    return fixed + live.peak
