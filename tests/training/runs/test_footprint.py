"""Memory is foretold by what a step would hold."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from stylegan.features import lpips
from torch_utils.settings import replaced
from training.config import AID_NETS
from training.runs.memory import KEPT, PROCESS_BYTES, footprint
from training.runs.plan import parameter_counts
from training.runs.resume import preset
from training.schedule import PerResolution

CPU, FP32 = torch.device("cpu"), torch.float32


def test_memory_is_that_of_the_networks_and_of_the_pictures_at_once() -> None:
    """Twice the images take twice the memory, but for what is there without any."""
    cfg = replaced(preset("digits32", 1), {"growth.batch": PerResolution(32)})
    (whole, micro_batch), (half, fewer), (quarter, _) = (
        footprint(replace(cfg, batch_gpu=n), FP32, CPU)(32) for n in (None, 16, 8)
    )
    assert (micro_batch, fewer) == (32, 16)
    numbers = sum(parameter_counts(cfg.model))
    assert quarter > PROCESS_BYTES["cpu"] + 4 * 4 * numbers, "weights, gradients, two moments"
    assert 1.8 < (whole - half) / (half - quarter) < 2.2
    bf16, _ = footprint(cfg, torch.bfloat16, CPU)(32)
    assert whole - bf16 > 0.3 * (whole - PROCESS_BYTES["cpu"])


def test_a_process_of_several_holds_its_share() -> None:
    cfg = replace(preset("faces64", 1), gpus=2)
    assert footprint(cfg, FP32, CPU)(16)[1] == cfg.growth.batch.at(16) // 2


def test_the_vision_aid_is_held_besides_in_both_dtypes() -> None:
    cfg = preset("faces64", 1)
    aided = replaced(cfg, {"loss.vision_aid": "vgg16"})
    eyes = sum(math.prod(shape) for shape in lpips.shapes(AID_NETS["vgg16"]).values())
    for dtype, size in ((FP32, 4), (torch.bfloat16, 6)):
        (without, _), (with_it, _) = (footprint(c, dtype, CPU)(16) for c in (cfg, aided))
        least = KEPT["cpu"] * size * eyes
        assert least < with_it - without < 1.1 * least, "below 32x32 there is nothing for it to do"
        (without, _), (with_it, _) = (footprint(c, dtype, CPU)(64) for c in (cfg, aided))
        assert with_it - without > 1.1 * least
