"""From what was typed to a run: settle the configuration, try what could fail, make the directory, train."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stylegan.networks.inference import with_kernels
from torch_utils.device import cpu_threads, pick_device
from torch_utils.distributed import SINGLE_PROCESS, DistContext, broadcast_from_rank0, from_environment, process_group
from torch_utils.errors import UserError
from torch_utils.interrupt import signals_end
from torch_utils.settings import shown
from torch_utils.text import say
from training.config import FLAGS, RunConfig
from training.data.archive import EMBEDDED, Archive
from training.data.labels import renamed
from training.data.packed import checked
from training.loop import open_data, pick_dtype, train
from training.runs.hours import budget_lines, plan
from training.runs.live_metrics import require_measurable, require_no_program, require_possible_metrics
from training.runs.memory import footprint, require_fits, require_state_of
from training.runs.plan import describe, estimated_speed, growth_table
from training.runs.processes import check_devices, device_of, train_in_processes
from training.runs.report import about_growth
from training.runs.resume import DataFacts, choose, description, resolve, resumed, same_data, unplanned
from training.runs.run_dir import (
    create_run_dir,
    has_state,
    images_done,
    locked,
    locked_name,
    make_outdir,
    plain_name,
    read_options,
    store_end,
    write_options,
)
from training.runs.speed_probe import costs_in_group, costs_of
from training.runs.transfer import inherited
from training.vision_aid import build_vision_aid


def launch(
    typed: Mapping[str, Any], outdir: Path | None, resume: Path | str | None, init_from: str | None, dry_run: bool,
    began: float, again: Path | None = None,
) -> None:  # fmt: skip
    """Train a new run in `outdir`, or go on with the one in `resume`; or only print the plan.

    typed: settings by dotted name   resume: a directory, or "auto": see `choose`
    init_from: a snapshot to take fitting weights from   again: a directory to begin a new run in, in place of its own
    began: time.perf_counter() when the user began to wait, from which --hours count
    Raises UserError for whatever the user can put right, if it can be known before, then before anything is written.
    """
    if isinstance(resume, str):
        _launch_newest(typed, outdir, init_from, dry_run, began)
        return
    dist = from_environment(os.environ)
    if dist:
        typed = _joining(typed, dist)
    if resume:
        cfg = _resumed(resume, outdir, init_from, typed, quiet=dist is not None and dist.rank > 0)
    else:
        facts = _facts(typed.get("data.path", ""))
        cfg = _new(typed, facts, quiet=dist is not None and dist.rank > 0, init_from=init_from)
    # What could fail later is tried before anything is written.
    device = with_kernels(pick_device(cfg.device))
    cpu_threads(cfg.threads)
    if resume:
        require_state_of(resume, cfg)
    require_fits(cfg, device, 0 if dry_run else dist.local_world_size if dist else cfg.gpus)
    require_measurable(cfg, device)
    if not resume or "metrics" in typed:  # an older run goes on, and says which of its metrics it leaves out
        require_possible_metrics(cfg)
    if not dry_run:
        build_vision_aid(cfg.loss, cfg.model.minibatch_group, torch.device("cpu"))  # fetches what it takes
    planning = cfg.hours is not None and not resume
    if dry_run and (dist is None or dist.rank == 0):
        say(f"Data: {_facts(cfg.data.path).about(cfg)}")
    if dry_run and not planning:
        torch.set_num_threads(cpu_threads(cfg.threads))  # the time depends on them
        dtype = pick_dtype(cfg, device)
        room = checked(Archive.open(cfg.data.path, cfg.data.cache), map(cfg.model.size, cfg.growth.resolutions))
        more = [f"Disk         {room}, for the reduced images", _film_line(cfg)]
        say(describe(cfg, estimated_speed(cfg, dtype, device), footprint(cfg, dtype, device), more))
        return
    desc = "" if resume else description(cfg, facts)
    if dist:
        with process_group(dist, device_of(cfg, dist), cfg.timeout) as dist:
            _agree(dist, resume)
            if planning:
                cfg = _planned(cfg, dist, began, outdir, dry_run)
            if not dry_run:
                _train_as_one_of(dist, cfg, lambda: resume or _run_dir(outdir, desc, cfg, again), resume, init_from)
        return
    check_devices(cfg)
    with signals_end():
        if planning:
            cfg = _planned(cfg, SINGLE_PROCESS, began, outdir, dry_run)
        if dry_run:
            return
        run_dir = resume or _run_dir(outdir, desc, cfg, again)
        with locked(run_dir):
            if resume:
                store_end(run_dir, cfg)
            work = train_in_processes if cfg.gpus > 1 else train
            work(cfg, run_dir, resume is not None, init_from)


def _launch_newest(
    typed: Mapping[str, Any], outdir: Path | None, init_from: str | None, dry_run: bool, began: float
) -> None:
    """--resume auto. In a group each process chooses by itself, before any of them writes: all see the same files."""
    dist = from_environment(os.environ)
    first = dist is None or dist.rank == 0
    facts = _facts(typed.get("data.path", ""))
    asked = _joining(typed, dist) if dist else typed
    name = plain_name(description(_new(asked, facts, quiet=True), facts))
    outdir = _require_outdir(outdir, written=first and not dry_run)
    with locked_name(outdir, name) if first and not dry_run else nullcontext():
        choice = choose(outdir, asked, facts, init_from is not None)
        if first:
            say(choice.said)
        if choice.finished:
            return
        if choice.saved:
            launch(unplanned(typed), outdir, choice.run_dir, None, dry_run, began)
        else:
            launch(typed, outdir, None, init_from, dry_run, began, again=choice.run_dir)


def _joining(typed: Mapping[str, Any], dist: DistContext) -> Mapping[str, Any]:
    """What was typed, with the number of processes that another launcher has started."""
    if typed.get("gpus", dist.world_size) != dist.world_size:
        raise UserError(f"--gpus {typed['gpus']}, but {dist.world_size} processes were started; leave --gpus out")
    return {**typed, "gpus": dist.world_size}


def _train_as_one_of(
    dist: DistContext, cfg: RunConfig, find: Callable[[], Path], resume: Path | None, init_from: str | None
) -> None:
    """Train as one of a group that torchrun or srun has started. find: the run's directory, asked of one only."""
    run_dir = Path(broadcast_from_rank0(dist, "the directory of the run", lambda: str(find())))
    with locked(run_dir) if dist.rank == 0 else nullcontext():
        if resume and dist.rank == 0:
            store_end(run_dir, cfg)
        saved = dist.attempt > 0 and has_state(run_dir)
        train(cfg, run_dir, resume is not None or saved, init_from, dist)


