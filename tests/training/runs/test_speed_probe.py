"""What the parts of a run cost, found by doing them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import training.runs.speed_probe
from torch_utils.distributed import SINGLE_PROCESS
from training.loop import open_data
from training.runs.speed_probe import costs_of, samples_of, step_seconds
from training.schedule import PerResolution
from training.state import fresh_state


def test_the_kinds_of_steps_have_their_shares(tiny) -> None:
    cfg = tiny(loss__r1_interval=4, total_kimg=0.24)
    samples = list(samples_of(cfg))
    assert len(samples) == 2 * 5, "4, 8 and 16 held, 8 and 16 fading in; each with penalties and without"
    for resolution in cfg.growth.resolutions:
        here = [s for s in samples if s.stage.resolution == resolution]
        assert sum(s.weight for s in here) == pytest.approx(1)
        lazy = sum(s.weight for s in here if s.nimg == 0)
        assert lazy == pytest.approx(1 / 4)
        fading = sum(s.weight for s in here if s.stage.alpha < 1)
        held = 0.08 if resolution == 16 else 0.032
        assert fading == pytest.approx(0.0 if resolution == 4 else 0.048 / (0.048 + held))


def test_steps_are_timed_as_they_come(tiny, monkeypatch) -> None:
    """With a stand-in for a step: it takes its resolution, ten times that with penalties, and longer to warm up."""
    cfg = tiny(loss__r1_interval=4, hours=1.0)
    now, warm = [0.0], set()

    def step(state, reals, stage, *others: Any) -> None:
        kind = stage.resolution, stage.alpha, state.nimg // stage.batch % 4 == 0
        now[0] += stage.resolution * (10 if kind[2] else 1) * (1 if kind in warm else 100)
        warm.add(kind)
        assert reals[0].shape[-1] == stage.resolution

    monkeypatch.setattr(training.runs.speed_probe, "train_step", step)
    monkeypatch.setattr(training.runs.speed_probe.time, "perf_counter", lambda: now[0])
    seconds = step_seconds(fresh_state(cfg, torch.device("cpu")), cfg, open_data(cfg), torch.float32, SINGLE_PROCESS)
    assert seconds == pytest.approx({r: r * (10 + 3 * 1) / 4 for r in (4, 8, 16)})


def test_everything_a_run_does_has_a_cost(tiny, tmp_path, monkeypatch) -> None:
    measured: list[Path] = []
    monkeypatch.setattr(training.runs.speed_probe, "measure_snapshot", lambda cfg, path, *others: measured.append(path))
    monkeypatch.setattr(training.runs.speed_probe, "SECONDS", 0.0)
    cfg = replace(tiny(growth__batch=PerResolution(2)), hours=1.0, metrics="kid100")
    costs = costs_of(cfg)
    assert len(measured) == 2, "once with the reals, once without"
    assert not measured[0].parent.exists(), "nothing is left behind"
    assert set(costs.step) == set(costs.fakes) == {4, 8, 16}
    assert min(*costs.step.values(), *costs.fakes.values(), costs.save, costs.frame, costs.begin) > 0
    assert costs.launch == 0
