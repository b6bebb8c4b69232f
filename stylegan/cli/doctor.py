"""Is everything here that makes this engine run, and run fast? `python doctor.py` tells, and names the cure."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from torch_utils.cli import Command


@click.command(cls=Command)
@click.option("--fix", is_flag=True, help="First clear away stale locks and what broken builds have left.")
@click.option("--device", default="auto", show_default=True, help="Whose kernels to try: auto, cpu, cuda or cuda:1.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def main(ctx: click.Context, fix: bool, device: str, as_json: bool) -> None:
    """Check this machine: versions, compilers, GPU, caches, memory, threads, disk, and every fused op.

    Each op is compared with its reference in plain PyTorch, values and gradients, and timed beside it. The exit code is
    0 if nothing is broken, else 1; a note is what works and could be better.
    """
    # Here and not above: torch takes seconds to load, --help should not wait for it, and Ctrl-C may come meanwhile.
    from stylegan.diagnosis import examine, table

    report = examine(device, fix)
    click.echo(json.dumps(asdict(report) | {"broken": report.broken}, indent=2) if as_json else table(report))
    ctx.exit(int(report.broken))


if __name__ == "__main__":
    main()