def _agree(dist: DistContext, resume: Path | None) -> None:
    """Raises UserError unless all processes go on with the same run, or all with a new one."""
    mine = str(resume or "a new run")
    first = broadcast_from_rank0(dist, f"the choice of a run, attempt {dist.attempt}", lambda: mine)
    if first != mine:
        raise UserError(f"Rank {dist.rank} sees {mine} and rank 0 {first}; use an --outdir that all ranks share")


def _planned(cfg: RunConfig, dist: DistContext, began: float, outdir: Path | None, dry_run: bool) -> RunConfig:
    """`cfg` with the growth for which its hours leave time, measured here and now; the plan is printed."""
    if not dry_run:
        _require_outdir(outdir)
    if dist.rank == 0:
        say("Measuring how fast this machine trains")
    open_data(cfg, dist.rank == 0)  # packed once, which is no part of a run
    if dist.world_size > 1:
        costs, gone = costs_in_group(cfg, dist, began)
    else:
        costs, gone = costs_of(cfg), time.perf_counter() - began
    cfg = plan(cfg, costs, 3600 * (cfg.hours or 0.0) - gone)
    if dist.rank == 0:
        speed = partial(costs.images_per_second, cfg)
        device = pick_device(cfg.device)
        memory = footprint(cfg, pick_dtype(cfg, device), device)
        budget = budget_lines(cfg, costs)
        if dry_run:
            say(describe(cfg, speed, memory, [_film_line(cfg), *budget]))
        else:
            say("\n".join([*growth_table(cfg, speed, memory), *budget]))
    return cfg


