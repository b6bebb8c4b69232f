"""The growth that fits into a time: a pure function of what things cost, with the preset's proportions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylegan.networks.config import NetworkConfig
from stylegan.networks.registry import config_from_json
from torch_utils.errors import UserError
from torch_utils.settings import from_plain, to_plain
from training.config import RunConfig
from training.presets import PRESETS
from training.runs.check import check
from training.runs.hours import LATE, MIN_STEPS, Costs, budget_lines, parts, plan, scaled
from training.runs.resume import preset
from training.schedule import PerResolution, Phase


def costs_for(cfg: RunConfig, second: float, **besides: float) -> Costs:
    """A step takes `second` at the first resolution, and twice as long at each of the next."""
    step = {r: second * 2.0**k for k, r in enumerate(cfg.growth.resolutions)}
    return Costs(step, fakes={r: seconds / 2 for r, seconds in step.items()}, **besides)


def images(phase: Phase) -> int:
    return round(1000 * (phase.end_kimg - phase.start_kimg))


def phases(cfg: RunConfig) -> list[Phase]:
    return cfg.growth.phases(cfg.total_kimg)


@settings(max_examples=15)
@given(
    st.sampled_from(sorted(PRESETS)), st.floats(0.001, 0.5), st.floats(40, 2000), st.floats(0, 2), st.booleans(),
)  # fmt: skip
def test_a_plan_fills_its_time_keeps_the_proportions_and_takes_whole_steps(
    name: str, second: float, hours: float, save: float, measuring: bool
) -> None:
    preset_cfg = replace(preset(name, 1), hours=hours, metrics="kid1k" if measuring else "none")
    costs = costs_for(preset_cfg, second, save=save, frame=0.02, metrics=20 * measuring, reals=5, begin=3, launch=2)
    seconds = 3600 * hours - 30
    if sum(parts(scaled(preset_cfg, 0.0), costs).values()) > seconds:
        return
    cfg = plan(preset_cfg, costs, seconds)
    check(cfg)
    spent = sum(parts(cfg, costs).values())
    jump = sum(costs.step.values()) + costs.reals + 1  # what comes or goes when a phase gets one more step
    assert seconds - 2 * jump <= spent <= seconds

    before, after = phases(preset_cfg), phases(cfg)
    assert [(p.phase, p.resolution) for p in after] == [(p.phase, p.resolution) for p in before]
    factor = images(after[-1]) / images(before[-1])
    last = cfg.growth.batch.at(cfg.growth.final)
    for long, short in zip(before, after, strict=True):
        batch = cfg.growth.batch.at(short.resolution)
        assert images(short) % batch == 0 and images(short) >= MIN_STEPS * batch
        if images(short) > MIN_STEPS * batch and images(after[-1]) > MIN_STEPS * last:
            slack = batch + last * images(long) / images(before[-1])  # each is a whole number of steps
            assert images(short) == pytest.approx(factor * images(long), abs=slack)
        stage = cfg.growth.at(round(1000 * short.start_kimg) + 1)
        assert (stage.phase, stage.resolution) == (short.phase, short.resolution)
    assert cfg.time_limit is not None and cfg.time_limit < LATE * 3600 * hours
    assert from_plain(RunConfig, to_plain(cfg), readers={NetworkConfig: config_from_json}) == cfg
    assert plan(preset_cfg, costs, seconds) == cfg


def test_twice_the_speed_or_the_time_is_twice_the_images() -> None:
    cfg = replace(preset("faces64", 1), hours=2.0)
    one = plan(cfg, costs_for(cfg, 0.1), 7200)
    assert plan(cfg, costs_for(cfg, 0.05), 7200).total_kimg == pytest.approx(2 * one.total_kimg, rel=0.01)
    assert plan(replace(cfg, hours=4.0), costs_for(cfg, 0.1), 14400).total_kimg == pytest.approx(
        2 * one.total_kimg, rel=0.01
    )


def test_the_learning_rate_falls_over_the_same_share() -> None:
    growth = replace(preset("faces64", 1).growth, anneal_kimg=100.0)
    cfg = replace(preset("faces64", 1), growth=growth, hours=2.0)
    planned = plan(cfg, costs_for(cfg, 0.1), 7200)
    shares = [c.growth.anneal_kimg / images(phases(c)[-1]) for c in (cfg, planned)]
    assert shares[1] == pytest.approx(shares[0], rel=0.01)


def test_what_metrics_and_snapshots_take_is_taken_off() -> None:
    cfg = replace(preset("faces64", 1), hours=2.0, metrics="kid1k")
    plain, rich = costs_for(cfg, 0.1), costs_for(cfg, 0.1, metrics=60.0, save=10.0, begin=100.0)
    assert plan(cfg, rich, 7200).total_kimg < plan(cfg, plain, 7200).total_kimg
    spent = parts(plan(cfg, rich, 7200), rich)
    assert set(spent) == {"start", "training", "images", "snapshots", "metrics"} and spent["start"] == 100
    assert any("metrics" in line for line in budget_lines(plan(cfg, rich, 7200), rich))


def test_too_little_time_is_refused_with_the_least_that_is_enough() -> None:
    cfg = replace(preset("digits32", 1), hours=0.001)
    costs = costs_for(cfg, 0.1, begin=5.0)
    with pytest.raises(UserError, match=f"--hours 0.001 is too little.*{MIN_STEPS} steps.*give at least") as refusal:
        plan(cfg, costs, 3.6 - 10)
    least = float(str(refusal.value).split()[-1])
    assert least < 0.1
    assert phases(plan(replace(cfg, hours=least), costs, 3600 * least - 10))[-1].resolution == 32


def test_phases_that_are_left_out_or_not_reached_stay_so() -> None:
    growth = replace(preset("digits32", 1).growth, fade_kimg=PerResolution(0.0))
    cfg = replace(preset("digits32", 1), growth=growth, total_kimg=18.0, hours=1.0)
    planned = plan(cfg, costs_for(cfg, 0.1), 3600)
    assert [(p.kind, p.resolution) for p in phases(planned)] == [("stable", 8), ("stable", 16)]
    assert planned.growth.fade_kimg.values() == [0.0, 0.0, 0.0]
