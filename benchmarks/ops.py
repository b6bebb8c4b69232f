"""The speed of the fused ops and of their references: time, bytes per second, and the share of plain copying.

    python benchmarks/ops.py --op style_epilogue --shape 16x128x32x32 --dtype fp32 --compile

The kernel, the reference, torch.compile of the reference (--compile) and a copy of the same size take turns in one
process. GB/s counts the bytes that must be moved at least: inputs and outputs once, and for derivatives the tensors
that they have to read again.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # first, because this file has the name of the package

from benchmarks.machine import json_option, machine_options, setting_of
from ops.selftest import CASES, DTYPES, LAYOUTS, Case, features, interleaved, passes
from stylegan.diagnosis import preloaded_allocator
from stylegan.networks.inference import with_kernels
from torch_utils.cli import Command, Parsed
from torch_utils.device import pick_device
from torch_utils.errors import UserError

SHAPES = ("16x512x32x32", "16x128x32x32", "16x64x64x64", "4x64x256x256")
PASSES = ("forward", "forward+backward")
Row = dict[str, str | float]


def parse_shape(text: str) -> tuple[int, ...]:
    """Parse "16x64x32x32" as (16, 64, 32, 32). Raises UserError for anything else."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
        raise UserError(f"Invalid shape '{text}': expected NxCxHxW, for example 16x64x32x32")
    return tuple(map(int, text.split("x")))


@click.command(cls=Command, params=machine_options(), context_settings={"show_default": True})
@click.option("--op", "names", type=click.Choice([c.name for c in CASES]), multiple=True, help="Default: all.")
@click.option("--shape", "shapes", type=Parsed("shape", parse_shape), multiple=True, default=SHAPES, metavar="NxCxHxW",
              help="May be repeated.")  # fmt: skip
@click.option("--dtype", "dtypes", type=click.Choice(list(DTYPES)), multiple=True, default=list(DTYPES))
@click.option("--layout", "layouts", type=click.Choice(list(LAYOUTS)), multiple=True, default=list(LAYOUTS))
@click.option("--seconds", type=float, default=1.0, help="Duration for each row; every variant runs at least 3 times.")
@click.option("--compile", "compiled", is_flag=True, help="Also time torch.compile of the reference.")
@json_option
def main(
    names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], dtypes: tuple[str, ...], layouts: tuple[str, ...],
    seconds: float, compiled: bool, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Measure the fused ops on this machine: medians in milliseconds."""
    where = with_kernels(pick_device(device))
    head = setting_of(where) + (f" ({preloaded_allocator()} preloaded)" if preloaded_allocator() else "")
    if not as_json:
        click.echo(head)
    rows = []
    for case in (case for case in CASES if not names or case.name in names):
        for shape, dtype, layout in itertools.product(shapes, dtypes, layouts):
            x = features(shape, DTYPES[dtype], layout, where)
            for found in measured(case, x, seconds, compiled):
                what: Row = {"op": case.name, "shape": "x".join(map(str, shape)), "dtype": dtype, "layout": layout}
                rows.append(what | found)
                if not as_json:
                    click.echo(_line(rows[-1]))
    if as_json:
        click.echo(json.dumps({"setting": head, "rows": rows}))


def measured(case: Case, x: torch.Tensor, seconds: float, compiled: bool) -> list[Row]:
    """Measure an op on x: a row for each pass."""
    tensors = case.tensors(x)
    variants = {"kernel": passes(case, tensors, "auto"), "reference": passes(case, tensors, "ref")}
    if compiled:
        variants["compiled"] = passes(_compiled(case), tensors, "ref")
    bytes_moved = least_bytes(case, tensors)
    target = torch.empty_like(x)
    rows = []
    for name in PASSES:
        functions: dict[str, Callable[[], object]] = {variant: found[name] for variant, found in variants.items()}
        times = interleaved({**functions, "copy": lambda: target.copy_(x)}, x.device, seconds)
        rate, copying = bytes_moved[name] / times["kernel"], 2 * size(x) / times["copy"]
        row: Row = {"pass": name, **{f"{variant}_ms": 1000 * times[variant] for variant in functions}}
        rows.append(row | {"gb_per_s": rate / 1e9, "copy_share": rate / copying})
    return rows


def least_bytes(case: Case, tensors: list[torch.Tensor]) -> dict[str, int]:
    """The bytes to read and write if every tensor is accessed once; the keys are those of `passes`.

    The backward pass reads the cotangent, writes a gradient for each input or reads a constant again, and reads x again
    unless the op is linear.
    """
    with torch.no_grad():
        result = size(case.run([t.to("meta") for t in tensors], "ref"))
    inputs = sum(map(size, tensors))
    forward = inputs + result
    return {
        "forward": forward,
        "forward+backward": forward + result + inputs + (0 if case.linear else size(tensors[0])),
    }


def size(x: torch.Tensor) -> int:
    """The bytes of a tensor's elements."""
    return x.numel() * x.element_size()


def _compiled(case: Case) -> Case:
    run = torch.compile(lambda tensors: case.run(tensors, "ref"), dynamic=False)
    return Case(case.name, case.tensors, lambda tensors, impl: run(tensors), case.linear)


def _line(row: Row) -> str:
    others = {name: float(row[f"{name}_ms"]) for name in ("reference", "compiled") if f"{name}_ms" in row}
    times = "".join(f"  {name} {ms:.2f} ({ms / float(row['kernel_ms']):.1f}x)" for name, ms in others.items())
    what = f"{row['op']:14} {row['shape']:13} {row['dtype']} {row['layout']:13} {row['pass']:17}"
    speed = f"{row['kernel_ms']:8.2f} ms {row['gb_per_s']:7.1f} GB/s {row['copy_share']:5.0%} of copying"
    return what + speed + times


if __name__ == "__main__":
    main()
