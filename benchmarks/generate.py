"""The speed of generating images on this machine: from z to image, with the paper's channels min(16384 / R, 512).

python benchmarks/generate.py --resolution 256 --batch 8 --dtype bf16 --json
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import DTYPES, as_json_line, dtype_option, json_option, machine_options, seconds, setting_of
from stylegan.networks.inference import folded, with_kernels
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.cli import Command
from torch_utils.device import peak_memory_mb, pick_device


@click.command(cls=Command, params=machine_options(), context_settings={"show_default": True})
@click.option("--resolution", type=int, default=64, help="Resolution of the images.")
@click.option("--batch", type=int, default=8, help="Images at once.")
@dtype_option
@click.option("--seconds", "duration", type=float, default=10.0, help="Duration of the measurement.")
@json_option
def main(resolution: int, batch: int, dtype: str, duration: float, device: str, as_json: bool) -> None:
    """Measure images per second from z to image, and the duration of the first batch."""
    where = with_kernels(pick_device(device))
    cfg = StyleGAN1Config(resolution=resolution)
    begin = time.perf_counter()
    G = folded(build_generator(cfg).to(where), DTYPES[dtype], batch)
    z = torch.randn(batch, cfg.z_dim, device=where)
    times: list[float] = []
    with torch.inference_mode():
        while time.perf_counter() - begin < duration or len(times) < 5:
            times.append(seconds(partial(G, z, psi=0.7, dtype=DTYPES[dtype]), where))
    rate = batch / statistics.median(times[2:])
    result = {
        "images_per_s": rate,
        "gflops": rate * cfg.generator_cost(resolution).gflop,
        "first_s": times[0],
        "peak_rss_mb": peak_memory_mb(where),
    }
    if as_json:
        click.echo(as_json_line(result, 3))
        return
    click.echo(f"{resolution}x{resolution}, batch {batch}, {dtype}, {setting_of(where)}")
    click.echo(f"images/s        {rate:8.2f}   (median of {len(times) - 2})")
    click.echo(f"GFLOP/s         {result['gflops']:8.1f}")
    click.echo(f"first batch, s  {result['first_s']:8.2f}")
    click.echo(f"peak memory, MB {result['peak_rss_mb']:8.0f}")


if __name__ == "__main__":
    main()
