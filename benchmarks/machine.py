"""What the benchmarks of speed share: the options for the machine, how times are taken, and what is printed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

import click
import torch

from stylegan.cli.options import ops_option
from torch_utils.device import cpu_threads, keep_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
dtype_option = click.option(
    "--dtype", type=click.Choice(list(DTYPES)), default="fp32", help="Number format of the feature maps."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def machine_options() -> list[click.Option]:
    """--ops and --threads, which take effect before the command runs and give it no parameter, and --device."""
    threads = click.Option(
        ["--threads"], type=int, help="CPU threads. Default: one per core.", expose_value=False, callback=_prepare
    )
    return [ops_option(), threads, click.Option(["--device"], default="auto", show_default=True)]


def _prepare(context: click.Context, option: click.Parameter, threads: int | None) -> None:
    keep_freed_memory()
    torch.set_num_threads(cpu_threads(threads))


def setting_of(device: torch.device) -> str:
    """The part of a headline that says where and how was measured."""
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, freed memory kept"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes, until the device has finished it."""
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def as_json_line(numbers: Mapping[str, float], digits: int) -> str:
    return json.dumps({name: round(value, digits) for name, value in numbers.items()})
