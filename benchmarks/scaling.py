"""How training grows with the number of processes: measured here, on CPU cores, and computed for GPUs elsewhere.

    python benchmarks/scaling.py --resolution 64 --batch 8 --json

Every process has the same batch and one thread. What is computed is explained in docs/scaling.md.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.cli import Command
from torch_utils.device import keep_freed_memory
from torch_utils.distributed import CPU, DistContext, all_reduce_max, process_group
from torch_utils.distributed.gradients import GradientSums
from training.config import RunConfig
from training.runs.resume import preset
from training.schedule import GrowthSchedule, PerResolution
from training.state import fresh_state
from training.step import train_step

WARM_UP = 2
HIDDEN_SHARE = 0.05  # of a step that may go into waiting


@dataclass(frozen=True)
class Machines:
    """`nodes` of `gpus` each. Bytes per second that one GPU gets through within a node, and one node to the next."""

    name: str
    nodes: int
    gpus: int
    within: float
    between: float = 0.0

    def seconds(self, size: float) -> float:
        """Of an all-reduce of `size` bytes: a ring sends 2 (n - 1) / n of them; first within nodes, then between."""
        inside = 2 * (self.gpus - 1) / self.gpus * size / self.within
        outside = 2 * (self.nodes - 1) / self.nodes * size / self.between if self.nodes > 1 else 0.0
        return inside + outside


MACHINES = (
    Machines("8 GPUs on NVLink", 1, 8, 300e9),
    Machines("64 GPUs, 200 Gb/s per node", 8, 8, 300e9, 20e9),
)


@dataclass(frozen=True)
class Times:
    """Medians in seconds: of a step, of one whose gradients are added up after the backward pass, and of sums alone.

    early: share of the gradients of D and of G that is on its way before the last of them has been computed
    """

    step: float
    step_afterwards: float
    sums: float
    early: dict[str, float]


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--resolution", type=int, default=64, help="Of the images in the measurement.")
@click.option("--batch", type=int, default=8, help="Images per step and process.")
@click.option("--steps", type=int, default=10, help="Steps to take the median of.")
@click.option("--processes", type=int, default=2, help="Compare one process with this many.")
@click.option("--cfg", "name", default="ffhq1024", help="Preset whose all-reduces are computed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(resolution: int, batch: int, steps: int, processes: int, name: str, as_json: bool) -> None:
    """Images per second of 1 and of several processes, and what the gradients of a preset weigh."""
    found = {count: seconds_per_step(count, resolution, batch, steps) for count in (1, processes)}
    speeds = {count: batch * count / times.step for count, times in found.items()}
    several = found[processes]
    result = {
        "resolution": resolution, "batch_per_process": batch, "steps": steps,
        "images_per_s": {str(count): round(speed, 2) for count, speed in speeds.items()},
        "gain": round(speeds[processes] / speeds[1], 3),
        "sums_ms": round(1e3 * several.sums, 2), "share_of_sums": round(several.sums / several.step, 4),
        "step_ms": round(1e3 * several.step, 1), "step_afterwards_ms": round(1e3 * several.step_afterwards, 1),
        "early": {name: round(share, 3) for name, share in several.early.items()},
        "model": [traffic(preset(name, 8), res) for res in preset(name, 8).growth.resolutions],
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(result))
        return
    for count, speed in speeds.items():
        click.echo(f"{count} process{'es' if count > 1 else '  '} of one thread  {speed:8.2f} images/s")
    click.echo(f"gain  {result['gain']:.2f}")
    click.echo(f"sums of gradients  {result['sums_ms']:.1f} ms, {result['share_of_sums']:.1%} of a step")
    click.echo(f"step  {result['step_ms']:.1f} ms; with the sums after the backward pass "
               f"{result['step_afterwards_ms']:.1f} ms")  # fmt: skip
    early = " and ".join(f"{share:.0%} of the {name}" for name, share in several.early.items())
    click.echo(f"on their way before the last one is computed  {early}\n")
    click.echo("size    MB per step  " + "  ".join(f"{m.name}: ms, step for {HIDDEN_SHARE:.0%}" for m in MACHINES))
    for row in result["model"]:
        times = "  ".join(f"{row[m.name]['ms']:8.2f} {row[m.name]['step_ms']:10.1f}" for m in MACHINES)
        click.echo(f"{row['resolution']:<8d}{row['megabytes']:10.1f}   {times}")


def traffic(cfg: RunConfig, resolution: int) -> dict[str, Any]:
    """Of a step at `resolution`: MB of gradients of both networks in float32, and for each kind of machines how long
    they take, and how long a step must take for that to be `HIDDEN_SHARE` of it. In milliseconds.
    """
    with torch.device("meta"):
        networks: list[nn.Module] = [build_generator(cfg.model), build_discriminator(cfg.model)]
    size = 4.0 * sum(reached(network, resolution) for network in networks)
    found: dict[str, Any] = {"resolution": resolution, "megabytes": round(size / 1e6, 1)}
    for machines in MACHINES:
        ms = 1e3 * machines.seconds(size)
        found[machines.name] = {"ms": round(ms, 3), "step_ms": round(ms / HIDDEN_SHARE, 1)}
    return found


def reached(network: nn.Module, resolution: int) -> int:
    """Numbers in the parameters that have a gradient while `resolution` stands alone."""
    count = 0
    for name, p in network.named_parameters():
        kind, _, rest = name.removeprefix("synthesis.").partition(".")
        level = int(rest.partition(".")[0]) if kind in ("blocks", "to_rgb", "from_rgb") else 0
        count += p.numel() if (level <= resolution if kind == "blocks" else level in (0, resolution)) else 0
    return count


def seconds_per_step(count: int, resolution: int, batch: int, steps: int) -> Times:
    """Of `count` processes of one thread each."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
        free.close()
        processes = [
            context.Process(target=_work, args=(
                DistContext(rank, count, rank, count), port, Path(folder), resolution, batch, steps))
            for rank in range(count)
        ]  # fmt: skip
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return Times(**json.loads((Path(folder) / "times").read_text()))


