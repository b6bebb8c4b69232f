"""The speed of training on this machine: full iterations (D with R1, average, G) on random images.

    python benchmarks/train_step.py --resolution 64 --batch 16 --dtype bf16 --json

The arithmetic is counted as the minimum that is known to be sufficient (`training.runs.plan`), so that the rate can be
compared with that of plain convolutions, which are measured as well.

With --against, another checkout is measured in turns with this one, each time in a new process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import DTYPES, as_json_line, dtype_option, json_option, machine_options, seconds, setting_of
from stylegan.networks.inference import with_kernels
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.cli import Command
from torch_utils.device import peak_memory_mb, pick_device
from torch_utils.errors import UserError
from training.config import LossConfig, RunConfig
from training.runs.plan import aid_cost, conv_gflops, step_cost
from training.schedule import GrowthSchedule, PerResolution
from training.state import fresh_state
from training.step import train_step

STEPS = 12
TURNS = 5


@click.command(cls=Command, params=machine_options(), context_settings={"show_default": True})
@click.option("--resolution", type=int, default=64, help="Resolution of the images.")
@click.option("--batch", type=int, default=16, help="Images per step.")
@dtype_option
@click.option("--r1-interval", type=int, default=1, help="R1 at every N-th step.")
@click.option(
    "--aid-zoom", type=int, default=0, help="Use the vision aid, with images enlarged this many times; 0: without."
)
@click.option("--share-fakes", is_flag=True, help="As in train.py.")
@click.option(
    "--against", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Another checkout to compare with, in {TURNS} turns.",
)  # fmt: skip
@json_option
def main(
    resolution: int, batch: int, dtype: str, r1_interval: int, aid_zoom: int, share_fakes: bool, against: Path | None,
    device: str, as_json: bool,
) -> None:  # fmt: skip
    """Measure images per second of full training iterations, and their share of the machine's convolution rate.

    Channels at resolution R are min(4096 / R, 128), as in the presets digits32 and faces64.
    """
    if against:
        asked = [f"--resolution={resolution}", f"--batch={batch}", f"--dtype={dtype}", f"--r1-interval={r1_interval}",
                 f"--aid-zoom={aid_zoom}", *["--share-fakes"] * share_fakes, f"--device={device}",
                 f"--threads={torch.get_num_threads()}"]  # fmt: skip
        here = Path(__file__).resolve().parents[1]
        return show(compared({"": here, "other_": against.resolve()}, asked, TURNS), as_json)
    where = with_kernels(pick_device(device))
    model = StyleGAN1Config(resolution=resolution, fmap_base=4096, fmap_max=128)
    growth = GrowthSchedule(initial=resolution, final=resolution, batch=PerResolution(batch))
    loss = LossConfig(r1_interval=r1_interval, share_fakes=share_fakes)
    if aid_zoom:
        loss = replace(loss, vision_aid="vgg16", aid_zoom=aid_zoom)
    cfg = RunConfig(model=model, growth=growth, loss=loss)
    times = iteration_seconds(cfg, STEPS, DTYPES[dtype], where)
    peak = peak_memory_mb(where)
    speed = batch / statistics.median(times)
    gflop = step_cost(model, cfg.loss, resolution)[0] + aid_cost(cfg, resolution)[0]
    result = {
        "images_per_s": speed,
        "gflop_per_image": gflop,
        "gflops": gflop * speed,
        "conv_gflops": conv_gflops(model, batch, DTYPES[dtype], where),
        "peak_rss_mb": peak,
    }
    if as_json:
        click.echo(as_json_line(result, 3))
        return
    click.echo(f"{resolution}x{resolution}, batch {batch}, {dtype}, R1 every {r1_interval}, aid zoom {aid_zoom}, "
               f"fakes {'shared' if share_fakes else 'not shared'}, {setting_of(where)}")  # fmt: skip
    spread = f"{batch / max(times):.2f} to {batch / min(times):.2f}"
    click.echo(f"images/s              {speed:8.2f}   (median of {STEPS}; {spread})")
    click.echo(f"GFLOP per image       {gflop:8.2f}")
    click.echo(f"GFLOP/s               {result['gflops']:8.1f}   {result['gflops'] / result['conv_gflops']:.0%} of")
    click.echo(f"convolutions, GFLOP/s {result['conv_gflops']:8.1f}")
    click.echo(f"peak memory, MB       {result['peak_rss_mb']:8.0f}")


def iteration_seconds(cfg: RunConfig, steps: int, dtype: torch.dtype, device: torch.device) -> list[float]:
    """Seconds of each of `steps` iterations, after two as a warm-up; with lazy R1, averages over whole periods."""
    state = fresh_state(cfg, device)
    stage = cfg.growth.at(0)
    images = torch.randn(stage.batch, cfg.model.channels, *cfg.model.size(stage.resolution), device=device).clamp(-1, 1)
    period = cfg.loss.r1_interval

    def iterate(count: int) -> None:
        for _ in range(count):
            train_step(state, (images, None), stage, cfg, None, dtype)
            state.nimg += stage.batch

    seconds(partial(iterate, 2), device)
    return [seconds(partial(iterate, period), device) / period for _ in range(steps)]


def compared(roots: dict[str, Path], asked: list[str], turns: int) -> dict[str, float]:
    """Medians of images per second and of peak memory of two checkouts, measured in turns, and their ratios.

    `least` and `most` are the ratios of speeds in single turns: far from each other, the machine had other work to do,
    and the medians tell nothing.
    roots: the checkouts, by what the names of their results begin with: "" and "other_"
    asked: arguments of this script   Raises UserError if one of the checkouts cannot be measured.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
    for turn in range(turns):
        for name in sorted(roots, reverse=turn % 2 == 1):  # neither is always the first
            command = [sys.executable, str(roots[name] / "benchmarks" / "train_step.py"), *asked, "--json"]
            done = subprocess.run(command, cwd=roots[name], capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
                raise UserError(f"cannot measure {roots[name]}: {reason}")
            found[name].append(json.loads(done.stdout))
    result = {name + what: statistics.median(turn[what] for turn in rows)
              for name, rows in found.items() for what in ("images_per_s", "peak_rss_mb")}  # fmt: skip
    ratios = {f"{what}_ratio": result[what] / result[f"other_{what}"] for what in ("images_per_s", "peak_rss_mb")}
    pairs = zip(found[""], found["other_"], strict=True)
    of_turns = [mine["images_per_s"] / other["images_per_s"] for mine, other in pairs]
    return result | ratios | {"least": min(of_turns), "most": max(of_turns)}


def show(result: dict[str, float], as_json: bool) -> None:
    if as_json:
        return click.echo(as_json_line(result, 3))
    for what, title, unit in (("images_per_s", "speed", "images/s"), ("peak_rss_mb", "peak memory", "MB")):
        click.echo(f"{title:12} {result[what]:8.2f} {unit:9} other {result['other_' + what]:8.2f} {unit:9}"
                   f" ratio {result[what + '_ratio']:.3f}   (medians of {TURNS} turns)")  # fmt: skip
    click.echo(f"{'speed':12} ratios of single turns from {result['least']:.3f} to {result['most']:.3f}")


if __name__ == "__main__":
    main()
