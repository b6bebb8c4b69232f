"""Check this machine, and propose a cure for each problem. `stylegan doctor --help` explains the options."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from torch_utils.cli import Command
from torch_utils.text import say


@click.command(cls=Command)
@click.option("--fix", is_flag=True, help="First remove stale locks and the remains of failed builds.")
@click.option("--device", default="auto", show_default=True, help="Which kernels to test: auto, cpu, cuda or cuda:1.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def main(ctx: click.Context, fix: bool, device: str, as_json: bool) -> None:
    """Check this machine: versions, compilers, GPU, caches, memory, threads, disk, and every fused op.

    The values, gradients and times of each op are compared with those of its reference in plain PyTorch. The exit code
    is 0 if nothing is broken, else 1. A note is about something that works but could be better.
    """
    # Not at the top, because --help should not wait for torch, and Ctrl-C should work while it loads.
    from stylegan.diagnosis import examine, table

    report = examine(device, fix)
    say(json.dumps(asdict(report) | {"broken": report.broken}, indent=2) if as_json else table(report))
    ctx.exit(int(report.broken))


if __name__ == "__main__":
    main()
