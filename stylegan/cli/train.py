"""Train a network on a folder or archive of images. `stylegan train --help` explains the options."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from stylegan.cli.options import WIDE, ops_option
from torch_utils.cli import Bool, Command, Option, Parsed, settings_options, under
from torch_utils.errors import UserError
from training.config import AUTO, ESSENTIALS, FLAGS, MACHINE, RunConfig
from training.presets import PRESETS, varying

EPILOG = "\b\nPresets for --cfg:\n" + "\n".join(f"  {name:<13} {entry.about}" for name, entry in PRESETS.items())


OPTIONS = [
    under(ESSENTIALS, Option(["--outdir"], type=click.Path(path_type=Path, file_okay=False),
                             help="Where to create the run directory, 00000-DATA-CFG.")),
    *settings_options(RunConfig, FLAGS, varying()),
    under(MACHINE, Option(["--fp32"], type=Bool, is_flag=False, flag_value=True,
                          help="The same as --precision fp32.")),
    ops_option(MACHINE),
    under(ESSENTIALS, Option(["--init-from"], metavar="SNAPSHOT",
                             help="Start with the weights of another network, as far as they fit, and with at least "
                             "as many feature maps.")),
    under(ESSENTIALS, Option(["--resume"], type=Parsed("rundir", lambda text: text if text == AUTO else Path(text)),
                             metavar="RUNDIR|auto",
                             help="Resume a run exactly where it was saved. Another --kimg makes it longer or "
                             "shorter. auto: the newest unfinished run in --outdir that the same command started, or a "
                             "new one.")),
    under(ESSENTIALS, Option(["-n", "--dry-run"], is_flag=True, help="Print the plan and stop.")),
]  # fmt: skip


@click.command(cls=Command, params=OPTIONS, epilog=EPILOG, context_settings=WIDE)
def main(
    outdir: Path | None, resume: Path | str | None, init_from: str | None, dry_run: bool, fp32: bool | None,
    typed: dict[str, Any],
) -> None:  # fmt: skip
    """Train a network that grows, from tiny images to the full size of yours.

    \b
      train.py --outdir runs --data mnist --cfg digits32
      train.py --outdir runs --data faces.zip --cfg faces64 --kimg 200
      train.py --outdir runs --data faces.zip --cfg faces64 --hours 2.5
      train.py --resume runs/00000-mnist-digits32
      train.py --resume runs/00000-mnist-digits32 --kimg 500
      train.py --outdir runs --data faces.zip --cfg faces64 --resume auto

    Training is measured in kimg: thousands of real images shown. It proceeds in phases: a resolution is trained for a
    while, then the next one fades in, and so on up to the full size. --dry-run lists them.

    Batch sizes, learning rates and times may depend on the resolution: "8:256,16:128,32" is 256 at 8x8, 128 at 16x16
    and 32 everywhere else.
    """
    began = time.perf_counter()
    # Not at the top, because --help should not wait for torch, and Ctrl-C should work while it loads.
    from training.runs.launch import launch

    launch(_with_precision(typed, fp32), outdir, resume, init_from, dry_run, began)


def _with_precision(typed: dict[str, Any], fp32: bool | None) -> dict[str, Any]:
    """The typed settings, with --fp32 as a setting of the precision."""
    if fp32 is None:
        return typed
    if "precision" in typed:
        raise UserError(f"--fp32 and --precision {typed['precision']} both set the precision; give only one of them")
    return typed | {"precision": "fp32" if fp32 else "auto"}


if __name__ == "__main__":
    main()
