"""The training loop, to be read from top to bottom."""

from __future__ import annotations

from pathlib import Path

import torch

from stylegan.discriminator import fade
from torch_utils.device import fast_bf16, keep_freed_memory, pick_device
from torch_utils.images import to_float
from torch_utils.interrupt import deferred_interrupts
from torch_utils.threads import cpu_threads
from training.archive import Archive
from training.config import RunConfig
from training.dataset import Dataset
from training.milestones import (
    Clock,
    begin_phase,
    begin_run,
    disk_trouble,
    end_run,
    measure,
    note,
    roll_back,
    save,
    snapshot_due,
    tick,
)  # fmt: skip
from training.report import Report
from training.rundir import STATE
from training.schedule import Stage
from training.state import TrainState, fresh_state
from training.update import Reals, update


def train(cfg: RunConfig, run_dir: Path, resume: bool = False, init_from: str | None = None) -> TrainState:
    """Train until `cfg.total_kimg`, or until the user stops; write everything into `run_dir`.

    resume: go on from the state saved there   init_from: a snapshot to take fitting weights from
    Returns the final state. Raises UserError for bad data, a full disk, and a run that keeps diverging.
    """
    device = pick_device(cfg.device)
    dtype = pick_dtype(cfg, device)
    keep_freed_memory()
    torch.set_num_threads(cpu_threads(cfg.threads))
    data = open_data(cfg)
    labels = data.archive.labels if cfg.data.cond else None
    state = fresh_state(cfg, device)
    if resume:
        state.restore(run_dir / STATE)

    with (
        disk_trouble(run_dir),
        Report(run_dir, cfg.total_kimg, state.nimg, state.log_bytes) as report,
        deferred_interrupts() as interrupted,
    ):
        begin_run(state, cfg, run_dir, report, data, dtype, resume, init_from)
        clock = Clock()
        if resume and state.tick_nimg == state.nimg and snapshot_due(state, cfg):
            measure(state, cfg, run_dir, report, clock, interrupted)  # what was cut short
        while state.nimg < cfg.total_kimg * 1000 and not interrupted():
            stage = cfg.growth.at(state.nimg)
            if stage.phase != state.phase:
                begin_phase(state, stage, report)
            with clock.data():
                reals = next_reals(data, state.nimg, stage, cfg, device)
            outcome = update(state, reals, stage, cfg, labels, dtype)
            state.nimg += stage.batch
            note(state, outcome, report)
            if state.bad_steps >= cfg.max_bad_steps:
                roll_back(state, run_dir, report)
            report.advance(state.nimg, stage.resolution, stage.alpha)
            if state.nimg - state.tick_nimg >= cfg.tick_kimg.at(stage.resolution) * 1000:
                tick(state, cfg, run_dir, report, clock)
                if snapshot_due(state, cfg):
                    measure(state, cfg, run_dir, report, clock, interrupted)
        if interrupted():
            save(state, cfg, run_dir, report)
            report.say(f"Stopped at {state.nimg / 1000:.1f} kimg; all is saved. To go on: train.py --resume {run_dir}")
        else:
            measured = state.nimg == state.tick_nimg and snapshot_due(state, cfg)
            end_run(state, cfg, run_dir, report, clock)
            if not measured:
                measure(state, cfg, run_dir, report, clock, interrupted)
    return state


def open_data(cfg: RunConfig) -> Dataset:
    """The pictures of a run, packed for all its resolutions. Raises UserError if there is anything wrong with them."""
    data = Dataset(Archive.open(cfg.data.path), cfg.data.mirror, cfg.seed, cfg.data.subset)
    data.prepare([cfg.model.size(res) for res in cfg.growth.resolutions])
    return data


def next_reals(data: Dataset, nimg: int, stage: Stage, cfg: RunConfig, device: torch.device) -> Reals:
    """The batch of real pictures that comes after `nimg` images, at the size and the fade of the stage."""
    images, c = data.batch(nimg, stage.batch, *cfg.model.size(stage.resolution))
    c = c.to(device) if c is not None and cfg.data.cond else None
    return Reals(fade(to_float(images.to(device)), stage.alpha), c)


def pick_dtype(cfg: RunConfig, device: torch.device) -> torch.dtype:
    """Of the feature maps: bfloat16 where asked for, or where "auto" finds hardware for it."""
    if cfg.precision == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    return torch.bfloat16 if cfg.precision == "bf16" else torch.float32
