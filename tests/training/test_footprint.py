"""Memory is foretold by what a step would hold."""

from __future__ import annotations

from dataclasses import replace

import torch

from torch_utils.settings import replaced
from training.footprint import PROCESS_BYTES, footprint
from training.plan import parameter_counts
from training.presets import preset
from training.schedule import PerResolution

CPU, FP32 = torch.device("cpu"), torch.float32


def test_memory_is_that_of_the_networks_and_of_the_pictures_at_once() -> None:
    """Twice the pictures take twice the memory, but for what is there without any."""
    cfg = replaced(preset("digits32", 1), {"growth.batch": PerResolution(32)})
    (whole, at_once), (half, fewer), (quarter, _) = (
        footprint(replace(cfg, batch_gpu=n), FP32, CPU)(32) for n in (None, 16, 8)
    )
    assert (at_once, fewer) == (32, 16)
    numbers = sum(parameter_counts(cfg.model))
    assert quarter > PROCESS_BYTES["cpu"] + 4 * 4 * numbers, "weights, gradients, two moments"
    assert 1.8 < (whole - half) / (half - quarter) < 2.2
    bf16, _ = footprint(cfg, torch.bfloat16, CPU)(32)
    assert whole - bf16 > 0.3 * (whole - PROCESS_BYTES["cpu"])


def test_a_process_of_several_holds_its_share() -> None:
    cfg = replace(preset("faces64", 1), gpus=2)
    assert footprint(cfg, FP32, CPU)(16)[1] == cfg.growth.batch.at(16) // 2
