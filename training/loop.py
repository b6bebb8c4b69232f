"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from torch_utils.device import (
    TRAINING,
    cpu_threads,
    fast_bf16,
    free_memory,
    keep_freed_memory,
    pick_device,
    set_gpu_math,
)
from torch_utils.distributed import SINGLE_PROCESS, DistContext, all_reduce_max, on_rank0
from torch_utils.images import to_float
from torch_utils.interrupt import Interrupts, deferred_interrupts
from training.config import RunConfig
from training.data.ahead import Ahead, Images
from training.data.archive import Archive
from training.data.dataset import Dataset, fade
from training.inputs import Reals
from training.recorded import Recorder
from training.runs.checkpointing import (
    Run,
    begin_phase,
    begin_run,
    disk_trouble,
    end_run,
    measure,
    restore_newest,
    say_how_many_fit,
    settle,
    stop_run,
    tick,
)
from training.runs.memory import fit
from training.runs.plan import Machine, measured_machine
from training.runs.report import Clock, Report
from training.runs.resume import DataFacts
from training.runs.run_dir import mark_finished
from training.schedule import TrainingStage
from training.state import TrainState, fresh_state
from training.step import Steps, train_step

TIME_IS_UP = signal.NSIG  # more than the number of any signal


def train(
    cfg: RunConfig, run_dir: Path, resume: bool = False, init_from: str | None = None,
    dist: DistContext = SINGLE_PROCESS,
) -> TrainState:  # fmt: skip
    """Train until `cfg.total_kimg`, or until the time is up or the user stops; write everything into `run_dir`.

    resume: go on from the state saved there   init_from: a snapshot to take fitting weights from
    dist: the processes that share the work; all do the same to the same state, and the first one writes
    Returns the final state. Raises UserError for bad data, a full disk, and a run that keeps diverging, and
    SystemExit(143 or 129) once a SIGTERM or SIGHUP has been obeyed.
    """
    clock = Clock()
    device, dtype, clock.machine = set_up(cfg, dist)
    data = open_data(cfg, dist.rank == 0)
    labels = labels_on(data, cfg, device)
    state = fresh_state(cfg, device)
    damaged = restore_newest(state, run_dir, dist) if resume else ""

    with (
        disk_trouble(run_dir),
        Report(run_dir, cfg.total_kimg, state.nimg, state.log_bytes, quiet=dist.rank > 0) as report,
        deferred_interrupts() as interrupted,
        Ahead(partial(images_at, data, cfg, dist), partial(position_after, cfg), device) as ahead,
    ):
        run = Run(cfg, run_dir, state, report, clock, dist)
        recorder = recorder_for(cfg, device, dist, report.say)
        if damaged:
            report.say(damaged)
        begin_run(run, data, dtype, resume, init_from)
        report.say(f"Data: {DataFacts.of(data.archive).about(cfg)}")
        clock.restart()
        measure_now = partial(measure, run, interrupted)
        if resume and run.snapshot_due:
            on_rank0(dist, "metrics", measure_now)  # what was cut short
        stop = wish_of_any(dist, interrupted, clock.late(state, cfg))
        while state.nimg < cfg.total_kimg * 1000 and not stop:
            stage = run.stage
            if stage.phase != state.phase:
                begin_phase(run)
            fit(state, stage, cfg, dtype, dist, report.say)
            with clock.data():
                reals = shown(ahead.take(state.nimg), stage)
            micro_batch = state.micro_batch[stage.resolution]
            train_step(state, reals, stage, cfg, labels, dtype, dist, recorder)
            state.nimg, clock.images = state.nimg + stage.batch, clock.images + stage.batch
            if state.micro_batch[stage.resolution] < micro_batch:
                say_how_many_fit(run, stage.resolution, state.micro_batch[stage.resolution])
            if run.tick_due(stage) or state.nimg >= cfg.total_kimg * 1000:
                settle(run)
            report.advance(state.nimg, stage.resolution, stage.alpha)
            if run.tick_due(stage):
                if recorder is not None:
                    recorder.make_room(free_memory(device))
                tick(run)
                if run.snapshot_due:
                    on_rank0(dist, "metrics", measure_now)
            stop = wish_of_any(dist, interrupted, clock.late(state, cfg))
        settle(run)
        if 0 < stop < TIME_IS_UP:
            stop_run(run, stop)
        else:
            measured = run.snapshot_due
            end_run(run)
            if not measured:
                on_rank0(dist, "metrics", measure_now)
            stop = wish_of_any(dist, interrupted)
            if not stop:
                kimg = min(state.nimg / 1000, cfg.total_kimg)
                on_rank0(dist, "the end", partial(mark_finished, run_dir, kimg))
    if stop and stop != signal.SIGINT:
        raise SystemExit(128 + stop)
    return state


