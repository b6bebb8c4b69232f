"""Grow a generative network on a folder of pictures. `python train.py --help` explains the options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

import stylegan
from stylegan.kernels import ops_option, with_kernels
from torch_utils.cli import Bool, Command, Option, settings_options, under
from torch_utils.device import cpu_threads, pick_device
from torch_utils.errors import UserError
from training.archive import EMBEDDED, Archive
from training.config import BORROWED_FLAGS, ESSENTIALS, MACHINE, RunConfig
from training.cost import estimated_speed
from training.loop import open_data, pick_dtype, train
from training.plan import describe
from training.presets import PRESETS, varying
from training.resolve import DataFacts, resolve, resumed, same_data
from training.rundir import create_run_dir, make_outdir, read_options, write_options

EPILOG = "\b\nPresets for --cfg:\n" + "\n".join(f"  {name:<13} {entry.about}" for name, entry in PRESETS.items())


OPTIONS = [
    under(ESSENTIALS, Option(["--outdir"], type=click.Path(path_type=Path, file_okay=False),
                             help="Where to make the directory of the run, 00000-DATA-CFG.")),
    *settings_options(RunConfig, BORROWED_FLAGS, varying()),
    under(MACHINE, Option(["--fp32"], type=Bool, is_flag=False, flag_value=True,
                          help="Short for --precision fp32.")),
    ops_option(MACHINE),
    under(ESSENTIALS, Option(["--init-from"], metavar="SNAPSHOT",
                             help="Start from the weights of another network, as far as they fit.")),
    under(ESSENTIALS, Option(["--resume"], type=click.Path(path_type=Path), metavar="RUNDIR",
                             help="Go on with a run that was stopped, exactly where it was saved; alone.")),
    under(ESSENTIALS, Option(["-n", "--dry-run"], is_flag=True, help="Print the plan and stop.")),
]  # fmt: skip


@click.command(cls=Command, params=OPTIONS, epilog=EPILOG, context_settings={"max_content_width": 110})
def main(
    outdir: Path | None, resume: Path | None, init_from: str | None, dry_run: bool, fp32: bool | None,
    typed: dict[str, Any],
) -> None:  # fmt: skip
    """Train a generative network that grows from tiny pictures to the full size of yours.

    \b
      train.py --outdir runs --data mnist --cfg digits32
      train.py --outdir runs --data faces.zip --cfg faces64 --gamma 0.2
      train.py --resume runs/00000-mnist-digits32

    Training is counted in kimg: thousands of real pictures shown. It proceeds in phases: a resolution is trained for a
    while, then the next one fades in, and so on up to the full size. --dry-run shows them.

    Batch sizes, learning rates and times may differ by resolution: "8:256,16:128,32" is 256 at 8x8, 128 at 16x16 and
    32 everywhere else.
    """
    typed = _with_precision(typed, fp32)
    if resume:
        run_dir, cfg = resume, _resumed(resume, outdir, init_from, typed)
    else:
        facts = _facts(typed.get("data.path", ""))
        cfg = _new(typed, facts)
    # What could fail later is tried before anything is written.
    device = with_kernels(pick_device(cfg.device))
    if init_from:
        stylegan.load(init_from)
    if dry_run:
        torch.set_num_threads(cpu_threads(cfg.threads))  # the time depends on them
        click.echo(describe(cfg, estimated_speed(cfg, pick_dtype(cfg, device), device)))
        return
    if cfg.gpus > 1:
        raise UserError(
            f"--gpus {cfg.gpus}: this version trains on one device, and only --dry-run plans for more; use --gpus 1, "
            "with --batch and --batch-gpu to follow a larger recipe on one device"
        )
    if not resume:
        run_dir = _run_dir(outdir, "-".join(filter(None, [facts.name, cfg.preset, cfg.desc])), cfg)
    train(cfg, run_dir, resume=resume is not None, init_from=init_from)


def _facts(path: str) -> DataFacts:
    """What the data are. Raises UserError if there are none."""
    if not path:
        raise UserError("which pictures? give --data, as in --data mnist or --data faces.zip")
    return DataFacts.of(Archive.open(path))


def _new(typed: dict[str, Any], facts: DataFacts) -> RunConfig:
    """The configuration of a new run; says which preset it took if none was typed."""
    path = typed["data.path"]
    if path not in EMBEDDED:  # so that the run can be resumed from another folder
        path = str(Path(path).resolve())
    cfg = resolve(typed | {"data.path": path}, facts)
    if "preset" not in typed:
        click.echo(f"No --cfg given: for {facts.width}x{facts.height} pictures, taking {cfg.preset}.")
    return cfg


def _resumed(run_dir: Path, outdir: Path | None, init_from: str | None, typed: dict[str, Any]) -> RunConfig:
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


def _with_precision(typed: dict[str, Any], fp32: bool | None) -> dict[str, Any]:
    """`typed`, where --fp32 has become the setting it stands for."""
    if fp32 is None:
        return typed
    if "precision" in typed:
        raise UserError(f"--fp32 and --precision {typed['precision']} set the same thing; give one of them")
    return typed | {"precision": "fp32" if fp32 else "auto"}


if __name__ == "__main__":
    main()
