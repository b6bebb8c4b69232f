"""From what was typed to a run: settle the configuration, try what could fail, make the directory, train."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import stylegan
from stylegan.kernels import with_kernels
from torch_utils.device import pick_device
from torch_utils.distributed import World, from_environment, joined, told
from torch_utils.errors import UserError
from torch_utils.threads import cpu_threads
from training.archive import EMBEDDED, Archive
from training.config import RunConfig
from training.cost import estimated_speed
from training.footprint import footprint
from training.lock import locked
from training.loop import open_data, pick_dtype, train
from training.metrics.live import require_measurable
from training.plan import describe
from training.processes import check_devices, device_of, train_in_processes
from training.resolve import DataFacts, resolve, resumed, same_data
from training.rundir import STATE, create_run_dir, make_outdir, read_options, store_total, write_options


def launch(
    typed: Mapping[str, Any], outdir: Path | None, resume: Path | None, init_from: str | None, dry_run: bool
) -> None:
    """Train a new run in `outdir`, or go on with the one in `resume`; or only print the plan.

    typed: settings by dotted name   init_from: a snapshot to take fitting weights from
    Raises UserError for whatever the user can put right, if it can be known before, then before anything is written.
    """
    world = from_environment(os.environ)
    if world:
        typed = _joining(typed, world)
    if resume:
        run_dir, cfg = resume, _resumed(resume, outdir, init_from, typed)
    else:
        facts = _facts(typed.get("data.path", ""))
        cfg = _new(typed, facts, quiet=world is not None and world.rank > 0)
    # What could fail later is tried before anything is written.
    device = with_kernels(pick_device(cfg.device))
    if init_from:
        stylegan.load(init_from)
    require_measurable(cfg, device)
    if dry_run:
        torch.set_num_threads(cpu_threads(cfg.threads))  # the time depends on them
        dtype = pick_dtype(cfg, device)
        print(describe(cfg, estimated_speed(cfg, dtype, device), footprint(cfg, dtype, device)))
        return
    desc = "" if resume else "-".join(filter(None, [facts.name, cfg.preset, cfg.desc]))
    if world:
        _train_as_one_of(world, cfg, lambda: resume or _run_dir(outdir, desc, cfg), resume is not None, init_from)
        return
    check_devices(cfg)
    if not resume:
        run_dir = _run_dir(outdir, desc, cfg)
    with locked(run_dir):
        if resume:
            store_total(run_dir, cfg.total_kimg)
        if cfg.gpus > 1:
            train_in_processes(cfg, run_dir, resume is not None, init_from)
        else:
            train(cfg, run_dir, resume=resume is not None, init_from=init_from)


def _joining(typed: Mapping[str, Any], world: World) -> Mapping[str, Any]:
    """What was typed, with the number of processes that another launcher has started."""
    if typed.get("gpus", world.size) != world.size:
        raise UserError(f"--gpus {typed['gpus']}, but {world.size} processes were started; leave --gpus out")
    return {**typed, "gpus": world.size}


def _train_as_one_of(
    world: World, cfg: RunConfig, find: Callable[[], Path], resume: bool, init_from: str | None
) -> None:
    """Train as one of the processes that torchrun or srun has started. find: the run's directory, asked of one only."""
    with joined(world, device_of(cfg, world), cfg.timeout) as world:
        run_dir = Path(told(world, "the directory of the run", lambda: str(find())))
        with locked(run_dir) if world.rank == 0 else nullcontext():
            if resume and world.rank == 0:
                store_total(run_dir, cfg.total_kimg)
            saved = world.attempt > 0 and (run_dir / STATE).exists()
            train(cfg, run_dir, resume or saved, init_from, world)


def _facts(path: str) -> DataFacts:
    """What the data are. Raises UserError if there are none."""
    if not path:
        raise UserError("which pictures? give --data, as in --data mnist or --data faces.zip")
    return DataFacts.of(Archive.open(path))


def _new(typed: Mapping[str, Any], facts: DataFacts, quiet: bool) -> RunConfig:
    """The configuration of a new run; unless `quiet`, says which preset it took if none was typed."""
    path = typed["data.path"]
    if path not in EMBEDDED:  # so that the run can be resumed from another folder
        path = str(Path(path).resolve())
    cfg = resolve({**typed, "data.path": path}, facts)
    if "preset" not in typed and not quiet:
        print(f"No --cfg given: for {facts.width}x{facts.height} pictures, taking {cfg.preset}.")
    return cfg


def _resumed(run_dir: Path, outdir: Path | None, init_from: str | None, typed: Mapping[str, Any]) -> RunConfig:
    """The configuration of the run in `run_dir`. Raises UserError for anything typed that contradicts it."""
    if init_from:
        raise UserError(f"--init-from {init_from} is for new runs; leave it out to resume {run_dir}")
    if outdir and outdir.resolve() != run_dir.resolve().parent:
        raise UserError(f"--outdir {outdir} is not where {run_dir} lies; leave it out, a resumed run stays where it is")
    cfg = resumed(read_options(run_dir), typed)
    return same_data(cfg, _facts(cfg.data.path))


def _run_dir(outdir: Path | None, desc: str, cfg: RunConfig) -> Path:
    """A new run directory with the configuration in it. Before it is made, every picture has been read."""
    if not outdir:
        raise UserError("where to? give --outdir, as in --outdir runs")
    make_outdir(outdir)
    open_data(cfg)
    run_dir = create_run_dir(outdir, desc)
    write_options(run_dir, cfg)
    return run_dir
