"""What happens besides steps: the start and the end of a run, phases, ticks, saving, and recovering."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stylegan.checkpoints.snapshot import Snapshot, store
from stylegan.networks.config import Stage
from torch_utils.checkpoint import load_tensors
from torch_utils.device import fast_bf16, peak_memory_mb
from torch_utils.distributed import SINGLE_PROCESS, DistContext, all_reduce_max, on_rank0
from torch_utils.errors import UserError
from torch_utils.files import SCRATCH
from torch_utils.images import to_float
from torch_utils.interrupt import Interrupts
from torch_utils.text import counted, listed_classes
from training.config import RunConfig
from training.data.dataset import Dataset
from training.inputs import NUMBERS
from training.runs.hours import LATE
from training.runs.live_metrics import NO_METRICS, keep_best, measure_snapshot, prune
from training.runs.plan import duration, growth_line, seconds_left, unfinished_growth
from training.runs.report import (
    FIRST,
    STAT_NAMES,
    Clock,
    Report,
    about_growth,
    growth_frame,
    save_fakes,
    save_growth,
    save_key,
    save_reals,
)
from training.runs.run_dir import PREVIOUS, STATE, settle_state, step_back
from training.runs.transfer import transfer_weights
from training.schedule import TrainingStage
from training.state import TrainState
from training.vision_aid import LOOKS

MAX_ROLLBACKS = 3


@contextmanager
def disk_trouble(run_dir: Path) -> Iterator[None]:
    """Turns a failure to write an image or a line, on a full disk for one, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {run_dir} ({error.strerror or error}); when that is cured, train.py --resume {run_dir}"
        ) from error


@dataclass(frozen=True)
class Run:
    """What belongs to a run from its first step to its last. dist: the processes that share the work"""

    cfg: RunConfig
    run_dir: Path
    state: TrainState
    report: Report
    clock: Clock
    dist: DistContext = SINGLE_PROCESS

    @property
    def stage(self) -> TrainingStage:
        """Where the growth is."""
        return self.cfg.growth.at(self.state.nimg)

    @property
    def over(self) -> bool:
        """Have all images been shown, or is the time up?"""
        return self.state.nimg >= self.cfg.total_kimg * 1000 or self.clock.late(self.state, self.cfg)

    def tick_due(self, stage: TrainingStage) -> bool:
        """Is it time for a status line? stage: of the step that has just been taken"""
        return self.state.nimg - self.state.tick_nimg >= self.cfg.tick_kimg.at(stage.resolution) * 1000

    @property
    def snapshot_due(self) -> bool:
        """Has there just been a tick, and one with a snapshot?"""
        state = self.state
        return state.tick > 0 and state.tick_nimg == state.nimg and state.tick % self.cfg.snap == 0

    def file(self, prefix: str, suffix: str) -> Path:
        """The field's names, in whole kimg: of several within one kimg the last stays (a snapshot knows its own)."""
        return self.run_dir / f"{prefix}{self.state.nimg // 1000:06d}{suffix}"

    @property
    def snapshot(self) -> Path:
        """That of this moment."""
        return self.file("network-snapshot-", ".safetensors")


def begin_run(run: Run, data: Dataset, dtype: torch.dtype, resume: bool, init_from: str | None) -> None:
    """Say what is about to happen; at the very start also write the reals, the first fakes and the first state."""
    cfg, state, report, dist = run.cfg, run.state, run.report, run.dist
    device = next(state.G.parameters()).device
    ranks = f"{dist.world_size} processes, " if dist.world_size > 1 else ""
    slow = " (this GPU has no fast bfloat16)" if device.type == "cuda" and not fast_bf16(device) else ""
    how = f"on {device}, {ranks}{str(dtype).removeprefix('torch.')}{slow}, {torch.get_num_threads()} threads"
    if dist.attempt:
        report.say(f"A process was lost: restart {dist.attempt}")
    if resume:
        on_rank0(dist, "tidying up", partial(_tidy_up, run))
        report.say(f"Going on with {run.run_dir} at {state.nimg / 1000:.1f} of {cfg.total_kimg:g} kimg, {how}")
        if state.numbers != NUMBERS:
            report.say("Random numbers up to here were made by an older version of this engine; from here on they are "
                       "others, which changes what is drawn from them and nothing else")  # fmt: skip
        return
    report.say(f"Training in {run.run_dir}: {len(data)} images, {cfg.total_kimg:g} kimg, {how}")
    if cfg.hours is not None:
        report.say(f"Planned for {cfg.hours:g} h: {growth_line(cfg)}")
    if init_from:
        report.say(transfer_weights(init_from, state, cfg.data.class_names))
    if state.vision_aid:
        size = cfg.model.size(cfg.growth.final)
        looks = (data.batch(start, 8, *size)[0] for start in range(0, LOOKS, 8))
        state.vision_aid.calibrate((to_float(images.to(device)) for images in looks), dtype)
    on_rank0(dist, "the first images", partial(_save_start, run, data))


