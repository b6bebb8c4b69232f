"""Host time of a training step per image, with the device's work removed: what a GPU would wait for.

    python benchmarks/host.py --resolution 64 --resolution 1024 --batch 64

Everything runs on tensors without contents, so that only the host's own work takes time: drawing the inputs of both
phases, and taking over the real images that another thread has gathered. How inputs were drawn before random numbers
were made on the device (by NumPy, for one image after the other) is measured first, in the same run. PyTorch answers
for such tensors more slowly than it launches a kernel, so that the times are upper bounds.

Calling the operations of a step costs the host more than all this: their number, multiplied by what a call costs in a
real step of a network so small that its arithmetic takes no time. A graph that is recorded once calls nothing, so that
this stands in a column of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.counting import READ, Traffic
from stylegan.networks.config import NetworkConfig
from stylegan.networks.sampling import generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.cli import Command
from training.config import RunConfig
from training.data.ahead import Ahead, Images
from training.inputs import draw
from training.schedule import GrowthSchedule, PerResolution
from training.state import fresh_state
from training.step import train_step

META = torch.device("meta")
PHASES = ("d", "g")


@dataclass(frozen=True)
class HostTime:
    """CPU microseconds per image and step, and how often a step reads from the device.

    numpy: drawing as it was before   drawing, reals: what must be done now, by the thread that takes the steps
    calls: of all operations, see above; those that make numbers of the reals' bytes are the same few at any size
    """

    numpy: float
    drawing: float
    reals: float
    calls: float
    host_reads: float

    @property
    def ratio(self) -> float:
        return self.numpy / self.drawing


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--resolution", "resolutions", type=int, multiple=True, default=(64, 256, 1024), help="May be repeated.")
@click.option("--batch", type=int, default=64, help="Images per step.")
@click.option("--seconds", type=float, default=1.0, help="Time for each measurement.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(resolutions: tuple[int, ...], batch: int, seconds: float, as_json: bool) -> None:
    """Measure what the host must do for a step, in microseconds per image."""
    torch.set_num_threads(1)
    call = seconds_per_call(seconds)
    found = {resolution: measured(resolution, batch, call, seconds) for resolution in resolutions}
    if as_json:
        rows = {resolution: asdict(times) | {"ratio": times.ratio} for resolution, times in found.items()}
        click.echo(json.dumps({"batch": batch, "us_per_call": call * 1e6, "us_per_image": rows}))
        return
    click.echo(f"Host, microseconds per image and step: batch {batch}, one thread, {call * 1e6:.1f} us per call")
    click.echo("resolution   drawing by NumPy   drawing    ratio    reals    calls   host reads per step")
    for resolution, times in found.items():
        click.echo(f"{resolution:10} {times.numpy:18.1f} {times.drawing:9.2f} {times.ratio:8.0f} {times.reals:8.2f}"
                   f" {times.calls:8.1f} {times.host_reads:21.0f}")  # fmt: skip


def measured(resolution: int, batch: int, call: float, seconds: float) -> HostTime:
    """The times of one resolution. call: seconds per call of an operation"""
    model = StyleGAN1Config(resolution=resolution)
    cfg = configured(model, batch)
    few = range(min(batch, 4))
    numpy = median(lambda: [numpy_drawing(model, 0, phase, few, resolution) for phase in PHASES], seconds) / len(few)
    positions, augmented = range(batch), bool(cfg.loss.diffaugment)
    drawing = median(
        lambda: [draw(model, 0, phase, positions, resolution, None, META, augmented) for phase in PHASES], seconds
    )
    images = np.zeros((8, 3, resolution, resolution), np.uint8)

    def gather(position: int) -> Images:
        return torch.from_numpy(images[np.arange(position, position + batch) % len(images)]), None

    with Ahead(gather, lambda position: position + batch, META) as ahead:
        starts = count(0, batch)
        reals = median(lambda: ahead.take(next(starts)), seconds)
    calls, reads = calls_of_step(cfg, META)
    share = 1e6 / batch
    return HostTime(1e6 * numpy, share * drawing, share * reals, share * calls * call, reads)


def configured(model: NetworkConfig, batch: int) -> RunConfig:
    growth = GrowthSchedule(initial=model.resolution, final=model.resolution, batch=PerResolution(batch))
    return RunConfig(model=model, growth=growth)


def median(work: Callable[[], Any], seconds: float) -> float:
    """CPU seconds that `work` takes in this thread: the median of at least three times, after one that does not count.

    Not the clock's, of which other programs on the machine take their share.
    """
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begin = time.thread_time()
        work()
        times.append(time.thread_time() - begin)
    return statistics.median(times)


# Drawing as it was before


def numpy_drawing(model: NetworkConfig, seed: int, stream: str, positions: range, resolution: int) -> list[Tensor]:
    """The random inputs of images as NumPy made them on the host, ready to be copied."""
    areas = [height * width for height, width in model.noise_shapes(resolution)]
    num_layers = model.rows_at(resolution)
    rows = []
    for position in positions:
        rng = generator(seed, stream, position)
        z = rng.standard_normal((2, model.z_dim), np.float32)
        mixed = rng.random() < model.mixing_probability
        crossover = int(rng.integers(1, num_layers)) if mixed else num_layers
        rows.append((z, crossover, rng.random(), rng.standard_normal(sum(areas), np.float32)))
    latents, crossovers, blends, pixels = zip(*rows, strict=True)
    return [torch.from_numpy(np.stack(latents)), torch.tensor(crossovers), torch.tensor(blends),
            *torch.from_numpy(np.stack(pixels)).split(areas, dim=1)]  # fmt: skip


# The calls of a step


def seconds_per_call(seconds: float) -> float:
    """What the call of an operation costs, with its share of Python and of autograd."""
    cpu = torch.device("cpu")
    tiny = StyleGAN1Config(resolution=8, fmap_base=4, z_dim=2, w_dim=2, mapping_dim=2)
    cfg = configured(tiny, 2)
    state, stage = fresh_state(cfg, cpu), cfg.growth.at(0)
    images = torch.zeros(2, 3, 8, 8)
    calls, _ = calls_of_step(cfg, cpu)
    return median(lambda: train_step(state, (images, None), stage, cfg, None, torch.float32), seconds) / calls


def calls_of_step(cfg: RunConfig, device: torch.device) -> tuple[int, float]:
    """How many operations a step calls, views included, and how many of them read from the device."""
    with device:
        state, stage = fresh_state(cfg, device), cfg.growth.at(0)
        images = torch.empty(stage.batch, cfg.model.channels, *cfg.model.size(stage.resolution))
        for _ in range(2):  # in the first, the optimisers set themselves up
            with Traffic() as traffic:
                train_step(state, (images, None), stage, cfg, None, torch.float32)
    return traffic.calls, traffic.counts[READ].kernels


if __name__ == "__main__":
    main()
