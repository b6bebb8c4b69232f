"""Numbers that no search can use are refused, by the name that the user knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stylegan.projection.projector import phases
from stylegan.projection.settings import DISTANCES, ProjectionSettings, TuningSettings, by_flag, check_settings
from torch_utils.errors import UserError

SETTINGS = ProjectionSettings()


@pytest.mark.parametrize(("wrong", "name", "flag", "message"), [
    (replace(SETTINGS, num_steps=1), "num_steps", "--num-steps", "must be at least 2, got 1"),
    (replace(SETTINGS, lr=-1.0), "lr", "--lr", "must be at least 0, got -1"),
    (replace(SETTINGS, lr=0.0), "lr", "--lr", "must be more than 0, got 0"),
    (replace(SETTINGS, plus_lr=0.0), "plus_lr", "--plus-lr", "must be more than 0, got 0"),
    (TuningSettings(lr=0.0), "lr", "--pti-lr", "must be more than 0, got 0"),
    (replace(SETTINGS, lr=float("nan")), "lr", "--lr", "must be at least 0, got nan"),
    (replace(SETTINGS, lr_rampup=2.0), "lr_rampup", "--lr-rampup", "is a share of the steps, .* from 0 to 1, got 2"),
    (TuningSettings(steps=0), "steps", "--pti-steps", "must be at least 2, got 0"),
    (TuningSettings(lr=-1.0), "lr", "--pti-lr", "must be at least 0, got -1"),
])  # fmt: skip
def test_impossible_numbers(wrong, name, flag, message):
    with pytest.raises(UserError, match=f"^{name} {message}"):
        check_settings(wrong)
    with pytest.raises(UserError, match=f"^{flag} {message}"):
        check_settings(wrong, flags=True)
    check_settings(SETTINGS)
    check_settings(TuningSettings())


def test_each_setting_has_a_flag_of_its_own():
    flags = [*by_flag(SETTINGS), *by_flag(TuningSettings())]
    assert len(set(flags)) == len(flags) and by_flag(SETTINGS)["--num-steps"] == SETTINGS.num_steps


@pytest.mark.parametrize(("space", "steps"), [("w", 30), ("w+", 37)])
def test_steps_in_w_plus_come_on_top(space, steps):
    settings = replace(SETTINGS, space=space, num_steps=30, plus_steps=7)
    assert sum(phase.steps for phase in phases(settings)) == steps


def test_the_names_of_distances_are_those_that_can_be_picked():
    from stylegan.features import lpips

    assert set(lpips.NETS) < set(DISTANCES)
