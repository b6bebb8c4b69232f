"""From what was typed to a run: settle the configuration, try what could fail, make the directory, train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import stylegan
from stylegan.kernels import with_kernels
from torch_utils.device import pick_device
from torch_utils.errors import UserError
from torch_utils.threads import cpu_threads
from training.archive import EMBEDDED, Archive
from training.config import RunConfig
from training.cost import estimated_speed
from training.lock import locked
from training.loop import open_data, pick_dtype, train
from training.metrics.live import require_measurable
from training.plan import describe
from training.resolve import DataFacts, resolve, resumed, same_data
from training.rundir import create_run_dir, make_outdir, read_options, store_total, write_options


def launch(
    typed: Mapping[str, Any], outdir: Path | None, resume: Path | None, init_from: str | None, dry_run: bool
) -> None:
    """Train a new run in `outdir`, or go on with the one in `resume`; or only print the plan.

    typed: settings by dotted name   init_from: a snapshot to take fitting weights from
    Raises UserError for whatever the user can put right, if it can be known before, then before anything is written.
    """
    if resume:
        run_dir, cfg = resume, _resumed(resume, outdir, init_from, typed)
    else:
        facts = _facts(typed.get("data.path", ""))
        cfg = _new(typed, facts)
    # What could fail later is tried before anything is written.
    device = with_kernels(pick_device(cfg.device))
    if init_from:
        stylegan.load(init_from)
    require_measurable(cfg, device)
    if dry_run:
        torch.set_num_threads(cpu_threads(cfg.threads))  # the time depends on them
        print(describe(cfg, estimated_speed(cfg, pick_dtype(cfg, device), device)))
        return
    if cfg.gpus > 1:
        raise UserError(
            f"--gpus {cfg.gpus}: this version trains on one device, and only --dry-run plans for more; use --gpus 1, "
            "with --batch and --batch-gpu to follow a larger recipe on one device"
        )
    if not resume:
        run_dir = _run_dir(outdir, "-".join(filter(None, [facts.name, cfg.preset, cfg.desc])), cfg)
    with locked(run_dir):
        if resume:
            store_total(run_dir, cfg.total_kimg)
        train(cfg, run_dir, resume=resume is not None, init_from=init_from)


def _facts(path: str) -> DataFacts:
    """What the data are. Raises UserError if there are none."""
    if not path:
        raise UserError("which pictures? give --data, as in --data mnist or --data faces.zip")
    return DataFacts.of(Archive.open(path))


def _new(typed: Mapping[str, Any], facts: DataFacts) -> RunConfig:
    """The configuration of a new run; says which preset it took if none was typed."""
    path = typed["data.path"]
    if path not in EMBEDDED:  # so that the run can be resumed from another folder
        path = str(Path(path).resolve())
    cfg = resolve({**typed, "data.path": path}, facts)
    if "preset" not in typed:
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
