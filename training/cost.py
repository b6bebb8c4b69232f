"""How much arithmetic a training step takes, and so how long the rest of a run will."""

from __future__ import annotations

from stylegan.config import ModelConfig
from training.config import LossConfig, RunConfig


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
    penalties = (loss.r1_gamma > 0) + (loss.r2_gamma > 0)
    lazy = 3 * penalties / loss.r1_interval
    if loss.name == "wgan-gp":
        lazy += 6
    return forward_gflop(model, resolution) * (12 + lazy)


def seconds_left(cfg: RunConfig, nimg: int, gflops: float) -> tuple[float, float]:
    """Of this phase, and of the run, at the given speed."""
    here = cfg.growth.at(nimg).phase
    phase = run = 0.0
    for segment in cfg.growth.phases(cfg.total_kimg):
        kimg = segment.end_kimg - max(segment.start_kimg, nimg / 1000)
        if kimg <= 0:
            continue
        seconds = kimg * 1000 * step_gflop(cfg.model, cfg.loss, segment.resolution) / gflops
        run += seconds
        if segment.phase == here:
            phase += seconds
    return phase, run
