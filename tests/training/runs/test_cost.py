"""How much arithmetic there is, against what torch counts, and what follows for the time left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from stylegan.features import lpips
from stylegan.networks.config import Stage
from stylegan.networks.registry import build_generator
from training.config import AID_NETS, AID_SMALLEST, LossConfig
from training.runs.plan import (
    TYPICAL,
    Machine,
    aid_cost,
    conv_gflops,
    copied_gb,
    estimated_speed,
    seconds_left,
    seconds_per_image,
    step_cost,
)
from training.runs.resume import preset
from training.schedule import PerResolution

CPU = torch.device("cpu")


def convolution(x, w, stride, padding, transposed, extra, *, out_shape) -> int:
    return conv_flop_count(x, w, out_shape, transposed)


@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_the_convolutions_are_counted(tiny, resolution: int) -> None:
    """torch counts what is run: the upsampling convolution may take more than the least arithmetic."""
    model = tiny(model__fmap_base=512, model__fmap_max=64).model
    G = build_generator(model)
    ours = {torch.ops.stylegan.conv2d: convolution}
    with FlopCounterMode(display=False, custom_mapping=ours) as counter, torch.no_grad():
        G(torch.randn(1, 16), stage=Stage(resolution))
    least = model.generator_cost(resolution).gflop
    assert least <= counter.get_total_flops() / 1e9 <= 2.5 * least


def test_penalties_cost_three_passes_when_they_come(tiny) -> None:
    model = tiny().model
    passes = {
        name: step_cost(model, loss, 16)[0] / model.generator_cost(16).gflop
        for name, loss in (
            ("none", LossConfig(r1_gamma=PerResolution(0))), ("r1", LossConfig()), ("lazy", LossConfig(r1_interval=6)),
            ("both", LossConfig(r2_gamma=PerResolution(1.0))), ("wgan-gp", LossConfig("wgan-gp", PerResolution(0))),
        )
    }  # fmt: skip
    assert passes == pytest.approx({"none": 12, "r1": 15, "lazy": 12.5, "both": 18, "wgan-gp": 18})


def test_a_narrower_discriminator_costs_what_a_network_so_narrow_does(tiny) -> None:
    """Of 12 passes without penalties, 4 are the generator's."""
    loss = LossConfig(r1_gamma=PerResolution(0))
    wide, narrow = (tiny(model__fmap_base=512, model__fmap_max=most).model for most in (64, 16))
    mixed = replace(wide, d_fmap_max=16)
    for of_wide, of_narrow, of_mixed in zip(*(step_cost(m, loss, 16) for m in (wide, narrow, mixed)), strict=True):
        assert of_mixed == pytest.approx((4 * of_wide + 8 * of_narrow) / 12)


def test_shared_fakes_are_made_once(tiny) -> None:
    """Of 12 passes without penalties, one is spared."""
    loss = LossConfig(r1_gamma=PerResolution(0))
    shared = replace(loss, share_fakes=True)
    whole = step_cost(tiny().model, loss, 16)
    assert step_cost(tiny().model, shared, 16) == pytest.approx([11 / 12 * cost for cost in whole])


@pytest.mark.parametrize("zoom", [1, 2])
@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_the_eyes_of_the_vision_aid_are_counted_where_they_see(resolution: int, zoom: int) -> None:
    cfg = preset("faces64", 1)
    cfg = replace(cfg, loss=replace(cfg.loss, vision_aid="vgg16", aid_zoom=zoom, share_fakes=False))
    net = AID_NETS["vgg16"]
    weights = {name: torch.empty(shape, device="meta") for name, shape in lpips.shapes(net).items()}
    with FlopCounterMode(display=False) as counter:
        lpips.feature_maps(net, weights, torch.empty(1, 3, zoom * resolution, zoom * resolution, device="meta"))
    gflop, gb = aid_cost(cfg, resolution)
    assert gflop == pytest.approx(5 * counter.get_total_flops() / 1e9 if resolution >= AID_SMALLEST else 0)
    assert (gb > 0) == (gflop > 0)
    shared = aid_cost(replace(cfg, loss=replace(cfg.loss, share_fakes=True)), resolution)
    assert shared == pytest.approx((3 / 5 * gflop, 3 / 5 * gb))
    assert aid_cost(preset("digits32", 1), 32) == (0, 0)


def test_the_time_left_falls_to_zero_and_is_the_sum_of_its_phases(tiny) -> None:
    cfg = tiny()

    def left(nimg: int, slower: float = 1.0) -> tuple[float, float]:
        here = seconds_per_image(cfg, cfg.growth.at(nimg).resolution, TYPICAL)
        return seconds_left(cfg, nimg, slower * here, TYPICAL)

    runs = [left(nimg) for nimg in range(0, 241, 8)]
    assert [run for _, run in runs] == sorted((run for _, run in runs), reverse=True)
    assert runs[-1] == (0.0, 0.0)
    begins = [int(1000 * segment.start_kimg) + 1 for segment in cfg.growth.phases(cfg.total_kimg)]
    assert sum(left(nimg)[0] for nimg in begins) == pytest.approx(runs[0][1], rel=0.05)
    assert left(0, slower=2.0)[1] == pytest.approx(2 * runs[0][1])


def test_speed_is_guessed_from_the_machine(tiny, monkeypatch) -> None:
    assert conv_gflops(tiny().model, 2, torch.float32, CPU, repeats=2) > 0 and copied_gb(CPU, repeats=2) > 0
    monkeypatch.setattr("training.runs.plan.measured_machine", lambda *_: TYPICAL)
    speed = estimated_speed(tiny(), torch.float32, CPU)
    assert speed(4) > speed(16) > 0 and speed(16) == 1 / seconds_per_image(tiny(), 16, TYPICAL)


def test_neither_faster_convolutions_nor_faster_memory_alone_make_a_step_take_no_time() -> None:
    cfg = preset("faces64", 1)
    for fast in (Machine(1e9, TYPICAL.gb), Machine(TYPICAL.gflops, 1e9), Machine(1e9, 1e9)):
        assert 0.05 / 16 <= seconds_per_image(cfg, 64, fast) < seconds_per_image(cfg, 64, TYPICAL)