def wish_of_any(dist: DistContext, interrupted: Interrupts, late: bool = False) -> int:
    """TIME_IS_UP if any of the processes is late, else the signal by which the user asked one of them to stop, else 0:
    they must stop at the same step.
    """
    return all_reduce_max(dist, "wish to stop", TIME_IS_UP if late else interrupted.signum)


def set_up(cfg: RunConfig, dist: DistContext) -> tuple[torch.device, torch.dtype, Machine]:
    """Where this process computes, the dtype of its feature maps, and how fast that is. Takes its share of threads."""
    device = pick_device(cfg.device) if dist.world_size == 1 else dist.device
    keep_freed_memory()
    set_gpu_math(TRAINING)
    torch.set_num_threads(max(1, cpu_threads(cfg.threads) // dist.local_world_size))
    dtype = pick_dtype(cfg, device)
    return device, dtype, measured_machine(cfg, dtype, device)


def recorder_for(
    cfg: RunConfig, device: torch.device, dist: DistContext, say: Callable[[str], object]
) -> Recorder[Steps] | None:
    """Takes the steps of one process on a GPU, see `recorded`; several processes add up gradients in between."""
    wanted = cfg.cuda_graphs == "auto" and device.type == "cuda" and dist.world_size == 1
    return Recorder(say) if wanted else None


def open_data(cfg: RunConfig, progress: bool = True) -> Dataset:
    """The images of a run, packed for all its resolutions. Raises UserError if there is anything wrong with them."""
    data = Dataset(Archive.open(cfg.data.path, cfg.data.cache), cfg.data.mirror, cfg.seed, cfg.data.subset)
    data.prepare([cfg.model.size(res) for res in cfg.growth.resolutions], progress)
    return data


def labels_on(data: Dataset, cfg: RunConfig, device: torch.device) -> Tensor | None:
    """The classes of all images [M], from which those of generated ones are drawn; None for a run without."""
    labels = data.archive.labels if cfg.data.cond else None
    return None if labels is None else torch.from_numpy(labels).to(device)


def next_reals(
    data: Dataset, nimg: int, stage: TrainingStage, cfg: RunConfig, device: torch.device,
    dist: DistContext = SINGLE_PROCESS,
) -> Reals:  # fmt: skip
    """This process's share of the real images after `nimg` images, if they have not been gathered ahead."""
    images, c = images_at(data, cfg, dist, nimg, stage)
    return shown((images.to(device), None if c is None else c.to(device)), stage)


def images_at(
    data: Dataset, cfg: RunConfig, dist: DistContext, nimg: int, stage: TrainingStage | None = None
) -> Images:  # fmt: skip
    """The same before they are made numbers, in the memory of this machine. stage: that of `nimg` if None

    Of the batch, every `dist.world_size`-th image: `Inputs.split` says why.
    """
    stage = stage or cfg.growth.at(nimg)
    size = cfg.model.size(stage.resolution)
    images, c = data.batch(nimg + dist.rank, stage.batch // dist.world_size, *size, step=dist.world_size)
    return images, c if cfg.data.cond else None


def position_after(cfg: RunConfig, nimg: int) -> int | None:
    """Where the batch after that at `nimg` begins; None if the run ends before."""
    after = nimg + cfg.growth.at(nimg).batch
    return after if after < cfg.total_kimg * 1000 else None


def shown(images: Images, stage: TrainingStage) -> Reals:
    """Images on the device as the discriminator gets to see them, at the fade of the stage."""
    return fade(to_float(images[0]), stage.alpha), images[1]


def pick_dtype(cfg: RunConfig, device: torch.device) -> torch.dtype:
    """Of the feature maps: bfloat16 where asked for, or where "auto" finds hardware for it."""
    if cfg.precision == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    return torch.bfloat16 if cfg.precision == "bf16" else torch.float32
