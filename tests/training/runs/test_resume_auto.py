"""Which run --resume auto means. Training itself is replaced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stylegan.checkpoints.snapshot import Snapshot, store
from stylegan.cli import train
from stylegan.networks.config import Stage
from stylegan.networks.registry import build_generator
from torch_utils.checkpoint import save_state
from training.config import RunConfig
from training.runs.hours import Costs
from training.runs.resume import preset
from training.runs.run_dir import OPTIONS, PREVIOUS, STATE, locked, locked_name, mark_finished

Call = tuple[RunConfig, Path, bool, str | None]
NAME, GAMMA = "faces-faces64", preset("faces64", 1).loss.r1_gamma


@pytest.fixture
def calls(monkeypatch) -> list[Call]:
    """What train.py asks the training loop to do, after which a state is there."""
    asked: list[Call] = []

    def train_stand_in(cfg: RunConfig, run_dir: Path, resume: bool = False, init_from: str | None = None) -> None:
        asked.append((cfg, run_dir, resume, init_from))
        (run_dir / STATE).touch()

    monkeypatch.setattr("training.runs.launch.train", train_stand_in)
    return asked


@pytest.fixture
def faces(tmp_path) -> Path:
    """A folder of one 64x64 image."""
    (tmp_path / "faces").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "faces" / "0.png")
    return tmp_path / "faces"


@pytest.fixture
def auto(faces, tmp_path) -> Any:
    """train.py --resume auto, with more options."""

    def run(*more: object, resume: str = "auto") -> Any:
        fixed = ["--outdir", tmp_path / "runs", "--data", faces, "--cfg", "faces64"]
        resumed = ["--resume", resume] if resume else []
        return CliRunner().invoke(train.main, [str(a) for a in (*fixed, *resumed, *more)])

    return run


def test_it_starts_a_run_goes_on_with_it_and_stays_at_its_end(auto, calls, tmp_path):
    first, second = auto(), auto()
    run_dir = tmp_path / "runs" / f"00000-{NAME}"
    assert [(call[1], call[2]) for call in calls] == [(run_dir, False), (run_dir, True)]
    assert f"no run {NAME} in" in first.stdout and f"{run_dir} is unfinished, going on with it" in second.stdout
    mark_finished(run_dir, calls[0][0].total_kimg)
    third = auto()
    assert third.exit_code == 0 and f"{run_dir} is finished already" in third.stdout and len(calls) == 2
    longer = calls[0][0].total_kimg + 1
    assert auto("--kimg", longer).exit_code == 0
    assert (calls[2][0].total_kimg, calls[2][2]) == (longer, True)


def test_it_is_the_newest_of_those_that_this_command_would_have_made(auto, calls, tmp_path):
    auto(resume="")
    auto(resume="")
    auto("--desc", "other", resume="")
    assert auto("--threads", 1).exit_code == 0
    assert (calls[-1][1].name, calls[-1][2], calls[-1][0].threads) == (f"00001-{NAME}", True, 1)
    mark_finished(tmp_path / "runs" / f"00001-{NAME}", calls[0][0].total_kimg)
    assert auto().exit_code == 0
    assert calls[-1][1].name == f"00000-{NAME}"


def test_a_contradiction_names_both_values(auto, calls):
    auto("--gamma", 7)
    typed, left_out = auto("--gamma", 5), auto()
    assert typed.exit_code == left_out.exit_code == 2 and len(calls) == 1
    assert "--gamma 5 contradicts 7" in typed.stderr and f"--gamma {GAMMA}, which is meant" in left_out.stderr
    assert len(typed.stderr.splitlines()) == len(left_out.stderr.splitlines()) == 1


def test_a_run_in_a_given_time_keeps_its_plan_and_is_over_when_it_ended(auto, calls, monkeypatch):
    """Though the machine is twice as slow by the second time, and the clock came before the last image."""
    for slower in (1, 2):
        step = {res: slower * 0.01 * res for res in (8, 16, 32, 64)}
        monkeypatch.setattr("training.runs.launch.costs_of", lambda cfg, step=step: Costs(step, step))
        result = auto("--hours", 2, "--lod-kimg", 5)
        assert result.exit_code == 0, result.output
    (first, run_dir, *_), (second, *again) = calls
    assert first.time_limit is not None and second == first and again[:2] == [run_dir, True]
    other = auto("--hours", 3, "--lod-kimg", 5)
    assert other.exit_code == 2 and "--hours 3.0 contradicts 2.0" in other.stderr
    mark_finished(run_dir, first.total_kimg / 2)
    over = auto("--hours", 2)
    assert over.exit_code == 0 and "is finished already" in over.stdout and len(calls) == 2


def test_a_run_as_wide_as_what_it_began_with_is_this_commands_own(auto, calls, tmp_path):
    """Also when the snapshot it began with is gone; what is typed counts nevertheless."""
    wide = replace(preset("faces64", 1).model, resolution=8, fmap_base=1 << 14, fmap_max=300)
    snapshot = tmp_path / "wide.safetensors"
    store(snapshot, Snapshot(build_generator(wide), None, wide, Stage(8), 1.0, "x"))
    first = auto("--init-from", snapshot)
    assert first.exit_code == 0, first.output
    snapshot.unlink()
    second = auto("--init-from", snapshot)
    assert second.exit_code == 0, second.output
    (began, run_dir, _, _), (_, again, resumed, _) = calls
    assert (began.model.fmap_base, began.model.fmap_max) == (wide.fmap_base, wide.fmap_max)
    assert "--fmap-max 300" in first.stdout and (again, resumed) == (run_dir, True)
    refused = auto("--init-from", snapshot, "--fmap-max", 100)
    assert refused.exit_code == 2 and "--fmap-max 100 contradicts 300" in refused.stderr


def test_an_end_that_was_said_later_stays(auto, calls):
    """How the learning rate falls: --resume RUNDIR may say it, and repeating the first command is no contradiction."""
    auto()
    run_dir = calls[0][1]
    save_state(run_dir / STATE, {"nimg": 0})
    later = ["--resume", str(run_dir), "--anneal-from", "500", "--anneal-kimg", "9"]
    result = CliRunner().invoke(train.main, later)
    assert result.exit_code == 0, result.output
    assert auto().exit_code == 0
    assert calls[2] == (calls[1][0], run_dir, True, None)
    assert (calls[2][0].growth.anneal_from, calls[2][0].growth.anneal_kimg) == (500, 9)
    refused = auto("--anneal-kimg", 8)
    assert refused.exit_code == 2 and "--anneal-kimg 8.0 contradicts 9.0" in refused.stderr


def test_a_finished_run_of_other_settings_is_no_obstacle(auto, calls, tmp_path):
    auto("--gamma", 7)
    mark_finished(tmp_path / "runs" / f"00000-{NAME}", calls[0][0].total_kimg)
    assert auto().exit_code == 0
    assert (calls[-1][1].name, calls[-1][2]) == (f"00001-{NAME}", False)


def test_a_run_without_a_state_is_begun_again_where_it_is(auto, calls, tmp_path):
    auto()
    run_dir = calls[0][1]
    (run_dir / STATE).unlink()
    assert auto().exit_code == 0
    assert calls[-1][1:3] == (run_dir, False) and len(list((tmp_path / "runs").glob("0*"))) == 1
    (run_dir / STATE).rename(run_dir / PREVIOUS)
    assert auto().exit_code == 0
    assert calls[-1][1:3] == (run_dir, True)


def test_other_data_of_the_same_name_are_refused(auto, calls, faces):
    auto()
    Image.fromarray(np.ones((64, 64, 3), np.uint8)).save(faces / "0.png")
    refused = auto()
    assert refused.exit_code == 2 and "is not what the run began with" in refused.stderr and len(calls) == 1


def test_of_two_at_once_one_is_told(auto, calls, tmp_path):
    auto()
    with locked(calls[0][1]):
        beside = auto()
    with locked_name(tmp_path / "runs", NAME):
        micro_batch = auto()
    assert beside.exit_code == micro_batch.exit_code == 2 and len(calls) == 1
    assert "in use by another training" in beside.stderr and f"has {NAME}" in micro_batch.stderr


def test_a_dry_run_says_which_and_writes_nothing(auto, calls, tmp_path):
    result = auto("-n")
    assert result.exit_code == 0 and "to go on with, starting one" in result.stdout and "Growth" in result.stdout
    assert not (tmp_path / "runs").exists() and not calls


def test_damaged_options_are_an_error_and_no_reason_to_start_anew(auto, calls):
    auto()
    (calls[0][1] / OPTIONS).write_text(json.dumps({})[:-1])
    result = auto()
    assert result.exit_code == 2 and f"{OPTIONS} is damaged" in result.stderr and len(calls) == 1
