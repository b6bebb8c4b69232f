"""What a run will do, in words: its settings, the growth table, parameters, memory. Printed by --dry-run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stylegan.config import ModelConfig
from stylegan.networks import build_discriminator, build_generator
from torch_utils.settings import leaves, shown
from training.config import RunConfig
from training.schedule import Phase

ImagesPerSecond = Callable[[int], float]  # resolution -> training speed
Footprint = Callable[[int], tuple[int, int]]  # resolution -> peak memory of a device in bytes, and pictures at once


def describe(cfg: RunConfig, estimate: ImagesPerSecond | None = None, footprint: Footprint | None = None) -> str:
    """The whole plan as text. `estimate` gives the training speed at a resolution, `footprint` the memory it takes,
    where they are known.
    """
    generator, discriminator = parameter_counts(cfg.model)
    return "\n".join(
        [
            "Settings",
            *(f"  {name:<26} {shown(value)}" for name, value in leaves(cfg)),
            "",
            "Growth",
            *growth_table(cfg, estimate, footprint),
            "",
            f"Parameters   generator {generator:,}   discriminator {discriminator:,}",
            *_memory_line(cfg, footprint),
        ]
    )


def growth_table(
    cfg: RunConfig, estimate: ImagesPerSecond | None = None, footprint: Footprint | None = None
) -> list[str]:  # fmt: skip
    """One line per phase: picture size, kimg from and to, batch, learning rate, steps; memory of a device, given
    `footprint`; and time, given `estimate`.
    """
    rows: list[tuple[str, ...]] = [("phase", "size", "", "kimg", "batch", "lr", "steps", "memory", "time")]
    total = 0.0
    for phase in cfg.growth.phases(cfg.total_kimg):
        seconds = 1000 * (phase.end_kimg - phase.start_kimg) / estimate(phase.resolution) if estimate else 0.0
        total += seconds
        memory = _gib(footprint(phase.resolution)[0]) if footprint else "-"
        rows.append((*_row(cfg, phase), memory, duration(seconds) if estimate else "-"))
    if estimate:
        rows.append(("", "", "", "", "", "", "", "all", duration(total)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _row(cfg: RunConfig, phase: Phase) -> tuple[str, ...]:
    height, width = cfg.model.size(phase.resolution)
    batch, lr = cfg.growth.batch.at(phase.resolution), cfg.growth.lr.at(phase.resolution)
    last = lr * cfg.growth.annealed(round(1000 * phase.end_kimg))
    rates = f"{lr:g}" if last == lr else f"{lr:g} - {last:.2g}"
    steps = round(1000 * (phase.end_kimg - phase.start_kimg) / batch)
    kimg = f"{phase.start_kimg:g} - {phase.end_kimg:g}"
    return str(phase.phase), f"{width}x{height}", phase.kind, kimg, str(batch), rates, f"{steps:,}"


def parameter_counts(model: ModelConfig) -> tuple[int, int]:
    """Trainable parameters of generator and discriminator, counted without making them."""
    with torch.device("meta"):
        networks: tuple[nn.Module, nn.Module] = build_generator(model), build_discriminator(model)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, discriminator


def _memory_line(cfg: RunConfig, footprint: Footprint | None) -> list[str]:
    """The resolution that takes most memory, and how many pictures at once that is for."""
    if footprint is None:
        return []
    (peak, at_once), resolution = max((footprint(res), res) for res in cfg.growth.resolutions)
    return [f"Memory       about {_gib(peak)} per device, at {resolution} with {at_once} pictures at once"]


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """45 -> "45s", 192 -> "3m 12s", 8100 -> "2h 15m", 200000 -> "2d 7h"."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    whole = round(seconds)
    for (name, size), (smaller, part) in zip(units, units[1:], strict=False):
        if whole >= size:
            return f"{whole // size}{name} {whole % size // part}{smaller}"
    return f"{whole}s"
