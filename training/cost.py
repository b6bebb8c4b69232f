"""How much arithmetic a training step takes, and so how long the rest of a run will."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from stylegan.config import ModelConfig
from training.config import LossConfig, RunConfig

# Measured on two CPU cores: small operations and Python take about as long as this much arithmetic in every step, and
# a training step reaches about this share of the rate of a plain convolution.
STEP_OVERHEAD_GFLOP, REACHED_SHARE = 10.0, 0.55


def forward_gflop(model: ModelConfig, resolution: int) -> float:
    """Of one picture through the generator's convolutions up to `resolution`, in the least arithmetic known.

    Upsampling convolutions cost 4 multiplications per output pixel and channel pair, not 9 (`ops.resample`). The
    discriminator is the mirror image and costs as much.
    """
    total = 0.0
    for res in model.resolutions:
        if res > resolution:
            break
        height, width = model.size(res)
        taps = 9 * model.nf(res) + (4 * model.nf(res // 2) if res > 4 else 0)
        total += 2 * height * width * model.nf(res) * taps
    return total / 1e9


def step_gflop(model: ModelConfig, loss: LossConfig, resolution: int) -> float:
    """Of one image through a whole training step.

    In passes through a network: D step: fakes made (1), D on fakes forward (1) and backward (2), D on reals forward
    and backward (3), its penalty: one gradient and the derivative of that (3). G step: made (1), judged (1), back
    through D (1) and G (2).
    """
    penalties = (loss.r1_gamma.at(resolution) > 0) + (loss.r2_gamma.at(resolution) > 0)
    lazy = 3 * penalties / loss.r1_interval
    if loss.name == "wgan-gp":
        lazy += 6
    return forward_gflop(model, resolution) * (12 + lazy)


def work(cfg: RunConfig, resolution: int) -> float:
    """What an image costs at a resolution, in GFLOP: its arithmetic, and its share of what every step costs besides."""
    return step_gflop(cfg.model, cfg.loss, resolution) + STEP_OVERHEAD_GFLOP / cfg.growth.batch.at(resolution)


def seconds_left(cfg: RunConfig, nimg: int, gflops: float) -> tuple[float, float]:
    """Of this phase, and of the run, at the given speed in units of `work`."""
    here = cfg.growth.at(nimg).phase
    phase = run = 0.0
    for segment in cfg.growth.phases(cfg.total_kimg):
        kimg = segment.end_kimg - max(segment.start_kimg, nimg / 1000)
        if kimg <= 0:
            continue
        seconds = kimg * 1000 * work(cfg, segment.resolution) / gflops
        run += seconds
        if segment.phase == here:
            phase += seconds
    return phase, run


def conv_gflops(model: ModelConfig, batch: int, dtype: torch.dtype, device: torch.device, repeats: int = 30) -> float:
    """The forward rate of a 3x3 convolution from the middle of this network, channels last: what there is to reach."""
    resolution = max(model.resolution // 2, 4)
    channels, (height, width) = model.nf(resolution), model.size(resolution)
    x = torch.randn(batch, channels, height, width, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    gflop = 2 * batch * channels**2 * 9 * height * width / 1e9
    times = []
    with torch.inference_mode():
        for _ in range(repeats):
            begin = time.perf_counter()
            F.conv2d(x, weight, padding=1)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begin)
    return gflop / statistics.median(times)


def estimated_speed(cfg: RunConfig, dtype: torch.dtype, device: torch.device) -> Callable[[int], float]:
    """Images per second at a resolution, guessed from the speed of a convolution here and now."""
    gflops = REACHED_SHARE * conv_gflops(cfg.model, 4, dtype, device, repeats=5)
    return lambda resolution: gflops / work(cfg, resolution)