def _tidy_up(run: Run) -> None:
    """Remove what a killed process has left, and write the state's own snapshot again if it is not whole."""
    for scratch in run.run_dir.glob(SCRATCH):
        scratch.unlink()
    if run.snapshot.exists() or run.snapshot_due or run.over:
        try:
            load_tensors(run.snapshot)
        except UserError:
            save_networks(run.snapshot, run.state, run.cfg, run.stage)
            run.report.say(f"{run.snapshot.name} was missing or damaged: written again")


def _save_start(run: Run, data: Dataset) -> None:
    cfg, state = run.cfg, run.state
    save_reals(run.run_dir / "reals.png", data, cfg.model)
    save_fakes(run.run_dir / FIRST, state.G_ema, Stage(cfg.growth.initial))
    save_key(run.run_dir / "fakes.json", cfg.model, cfg.data.class_names)
    if cfg.model.num_classes:
        run.report.say(f"Classes: {listed_classes(range(cfg.model.num_classes), cfg.data.class_names)}")
    if growth_frame(cfg.model)[0] > 1:
        run.report.say(f"There will be {about_growth(cfg.model)}")
    state.log_bytes = run.report.lengths()
    state.save(run.run_dir / STATE, cfg)


def begin_phase(run: Run) -> None:
    """Forget Adam's moments, at both ends of a fade: they describe a network of another depth (the published habit)."""
    state, stage = run.state, run.stage
    state.opt_g.forget()
    state.opt_d.forget()
    state.phase = stage.phase
    what = f"fading in {stage.resolution}" if stage.phase % 2 else f"at {stage.resolution}"
    run.report.say(f"phase {stage.phase} at {state.nimg / 1000:.1f} kimg: {what}, batch {stage.batch}, lr {stage.lr:g}")


def settle(run: Run) -> None:
    """Take stock of the steps since the last time: of what was not finite, and of how many images fit at once.

    Says so, and goes back to the last good state if too many steps in a row were bad, also if the last one was not:
    whenever stock is taken, the answer is the same, so that a run that was stopped goes on as one that was not.
    This waits for the device, and for the other processes.
    """
    state, report = run.state, run.report
    reading = state.read()
    if reading is None:
        return
    for resolution, own in state.micro_batch.items():
        least = -all_reduce_max(run.dist, "memory", -own)
        if least < own:
            say_how_many_fit(run, resolution, least)
    if reading.culprits:
        named = ", ".join(f"{what} ({count})" for what, count in state.describe(reading).items())
        report.say(f"{counted(sum(reading.culprits.values()), 'step')} skipped between {reading.began / 1000:.2f} and "
                   f"{state.nimg / 1000:.2f} kimg, because this is not finite: {named}; "
                   f"at most {reading.most_bad_steps} in a row, {state.skipped} in all")  # fmt: skip
    if reading.most_bad_steps >= run.cfg.max_bad_steps:
        roll_back(run, reading.most_bad_steps)


def say_how_many_fit(run: Run, resolution: int, images: int) -> None:
    """Work on so many images at once from now on, as memory has run out."""
    run.state.micro_batch[resolution] = images
    run.report.say(f"out of memory at {run.state.nimg / 1000:.2f} kimg: from now on {images} images per GPU at once, "
                   "which changes nothing but rounding")  # fmt: skip


