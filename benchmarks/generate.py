"""The speed of generating images on this machine: from z to image, with the paper's channels min(16384 / R, 512).

python benchmarks/generate.py --resolution 256 --batch 8 --dtype bf16 --json
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stylegan.cli.options import ops_option
from stylegan.networks.inference import folded, with_kernels
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.cli import Command
from torch_utils.device import cpu_threads, keep_freed_memory, peak_memory_mb, pick_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@click.command(cls=Command, params=[ops_option()], context_settings={"show_default": True})
@click.option("--resolution", type=int, default=64, help="Resolution of the images.")
@click.option("--batch", type=int, default=8, help="Images at once.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="fp32", help="Number format of the feature maps.")
@click.option("--seconds", type=float, default=10.0, help="Duration of the measurement.")
@click.option("--threads", type=int, default=None, help="CPU threads. Default: one per core.")
@click.option("--device", default="auto")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    resolution: int, batch: int, dtype: str, seconds: float, threads: int | None, device: str, as_json: bool
) -> None:  # fmt: skip
    """Measure images per second from z to image, and the duration of the first batch."""
    keep_freed_memory()
    torch.set_num_threads(cpu_threads(threads))
    where = with_kernels(pick_device(device))
    cfg = StyleGAN1Config(resolution=resolution)
    begin = time.perf_counter()
    G = folded(build_generator(cfg).to(where), DTYPES[dtype], batch)
    z = torch.randn(batch, cfg.z_dim, device=where)
    times: list[float] = []
    with torch.inference_mode():
        while time.perf_counter() - begin < seconds or len(times) < 5:
            started = time.perf_counter()
            G(z, psi=0.7, dtype=DTYPES[dtype])
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            times.append(time.perf_counter() - started)
    rate = batch / statistics.median(times[2:])
    result = {
        "images_per_s": rate,
        "gflops": rate * cfg.generator_cost(resolution).gflop,
        "first_s": times[0],
        "peak_rss_mb": peak_memory_mb(where),
    }
    if as_json:
        click.echo(json.dumps({name: round(value, 3) for name, value in result.items()}))
        return
    click.echo(f"{resolution}x{resolution}, batch {batch}, {dtype}, {where}, {torch.get_num_threads()} threads,"
               f" torch {torch.__version__}, freed memory kept")  # fmt: skip
    click.echo(f"images/s        {rate:8.2f}   (median of {len(times) - 2})")
    click.echo(f"GFLOP/s         {result['gflops']:8.1f}")
    click.echo(f"first batch, s  {result['first_s']:8.2f}")
    click.echo(f"peak memory, MB {result['peak_rss_mb']:8.0f}")


if __name__ == "__main__":
    main()
