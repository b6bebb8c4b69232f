"""Kernels launched and bytes moved by one training iteration, with the fused ops and without: on any machine.

    python benchmarks/traffic.py --resolution 64 --resolution 1024 --dtype bf16

A whole iteration (D with R1, average, G) runs on tensors without contents, and every operation is counted with the
bytes of its inputs and outputs. On a GPU a small operation costs its launch and a large one its bytes, so that the
difference tells what fusing is worth there. Convolutions are the same in both, and listed apart.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops import VARIABLE
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.cli import Command
from training.config import LossConfig, RunConfig
from training.schedule import GrowthSchedule, PerResolution
from training.state import fresh_state
from training.step import train_step

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TIERS = {"plain": "ref", "fused": "auto"}  # what STYLEGAN_OPS is for each
META = torch.device("meta")
# They launch nothing, but unlike for views, their schemas do not say so.
_FREE = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh", "detach",
}  # fmt: skip


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--resolution", "resolutions", type=int, multiple=True, default=(64, 256, 1024), help="May be repeated.")
@click.option("--batch", type=int, default=8, help="Images per step.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="fp32", help="Of the feature maps.")
@click.option("--r1-interval", type=int, default=1, help="R1 at every N-th step; the step with it is counted.")
@click.option("--fmap-base", type=int, default=16384, help="Feature maps at resolution R: FMAP_BASE/R, at most 512.")
@click.option("--top", type=int, default=0, help="Also list so many operations that move most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    resolutions: tuple[int, ...], batch: int, dtype: str, r1_interval: int, fmap_base: int, top: int, as_json: bool
) -> None:  # fmt: skip
    """Count what one training iteration launches and moves, fused and not."""
    counts = {}
    for resolution in resolutions:
        model = StyleGAN1Config(resolution=resolution, fmap_base=fmap_base)
        growth = GrowthSchedule(initial=resolution, final=resolution, batch=PerResolution(batch))
        cfg = RunConfig(model=model, growth=growth, loss=LossConfig(r1_interval=r1_interval))
        counts[resolution] = {tier: counted(cfg, DTYPES[dtype], mode) for tier, mode in TIERS.items()}
    sums = {
        resolution: {tier: summed(c, tiers["fused"]) for tier, c in tiers.items()}
        for resolution, tiers in counts.items()
    }
    if as_json:
        click.echo(json.dumps({"batch": batch, "dtype": dtype, "iterations": sums}))
        return
    click.echo(f"One iteration: batch {batch}, {dtype}, min({fmap_base}/R, 512) channels, R1 included")
    click.echo("resolution  ops     convolutions         other kernels        bytes of the others")
    for resolution, tiers in sums.items():
        for tier, count in tiers.items():
            click.echo(f"{resolution:10}  {tier:5} {count['conv_kernels']:6} {count['conv_gb']:9.2f} GB"
                       f" {count['other_kernels']:15} {_times(tiers, tier, 'other_kernels')}"
                       f" {count['other_gb']:12.2f} GB {_times(tiers, tier, 'other_gb')}")  # fmt: skip
            by_bytes = sorted(counts[resolution][tier].items(), key=lambda item: -item[1].bytes)[:top]
            for name, operation in by_bytes:
                click.echo(f"{'':18}{name:32}{operation.kernels:6} {operation.bytes / 1e9:9.2f} GB")


def counted(cfg: RunConfig, dtype: torch.dtype, mode: str) -> dict[str, Count]:
    """The operations of one iteration, by name, with STYLEGAN_OPS=mode."""
    with _environment(mode), META:
        state = fresh_state(cfg, META)
        stage = cfg.growth.at(0)
        images = torch.empty(stage.batch, cfg.model.channels, *cfg.model.size(stage.resolution))
        for _ in range(2):  # in the first, the optimisers set themselves up
            with Traffic() as traffic:
                train_step(state, (images, None), stage, cfg, None, dtype)
    return traffic.counts


@contextmanager
def _environment(mode: str) -> Iterator[None]:
    before = os.environ.get(VARIABLE, "auto")
    os.environ[VARIABLE] = mode
    try:
        yield
    finally:
        os.environ[VARIABLE] = before


def summed(counts: dict[str, Count], fused: dict[str, Count]) -> dict[str, float]:
    """Kernels and gigabytes, of convolutions and of everything else.

    The convolutions are those of the fused iteration: what there are more of without fusion, resample.
    """
    convolutions = added(fused, [name for name in fused if "conv" in name and not name.endswith(".grouped")])
    total = added(counts, list(counts))
    return {
        "conv_kernels": convolutions.kernels,
        "conv_gb": convolutions.bytes / 1e9,
        "other_kernels": total.kernels - convolutions.kernels,
        "other_gb": (total.bytes - convolutions.bytes) / 1e9,
    }


def _times(tiers: dict[str, dict[str, float]], tier: str, what: str) -> str:
    """How many times fewer than without fusion."""
    return "       " if tier == "plain" else f"({tiers['plain'][what] / tiers[tier][what]:.1f}x)".rjust(7)


# Count operations and bytes without computing anything


@dataclass
class Count:
    """Operations that launch work, and the bytes of their inputs and outputs."""

    kernels: int = 0
    bytes: int = 0


class Traffic(TorchDispatchMode):
    """Counts operations on meta tensors by name while it is active: `counts["aten.add"]`.

    Grouped convolutions are counted separately, as `counts["aten.convolution.grouped"]`. An operation counts once even
    if it takes several kernels, as convolutions do. Views and allocations are free. When a program asks for a value in
    a tensor, for example whether it is finite, the answer is True.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Count] = defaultdict(Count)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        name = _name(func, args)
        if name == "aten._local_scalar_dense" and args[0].is_meta:
            return True
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor) and t.is_meta]
        if tensors and not _is_free(func):
            self.counts[name].kernels += 1
            self.counts[name].bytes += sum(map(_touched, tensors))
        return result


def added(counts: Mapping[str, Count], names: Sequence[str]) -> Count:
    """The sum over some operations."""
    found = [counts[name] for name in names]
    return Count(sum(count.kernels for count in found), sum(count.bytes for count in found))


def _name(func: Any, args: Sequence[Any]) -> str:
    """As in "aten.add". Grouped convolutions get their own name: their cost is in bytes, not in arithmetic."""
    places = [argument.name for argument in func._schema.arguments]
    grouped = "groups" in places and args[places.index("groups")] > 1
    return str(func._schema.name).replace("::", ".") + (".grouped" if grouped else "")


def _is_free(func: Any) -> bool:
    schema = func._schema
    view = any(value.alias_info is not None and not value.alias_info.is_write for value in schema.returns)
    return view or schema.name.split("::")[1] in _FREE


def _touched(x: Tensor) -> int:
    """Bytes of memory behind a tensor; an expanded dimension counts once."""
    numel = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        numel *= length if stride or not length else 1
    return numel * x.element_size()


if __name__ == "__main__":
    main()
