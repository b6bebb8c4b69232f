"""The schedule of a search, and the numbers that none could have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stylegan.projection.settings import DISTANCES, ProjectionSettings, TuningSettings, check_settings, jitter, ramp
from torch_utils.errors import UserError

SETTINGS = ProjectionSettings()


def test_the_learning_rate_rises_stays_and_falls_to_nearly_nothing():
    rates = [ramp(SETTINGS, step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1) and rates[9:150] == [1.0] * 141
    assert all(a < b for a, b in zip(rates[:9], rates[1:10])) and all(a > b for a, b in zip(rates[150:], rates[151:]))
    assert rates[-1] < 0.001
    flat = replace(SETTINGS, lr_rampup=0.0, lr_rampdown=0.0)
    assert {ramp(flat, step, 200) for step in range(200)} == {1.0}


def test_noise_on_w_falls_to_0():
    strengths = [jitter(SETTINGS, step, 200) for step in range(200)]
    assert strengths[0] == SETTINGS.jitter and strengths[75] == pytest.approx(SETTINGS.jitter / 4)
    assert strengths[150:] == [0.0] * 50
    assert jitter(replace(SETTINGS, jitter_until=0.0), 0, 200) == 0


@pytest.mark.parametrize(("wrong", "message"), [
    (replace(SETTINGS, num_steps=1), "--num-steps 1 is too few"), (replace(SETTINGS, lr=-1.0), "--lr -1 is not 0 or"),
    (replace(SETTINGS, lr=float("nan")), "--lr nan"), (replace(SETTINGS, lr_rampup=2.0), "--lr-rampup 2 is a part"),
    (TuningSettings(steps=0), "--pti-steps 0 is too few"), (TuningSettings(lr=-1.0), "--pti-lr"),
])  # fmt: skip
def test_impossible_numbers(wrong, message):
    with pytest.raises(UserError, match=message):
        check_settings(wrong)
    check_settings(SETTINGS)
    check_settings(TuningSettings())


def test_the_names_of_distances_are_those_that_can_be_picked():
    from stylegan.features import lpips

    assert set(lpips.NETS) < set(DISTANCES)
