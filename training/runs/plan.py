"""How much arithmetic a training step takes, how long the rest of a run will, and the plan that --dry-run prints."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from stylegan.features.lpips import layer_sizes
from stylegan.networks.config import NetworkConfig
from stylegan.networks.registry import build_discriminator, build_generator
from torch_utils.device import without_contents
from torch_utils.settings import leaves, shown
from torch_utils.text import listed_classes
from training.config import AID_NETS, AID_SMALLEST, LossConfig, RunConfig
from training.schedule import Phase

# Fitted to training steps on two CPU cores (docs/performance-log.md): every number between two convolutions is moved
# about so many bytes in each pass, as kernels read, write and rearrange it, and a step costs so much in Python besides.
BYTES_PER_NUMBER, STEP_OVERHEAD_S = 45, 0.05
AID_BYTES_PER_NUMBER = 20


@dataclass(frozen=True)
class Machine:
    """What a machine reaches. gflops: of a convolution, per second   gb: that a copy reads and writes, per second"""

    gflops: float
    gb: float


TYPICAL = Machine(gflops=400, gb=30)
"""Two CPU cores: good enough to tell how much longer one resolution takes than another."""


def passes(loss: LossConfig, resolution: int) -> tuple[float, float]:
    """How often an image goes through the generator, and through the discriminator, in a whole training step.

    D step: fakes made (1), D on fakes forward (1) and backward (2), D on reals forward and backward (3), its penalty:
    one gradient and the derivative of that (3). G step: made (1) unless both share the fakes, scored (1), back through
    D (1) and G (2).
    """
    penalties = (loss.r1_gamma.at(resolution) > 0) + (loss.r2_gamma.at(resolution) > 0)
    return 3 if loss.share_fakes else 4, 8 + 3 * penalties / loss.r1_interval + (6 if loss.name == "wgan-gp" else 0)


def step_cost(model: NetworkConfig, loss: LossConfig, resolution: int) -> tuple[float, float]:
    """Of one image in a whole training step: gflop of convolutions, and GB that are read and written besides."""
    through_g, through_d = passes(loss, resolution)
    g, d = model.generator_cost(resolution), model.discriminator_cost(resolution)
    gflop = through_g * g.gflop + through_d * d.gflop
    return gflop, BYTES_PER_NUMBER * (through_g * g.activations + through_d * d.activations) / 1e9


def aid_cost(cfg: RunConfig, resolution: int) -> tuple[float, float]:
    """Of one image through the eyes of the vision aid in a training step: gflop, and GB that are moved.

    D step: a real and a generated image forward (2). G step: the same (2) unless both share the fakes, and back to the
    generated image (1).
    """
    height, width = cfg.model.size(resolution)
    if cfg.loss.vision_aid == "none" or min(height, width) < AID_SMALLEST:
        return 0.0, 0.0
    gflop = numbers = 0.0
    zoom = cfg.loss.aid_zoom
    for conv, h, w in layer_sizes(AID_NETS[cfg.loss.vision_aid], zoom * height, zoom * width):
        gflop += 2 * conv.inputs * conv.outputs * conv.kernel**2 * h * w / 1e9
        numbers += conv.outputs * h * w
    times = 3 if cfg.loss.share_fakes else 5
    return times * gflop, times * numbers * AID_BYTES_PER_NUMBER / 1e9


def seconds_per_image(cfg: RunConfig, resolution: int, machine: Machine) -> float:
    """Of training: arithmetic, memory, and what every step costs besides."""
    aid_gflop, aid_gb = aid_cost(cfg, resolution)
    gflop, gb = step_cost(cfg.model, cfg.loss, resolution)
    return (
        (gflop + aid_gflop) / machine.gflops
        + (gb + aid_gb) / machine.gb
        + STEP_OVERHEAD_S / cfg.growth.batch.at(resolution)
    )


def seconds_left(cfg: RunConfig, nimg: int, measured: float, machine: Machine) -> tuple[float, float]:
    """Of this phase, and of the run, where an image took `measured` seconds just now."""
    now = cfg.growth.at(nimg)
    slower = measured / seconds_per_image(cfg, now.resolution, machine)
    phase = run = 0.0
    for segment in cfg.growth.phases(cfg.total_kimg):
        kimg = segment.end_kimg - max(segment.start_kimg, nimg / 1000)
        if kimg <= 0:
            continue
        seconds = kimg * 1000 * slower * seconds_per_image(cfg, segment.resolution, machine)
        run += seconds
        if segment.phase == now.phase:
            phase += seconds
    return phase, run


def conv_gflops(model: NetworkConfig, batch: int, dtype: torch.dtype, device: torch.device, repeats: int = 30) -> float:
    """The forward rate of a 3x3 convolution from the middle of this network, channels last: what there is to reach."""
    resolution = max(model.resolution // 2, 4)
    channels, (height, width) = model.nf(resolution), model.size(resolution)
    g = torch.Generator(device)  # its own: measuring must not change what is drawn afterwards
    x = torch.randn(batch, channels, height, width, device=device, dtype=dtype, generator=g)
    x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype, generator=g)
    gflop = 2 * batch * channels**2 * 9 * height * width / 1e9
    with torch.inference_mode():
        return gflop / _seconds(lambda: F.conv2d(x, weight, padding=1), device, repeats)


def copied_gb(device: torch.device, repeats: int = 5) -> float:
    """How much a copy of 16 MB reads and writes per second."""
    source = torch.zeros(4_000_000, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e9 / _seconds(lambda: target.copy_(source), device, repeats)


def measured_machine(cfg: RunConfig, dtype: torch.dtype, device: torch.device) -> Machine:
    """This one, here and now, in a fraction of a second."""
    return Machine(conv_gflops(cfg.model, 4, dtype, device, repeats=5), copied_gb(device))


def estimated_speed(cfg: RunConfig, dtype: torch.dtype, device: torch.device) -> Callable[[int], float]:
    """Images per second at a resolution, guessed from the speed of a convolution and of a copy here and now."""
    machine = measured_machine(cfg, dtype, device)
    return lambda resolution: 1 / seconds_per_image(cfg, resolution, machine)


def _seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median of some repeats, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


ImagesPerSecond = Callable[[int], float]  # resolution -> training speed
Footprint = Callable[[int], tuple[int, int]]  # resolution -> peak memory of a device in bytes, and images at once


def describe(cfg: RunConfig, estimate: ImagesPerSecond, footprint: Footprint, more: Sequence[str] = ()) -> str:
    """The whole plan as text, with the resolution that takes most memory, and how many images at once that is for.

    What people look for comes first, the settings last. more: lines between the two
    """
    generator, discriminator = parameter_counts(cfg.model)
    (peak, micro_batch), resolution = max((footprint(res), res) for res in cfg.growth.resolutions)
    short = unfinished_growth(cfg, round(1000 * cfg.total_kimg))
    return "\n".join(
        [
            "Growth",
            *growth_table(cfg, estimate, footprint),
            *([f"  {short}; a larger --kimg or --hours gets there"] if short else []),
            "",
            f"Parameters   generator {generator:,}   discriminator {discriminator:,}",
            f"Memory       about {gib(peak)} per device, at {resolution} with {micro_batch} images at once",
            *more,
            "",
            "Settings",
            *(f"  {name:<26} {_shown(name, value, cfg)}" for name, value in leaves(cfg)),
        ]
    )


def _shown(name: str, value: object, cfg: RunConfig) -> str:
    if name == "data.empty_classes":
        return listed_classes(cfg.data.empty_classes, cfg.data.class_names) or "none"
    return shown(value)


def unfinished_growth(cfg: RunConfig, nimg: int) -> str:
    """How far the networks have grown after `nimg` images, and when they are full-grown; "" if they are."""
    growth, stage = cfg.growth, cfg.growth.at(nimg)
    if stage.resolution == growth.final and stage.alpha == 1:
        return ""
    (h, w), (height, width) = cfg.model.size(stage.resolution), cfg.model.size(growth.final)
    where = f"at {w}x{h}" if stage.alpha == 1 else f"while {w}x{h} fades in, at {stage.alpha:.0%}"
    return f"It ends {where}; {width}x{height} is reached at {growth.grown_kimg:g} kimg"


def growth_line(cfg: RunConfig) -> str:
    """The phases in one line: "8x8 to 40, 16x16 fading in to 80, 16x16 to 120 kimg"."""
    sizes = [(cfg.model.size(phase.resolution), phase) for phase in cfg.growth.phases(cfg.total_kimg)]
    parts = (f"{w}x{h}{' fading in' if p.kind == 'fade' else ''} to {p.end_kimg:g}" for (h, w), p in sizes)
    return f"{', '.join(parts)} kimg"


def growth_table(cfg: RunConfig, estimate: ImagesPerSecond, footprint: Footprint) -> list[str]:
    """One line per phase: image size, kimg from and to, batch, learning rate, steps, memory of a device, and time."""
    rows: list[tuple[str, ...]] = [("phase", "size", "", "kimg", "batch", "lr", "steps", "memory", "time")]
    total = 0.0
    for phase in cfg.growth.phases(cfg.total_kimg):
        seconds = 1000 * (phase.end_kimg - phase.start_kimg) / estimate(phase.resolution)
        total += seconds
        rows.append((*_row(cfg, phase), gib(footprint(phase.resolution)[0]), duration(seconds)))
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


def parameter_counts(model: NetworkConfig) -> tuple[int, int]:
    """Trainable parameters of generator and discriminator, counted without making them."""
    with without_contents():
        networks: tuple[nn.Module, nn.Module] = build_generator(model), build_discriminator(model)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, discriminator


def gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """45 -> "45s", 192 -> "3m 12s", 8100 -> "2h 15m", 200000 -> "2d 7h"."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    whole = round(seconds)
    for (name, size), (smaller, part) in zip(units, units[1:], strict=False):
        if whole >= size:
            return f"{whole // size}{name} {whole % size // part}{smaller}"
    return f"{whole}s"
