"""Kernels launched and bytes moved by one training iteration, with the fused ops and without: on any machine.

    python benchmarks/traffic.py --resolution 64 --batch 32 --dtype bf16 --r1-interval 16 --peer ~/stylegan2-ada-pytorch

A whole iteration (D with R1, average, G) runs on tensors without contents, and every operation is counted (see
`counting.py`) with the bytes of its inputs and outputs. On a GPU a small operation costs its launch and a large one its
bytes, so that the difference tells what fusing is worth there. Convolutions are the same in both, and listed apart.

With --peer, the same is counted for an iteration of stylegan2-ada-pytorch at its own settings (see `peer.py`), with as
many images. Its lazy penalties and ours count for the share of steps that have them. Preparing the real images is left
out of both, and so is its augmentation. The two train different networks: with as many channels, but StyleGAN2's
discriminator has residual connections, and its generator a penalty on path lengths.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.counting import READ, Count, Counts, Traffic, added, weighed
from ops import VARIABLE
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.cli import Command
from torch_utils.errors import UserError
from training.config import LossConfig, RunConfig
from training.schedule import GrowthSchedule, PerResolution
from training.state import fresh_state
from training.step import train_step

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TIERS = {"plain": "ref", "fused": "auto"}  # what STYLEGAN_OPS is for each
META = torch.device("meta")


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--resolution", "resolutions", type=int, multiple=True, default=(64, 256, 1024), help="May be repeated.")
@click.option("--batch", type=int, default=8, help="Images per step.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="fp32", help="Of the feature maps.")
@click.option("--r1-interval", type=int, default=1, help="R1 at every N-th step; counted is the average step.")
@click.option("--fmap-base", type=int, default=16384, help="Feature maps at resolution R: FMAP_BASE/R, at most 512.")
@click.option(
    "--peer", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A checkout of stylegan2-ada-pytorch to compare with.",
)  # fmt: skip
@click.option("--top", type=int, default=0, help="Also list so many operations that launch most, and that move most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    resolutions: tuple[int, ...], batch: int, dtype: str, r1_interval: int, fmap_base: int, peer: Path | None, top: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Count what one training iteration launches and moves, fused and not."""
    counts: dict[int, dict[str, Counts]] = {}
    for resolution in resolutions:
        model = StyleGAN1Config(resolution=resolution, fmap_base=fmap_base)
        growth = GrowthSchedule(initial=resolution, final=resolution, batch=PerResolution(batch))
        cfg = RunConfig(model=model, growth=growth, loss=LossConfig(r1_interval=r1_interval))
        counts[resolution] = {tier: counted(cfg, DTYPES[dtype], mode) for tier, mode in TIERS.items()}
        if peer:
            counts[resolution]["peer"] = counted_by_peer(peer, resolution, batch)
    sums = {resolution: {tier: summed(c, tiers, tier) for tier, c in tiers.items()}
            for resolution, tiers in counts.items()}  # fmt: skip
    if as_json:
        click.echo(json.dumps({"batch": batch, "dtype": dtype, "iterations": sums}))
        return
    click.echo(f"One iteration: batch {batch}, {dtype}, min({fmap_base}/R, 512) channels, R1 every {r1_interval}")
    click.echo("resolution  ops    kernels: all, convolutions, others     GB: all, convolutions, others     host reads")
    for resolution, tiers in sums.items():
        for tier, count in tiers.items():
            click.echo(
                f"{resolution:10}  {tier:5} {_three(count, 'kernels', 0)} {_times(tiers, tier, 'other_kernels')}"
                f"    {_three(count, 'gb', 2)} {_times(tiers, tier, 'other_gb')} {count['host_reads']:5.1f}"
            )
            for name, operation in _largest(counts[resolution][tier], top):
                click.echo(f"{'':18}{name:36}{operation.kernels:8.1f} {operation.bytes / 1e9:9.3f} GB")
        if peer:
            kernels, gb = (tiers["fused"][what] / tiers["peer"][what] for what in ("kernels", "gb"))
            click.echo(f"{resolution:10}  fused / peer: {kernels:.0%} of the kernels, {gb:.0%} of the bytes")


def counted(cfg: RunConfig, dtype: torch.dtype, mode: str) -> Counts:
    """The operations of one iteration, by name, with STYLEGAN_OPS=mode; with lazy R1, of the average one."""
    found: list[Counts] = []
    interval = cfg.loss.r1_interval
    with _environment(mode), META:
        state = fresh_state(cfg, META)
        stage = cfg.growth.at(0)
        images = torch.empty(stage.batch, cfg.model.channels, *cfg.model.size(stage.resolution))
        # In the first step the optimisers set themselves up; it has R1, as the second has, and the third if not lazy.
        for nimg in (0, 0, stage.batch):
            state.nimg = nimg
            with Traffic() as traffic:
                train_step(state, (images, None), stage, cfg, None, dtype)
            found.append(traffic.counts)
    _, with_r1, without = found
    return weighed([(1 / interval, with_r1), (1 - 1 / interval, without)])


def counted_by_peer(path: Path, resolution: int, batch: int) -> Counts:
    """The same of the other project, in a process of its own, because its modules have the names of ours."""
    script = Path(__file__).with_name("peer.py")
    command = [sys.executable, str(script), str(path), f"--resolution={resolution}", f"--batch={batch}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"--peer: {done.stderr.strip().splitlines()[-1].removeprefix('Error: ')}")
    return {name: Count(**count) for name, count in json.loads(done.stdout).items()}


@contextmanager
def _environment(mode: str) -> Iterator[None]:
    before = os.environ.get(VARIABLE, "auto")
    os.environ[VARIABLE] = mode
    try:
        yield
    finally:
        os.environ[VARIABLE] = before


def summed(counts: Counts, tiers: dict[str, Counts], tier: str) -> dict[str, float]:
    """Kernels and gigabytes, of convolutions and of everything else.

    The convolutions are those of the fused iteration: what there are more of without fusion, resample.
    """
    like = tiers["fused" if tier == "plain" else tier]
    convolutions = added(like, [name for name in like if "conv" in name and not name.endswith(".grouped")])
    total = added(counts)
    return {
        "kernels": total.kernels,
        "conv_kernels": convolutions.kernels,
        "other_kernels": total.kernels - convolutions.kernels,
        "gb": total.bytes / 1e9,
        "conv_gb": convolutions.bytes / 1e9,
        "other_gb": (total.bytes - convolutions.bytes) / 1e9,
        "host_reads": counts[READ].kernels if READ in counts else 0.0,
    }


def _three(count: dict[str, float], what: str, digits: int) -> str:
    return "".join(f"{count[name]:9.{digits}f}" for name in (what, f"conv_{what}", f"other_{what}"))


def _times(tiers: dict[str, dict[str, float]], tier: str, what: str) -> str:
    """How many times fewer than without fusion."""
    return f"({tiers['plain'][what] / tiers[tier][what]:.1f}x)".rjust(7) if tier == "fused" else " " * 7


def _largest(counts: Counts, top: int) -> list[tuple[str, Count]]:
    """The operations that launch most, then those that move most which are not among them."""
    by_kernels = sorted(counts, key=lambda name: -counts[name].kernels)[:top]
    by_bytes = sorted(counts, key=lambda name: -counts[name].bytes)[:top]
    return [(name, counts[name]) for name in dict.fromkeys([*by_kernels, *by_bytes])]


if __name__ == "__main__":
    main()
