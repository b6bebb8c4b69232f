"""What a run will do, in words: its settings, the growth table, parameters, memory. Printed by --dry-run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stylegan.config import ModelConfig
from stylegan.networks import build_discriminator, build_generator
from torch_utils.settings import leaves
from training.config import RunConfig
from training.schedule import Phase

PROCESS_BYTES = 400 << 20  # what Python and PyTorch take before there is a network

ImagesPerSecond = Callable[[int], float]  # resolution -> training speed


def describe(cfg: RunConfig, estimate: ImagesPerSecond | None = None) -> str:
    """The whole plan as text. `estimate` gives the training speed at a resolution, where it is known."""
    generator, discriminator = parameter_counts(cfg.model)
    memory = memory_bytes(cfg) / 2**30
    return "\n".join(
        [
            "Settings",
            *(f"  {name:<26} {_show(value)}" for name, value in leaves(cfg)),
            "",
            "Growth",
            *growth_table(cfg, estimate),
            "",
            f"Parameters   generator {generator:,}   discriminator {discriminator:,}",
            f"Memory       about {memory:.1f} GiB per device",
        ]
    )


def growth_table(cfg: RunConfig, estimate: ImagesPerSecond | None = None) -> list[str]:
    """One line per phase: picture size, kimg from and to, batch, learning rate, steps; and time, given `estimate`."""
    rows: list[tuple[str, ...]] = [("phase", "size", "", "kimg", "batch", "lr", "steps", "time")]
    total = 0.0
    for phase in cfg.growth.phases(cfg.total_kimg):
        seconds = 1000 * (phase.end_kimg - phase.start_kimg) / estimate(phase.resolution) if estimate else 0.0
        total += seconds
        rows.append((*_row(cfg, phase), duration(seconds) if estimate else "-"))
    if estimate:
        rows.append(("", "", "", "", "", "", "all", duration(total)))
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


def memory_bytes(cfg: RunConfig) -> int:
    """A rough estimate of the peak memory of one device.

    The process itself; weights, gradients and two Adam moments of both networks and the averaged generator, in
    float32; and at the most demanding resolution, for each image, two layers per level of which about eight maps are
    alive at once (the convolution, its nonlinearity, norm, noise and style, and what the two derivatives save of them).
    """
    generator, discriminator = parameter_counts(cfg.model)
    width = 2 if cfg.precision == "bf16" else 4
    activations = max(_images_at_once(cfg, r) * _maps(cfg.model, r) for r in cfg.growth.resolutions)
    return PROCESS_BYTES + 4 * (5 * generator + 4 * discriminator) + 8 * width * activations


def _images_at_once(cfg: RunConfig, resolution: int) -> int:
    share = cfg.growth.batch.at(resolution) // cfg.gpus
    return min(share, cfg.batch_gpu or share)


def _maps(model: ModelConfig, resolution: int) -> int:
    """Numbers in one image's feature maps, one map per layer, when trained at `resolution`."""
    sizes = [(r, model.size(r)) for r in model.resolutions if r <= resolution]
    return sum(2 * model.nf(r) * height * width for r, (height, width) in sizes)


def duration(seconds: float) -> str:
    """45 -> "45s", 192 -> "3m 12s", 8100 -> "2h 15m", 200000 -> "2d 7h"."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    whole = round(seconds)
    for (name, size), (smaller, part) in zip(units, units[1:], strict=False):
        if whole >= size:
            return f"{whole // size}{name} {whole % size // part}{smaller}"
    return f"{whole}s"


def _show(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else "-" if value in (None, "") else str(value)