def restore_newest(state: TrainState, run_dir: Path, dist: DistContext = SINGLE_PROCESS) -> str:
    """Become the newest state that is whole. Returns what to say of one that is not; process 0 sees to that.

    Raises UserError if none is whole.
    """
    said: list[str] = []
    on_rank0(dist, "finding the state", lambda: said.append(settle_state(run_dir)))
    state.restore(run_dir / STATE)
    return "".join(said)


def roll_back(run: Run, bad: int) -> None:
    """Return to the last good state, with other random numbers. Raises UserError when that has not helped before.

    bad: so many steps in a row were
    """
    state = run.state
    rollbacks, skipped, seconds = state.rollbacks + 1, state.skipped, state.seconds
    if rollbacks > MAX_ROLLBACKS:
        raise UserError(
            f"the run diverged {rollbacks} times; the last good state is in {run.run_dir}. Start a new run with a "
            "lower --lr, a higher --gamma or --fp32 1"
        )
    damaged = restore_newest(state, run.run_dir, run.dist)
    if damaged:
        run.report.say(damaged)
    if state.bad_steps:  # saved amid them, as the user had stopped the run: the one before is good
        on_rank0(run.dist, "finding the last good state", partial(step_back, run.run_dir))
        state.restore(run.run_dir / STATE)
    state.rollbacks, state.skipped, state.bad_steps, state.seconds = rollbacks, skipped, 0, seconds
    run.report.say(f"{bad} bad steps in a row: back to the last good state, at {state.nimg / 1000:.1f} kimg, "
                   f"with other random numbers (time {rollbacks} of {MAX_ROLLBACKS})")  # fmt: skip


def tick(run: Run) -> None:
    """Report, draw the fakes, and save when it is time to."""
    state, clock = run.state, run.clock
    seconds = clock.seconds()
    images = max(clock.images, 1)  # a resumed run may have had nothing left to do
    state.tick, state.tick_nimg = state.tick + 1, state.nimg
    state.seconds += clock.lap()
    left = seconds_left(run.cfg, state.nimg, seconds / images, clock.machine)
    run.report.tick(_values(run, seconds, images), state.nimg, *left)
    on_rank0(run.dist, "tick", partial(_save_tick, run))
    clock.restart()


def _save_tick(run: Run) -> None:
    """A state amid bad steps is none to return to: the one before stays until there is a good one."""
    bad = run.state.bad_steps
    save_fakes(run.file("fakes", ".png"), run.state.G_ema, run.stage)
    due = run.snapshot_due or time.perf_counter() - run.clock.saved > run.cfg.snap_minutes * 60
    if run.snapshot_due:
        save(run, state=not bad)
    elif due and not bad:
        _save_state(run)
    if due and bad:
        run.report.say(f"The state is not saved at this tick: the last {counted(bad, 'step')} came to nothing")
    elif due:
        run.clock.saved = time.perf_counter()


def measure(run: Run, interrupts: Interrupts) -> None:
    """Measure the snapshot that was saved last, keep the best, and delete those that --keep does not keep.

    All is saved by then, so that a wish to stop need not wait.
    """
    cfg, state, report, snapshot = run.cfg, run.state, run.report, run.snapshot

    def work() -> None:
        micro_batch = state.micro_batch.get(run.stage.resolution)
        measure_snapshot(
            cfg, snapshot, report.say, report.say_once, lambda found: report.points(found, state.nimg), micro_batch
        )
        keep_best(cfg, run.run_dir, report.say)

    if cfg.metrics != NO_METRICS and not interrupts.unless_requested(work):
        report.say(f"{snapshot.name} has not been measured to the end; calc_metrics.py does it, and so does --resume")
    prune(cfg, run.run_dir)
    run.clock.restart()


def save(run: Run, film: bool = True, state: bool = True) -> None:
    """A snapshot for the tools, the state for a resume, and the film so far, which may take seconds."""
    save_networks(run.snapshot, run.state, run.cfg, run.stage)
    if state:
        _save_state(run)
    if film:
        save_growth(run.run_dir, run.cfg.model)


