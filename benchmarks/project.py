"""The speed of projection on this machine: one photograph at a time, and several at once.

python benchmarks/project.py --network runs/00001-faces-faces64 --steps 500
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import as_json_line, machine_options
from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.config import Stage
from stylegan.networks.inference import with_kernels
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from stylegan.projection.distance import Distance, pick_distance
from stylegan.projection.projector import project
from stylegan.projection.settings import DISTANCES, ProjectionSettings
from torch_utils.cli import Command
from torch_utils.device import pick_device


@click.command(cls=Command, params=machine_options(), context_settings={"show_default": True})
@click.option("--network", default="", help="Any model. Default: an untrained one with the channels of faces64.")
@click.option("--resolution", type=int, default=64, help="Of the untrained network.")
@click.option("--batch", type=int, default=8, help="Images at once, compared with one.")
@click.option("--steps", type=int, default=500, help="Steps of the search.")
@click.option("--measured", type=int, default=0, help="Measure only this number of steps.  [all]", show_default=False)
@click.option("--distance", type=click.Choice(DISTANCES), default="discriminator")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto")
def main(
    network: str, resolution: int, batch: int, steps: int, measured: int, distance: str, dtype: str, device: str
) -> None:
    """Print, as JSON, the seconds for one image and for each of several, their ratio, and the distances reached.

    The network itself generates the images, so that no data are needed.
    """
    where = with_kernels(pick_device(device))
    snapshot = open_snapshot(network, where) if network else untrained(resolution, where)
    settings = ProjectionSettings(num_steps=measured or steps, dtype=dtype)  # type: ignore[arg-type]
    chosen, factor = pick_distance(distance, snapshot), steps / settings.num_steps
    seconds, distances = zip(*(timed(snapshot, chosen, settings, n) for n in (1, batch)), strict=True)
    found = {
        "seconds_1": seconds[0] * factor,
        f"seconds_{batch}": seconds[1] * factor,
        f"seconds_of_each_of_{batch}": seconds[1] * factor / batch,
        "ratio": seconds[0] / (seconds[1] / batch),
        "distance_1": distances[0],
        f"distance_{batch}": distances[1],
    }
    click.echo(as_json_line(found, 4))


def untrained(resolution: int, device: torch.device) -> Snapshot:
    """A network whose images differ from each other, and contain noise."""
    torch.manual_seed(0)
    cfg = StyleGAN1Config(resolution=resolution, fmap_base=4096, fmap_max=128)
    G, D = build_generator(cfg).to(device), build_discriminator(cfg).to(device)
    for network in (G, D):
        network.eval().requires_grad_(False)
    for name, value in G.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(0.1)
    return Snapshot(G=G, D=D, config=cfg, stage=Stage(resolution), kimg=0.0, data="none")


def timed(snapshot: Snapshot, distance: Distance, settings: ProjectionSettings, count: int) -> tuple[float, float]:
    """Seconds for `count` images, and their mean distance, after a few steps as a warm-up."""
    z = torch.randn(count, snapshot.config.z_dim, generator=torch.Generator().manual_seed(1)).to(snapshot.device)
    c = torch.zeros(count, dtype=torch.long, device=snapshot.device) if snapshot.config.num_classes else None
    targets = snapshot.renderer.draw(snapshot.G.latents(z, c))
    project(snapshot, targets, replace(settings, num_steps=3, w_samples=100), distance, c)
    started = time.perf_counter()
    _, report = project(snapshot, targets, settings, distance, c)
    return time.perf_counter() - started, float(report.distance.mean())


if __name__ == "__main__":
    main()