def _work(dist: DistContext, port: int, folder: Path, resolution: int, batch: int, steps: int) -> None:
    os.environ.update({"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"})
    keep_freed_memory()
    torch.set_num_threads(1)
    model = StyleGAN1Config(resolution=resolution, fmap_base=4096, fmap_max=128)
    growth = GrowthSchedule(initial=resolution, final=resolution, batch=PerResolution(batch * dist.world_size))
    cfg = RunConfig(model=model, growth=growth, gpus=dist.world_size)
    state, stage = fresh_state(cfg, CPU), growth.at(0)
    reals = torch.randn(batch, model.channels, *model.size(resolution)).clamp(-1, 1), None
    times: dict[bool, list[float]] = {True: [], False: []}
    sums: list[float] = []
    early: dict[str, float] = {}

    def step(overlapped: bool) -> None:
        how = nullcontext() if overlapped else patch.object(GradientSums, "last_backward", nullcontext)
        with how, patch.object(GradientSums, "_arrived", watched):
            train_step(state, reals, stage, cfg, None, torch.float32, dist)
        state.nimg += stage.batch

    arrived = GradientSums._arrived

    def watched(self: GradientSums, param: torch.Tensor) -> None:
        before = sum(map(len, self._sums))
        arrived(self, param)
        if not self._coming:
            early[self._name] = before / sum(p.numel() for bucket in self._buckets for p in bucket)

    def sums_alone() -> None:
        for net in (state.D, state.G):
            params = [p for p in net.parameters() if p.grad is not None]
            GradientSums(dist, "gradients", params).finish()

    def timed(work: Callable[[], None]) -> float:
        all_reduce_max(dist, "begin", 0)
        begin = time.perf_counter()
        work()
        all_reduce_max(dist, "end", 0)
        return time.perf_counter() - begin

    with process_group(dist, CPU, 600) as dist:
        for _ in range(WARM_UP + steps):
            for overlapped in (True, False):  # in turns, so that other work on the machine slows both alike
                times[overlapped].append(timed(partial(step, overlapped)))
        for net in (state.D, state.G):
            for p in net.parameters():
                p.grad = torch.ones_like(p)
        for _ in range(steps):
            sums.append(timed(sums_alone))
    if dist.rank == 0:
        medians = (statistics.median(values) for values in (times[True][WARM_UP:], times[False][WARM_UP:], sums))
        (folder / "times").write_text(json.dumps(asdict(Times(*medians, early))))


if __name__ == "__main__":
    main()