def _film_line(cfg: RunConfig) -> str:
    """A line of a plan."""
    return f"Film         {about_growth(cfg.model)}"


def _facts(path: str) -> DataFacts:
    """What the data are. Raises UserError if there are none."""
    if not path:
        raise UserError("which images? give --data, as in --data mnist or --data faces.zip")
    return DataFacts.of(Archive.open(path))


def _new(typed: Mapping[str, Any], facts: DataFacts, quiet: bool, init_from: str | None = None) -> RunConfig:
    """The configuration of a new run; unless `quiet`, says what it took where nothing was typed: a preset, a width."""
    path = typed["data.path"]
    if path not in EMBEDDED:  # so that the run can be resumed from another folder
        path = str(Path(path).resolve())
    cfg = resolve({**typed, "data.path": path}, facts)
    if "preset" not in typed and not quiet:
        say(f"No --cfg given: for {facts.width}x{facts.height} images, taking {cfg.preset}.")
    if init_from and (taken := {k: v for k, v in inherited(init_from, cfg.model).items() if k not in typed}):
        cfg = resolve({**typed, **taken, "data.path": path}, facts)
        if not quiet:
            say(f"As in {init_from}: {', '.join(f'{_spelling(name)} {shown(v)}' for name, v in taken.items())}")
    return cfg


def _spelling(name: str) -> str:
    """A setting, by dotted name, as it is typed; by its own name if it cannot be."""
    return FLAGS[name].spellings[0] if name in FLAGS else name.removeprefix("model.")


def _resumed(
    run_dir: Path, outdir: Path | None, init_from: str | None, typed: Mapping[str, Any], quiet: bool
) -> RunConfig:
    """The configuration of the run in `run_dir`. Raises UserError for anything typed that contradicts it.

    Unless `quiet`, says where the names of its classes are not those of the data any more.
    """
    if init_from:
        raise UserError(f"--init-from {init_from} is for new runs; leave it out to resume {run_dir}")
    if outdir and outdir.resolve() != run_dir.resolve().parent:
        raise UserError(f"--outdir {outdir} is not where {run_dir} lies; leave it out, a resumed run stays where it is")
    cfg = resumed(read_options(run_dir), typed, partial(images_done, run_dir))
    if cfg.data.path not in EMBEDDED and not Path(cfg.data.path).exists():
        raise UserError(f"{cfg.data.path}, which {run_dir} trains on, is not there; give its new place, as in --resume "
                        f"{run_dir} --data NEWPATH")  # fmt: skip
    if "features" not in typed:
        require_no_program(cfg, str(run_dir))
    facts = _facts(cfg.data.path)
    found = same_data(cfg, facts, run_dir)
    others = renamed(cfg.data.class_names, facts.class_names) if cfg.data.cond else ""
    if others and not quiet:
        say(f"Names of classes differ between {run_dir} and {cfg.data.path}: {others}; the names of the data are used "
            "from now on")  # fmt: skip
    return found


def _run_dir(outdir: Path | None, desc: str, cfg: RunConfig, again: Path | None) -> Path:
    """A new run directory, or `again`, with the configuration in it. Before that, every image has been read."""
    outdir = _require_outdir(outdir)
    open_data(cfg)
    run_dir = again or create_run_dir(outdir, desc)
    write_options(run_dir, cfg)
    return run_dir


def _require_outdir(outdir: Path | None, written: bool = True) -> Path:
    """Raises UserError if it was not given, or is to be written to and cannot be."""
    if not outdir:
        raise UserError("where to? give --outdir, as in --outdir runs")
    if written:
        make_outdir(outdir)
    return outdir