def save_networks(path: Path, state: TrainState, cfg: RunConfig, stage: Stage) -> None:
    """A snapshot."""
    D, data = state.D if cfg.snap_d else None, cfg.data
    store(path, Snapshot(
        state.G_ema, D, cfg.model, Stage(stage.resolution, stage.alpha), state.nimg / 1000, Path(data.path).stem,
        data.class_names, data.empty_classes,
    ))  # fmt: skip


def end_run(run: Run) -> None:
    """Every run ends with a snapshot and its images."""
    state = run.state
    if state.nimg > state.tick_nimg:
        tick(run)
    state.seconds += run.clock.lap()
    if run.cfg.time_limit is not None:  # said before the state is saved, so that it stays in the log
        _say_how_timely(run, run.cfg.time_limit)
    on_rank0(run.dist, "the last save", partial(save, run))
    short = unfinished_growth(run.cfg, state.nimg)
    further = f" {short}: train.py --resume {run.run_dir} --kimg N goes on." if short else ""
    run.report.say(
        f"Done: {state.nimg / 1000:.1f} kimg.{further} Images, growth.webp and the network are in {run.run_dir}"
    )


def stop_run(run: Run, signum: int) -> None:
    """End at the wish of the user: say so, and save. What is said before the state is saved stays in the log.

    signum: of the signal. The film, which may take seconds, waits for the next snapshot unless it was Ctrl-C.
    """
    state, report = run.state, run.report
    state.seconds += run.clock.lap()
    by = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
    report.say(f"Stopped by {by} at {state.nimg / 1000:.1f} of {run.cfg.total_kimg:g} kimg: saving {run.snapshot.name} "
               f"and {STATE}")  # fmt: skip
    on_rank0(run.dist, "the last save", partial(save, run, film=signum == signal.SIGINT))
    report.say(f"All is saved. To go on: train.py --resume {run.run_dir}")


def _say_how_timely(run: Run, time_limit: float) -> None:
    """Of a run planned by --hours: did it end before its plan, or was the plan too short?"""
    state, cfg = run.state, run.cfg
    if state.nimg < cfg.total_kimg * 1000:
        run.report.say(
            f"The time of {cfg.hours:g} h is over, at {state.nimg / 1000:.1f} of the {cfg.total_kimg:g} kimg planned: "
            f"training was slower than measured. To go on: train.py --resume {run.run_dir} --kimg {cfg.total_kimg:g}"
        )
    elif state.seconds < 0.91 * time_limit:  # the limit is 1.04 times the plan
        run.report.say(
            f"Training was faster than measured, by {duration(time_limit / LATE - state.seconds)} of the "
            f"{cfg.hours:g} h. More can be had: train.py --resume {run.run_dir} --kimg N"
        )


def _save_state(run: Run) -> None:
    run.state.log_bytes = run.report.lengths()
    run.state.save(run.run_dir / STATE, run.cfg, previous=run.run_dir / PREVIOUS)


def _values(run: Run, seconds: float, images: int) -> dict[str, Any]:
    """The tick's line in stats.jsonl; empties the sums. images: worked through in so many seconds"""
    state, stage = run.state, run.stage
    means = {
        STAT_NAMES[name]: total / count
        for name, (total, count) in sorted(state.sums.items())
        if count and name in STAT_NAMES
    }
    state.sums = {}
    device = next(state.G.parameters()).device
    return {
        "Progress/tick": state.tick, "Progress/kimg": state.nimg / 1000, "Progress/resolution": stage.resolution,
        "Progress/alpha": stage.alpha, "Progress/lod": run.cfg.growth.lod(stage), "Progress/batch": stage.batch,
        "Progress/lr": stage.lr, "Progress/skipped_steps": state.skipped,
        **{name: value for name, value in means.items() if math.isfinite(value)},
        "Timing/total_sec": state.seconds, "Timing/sec_per_tick": seconds,
        "Timing/sec_per_kimg": seconds / images * 1000, "Timing/img_per_sec": images / seconds,
        "Timing/data_percent": 100 * run.clock.data_seconds / seconds, "Resources/peak_mem_mb": peak_memory_mb(device),
    }  # fmt: skip
