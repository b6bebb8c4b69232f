"""Whole runs: that they learn, that they leave what they should, and that trouble is met aloud."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan.checkpoints.snapshot import load_snapshot
from stylegan.networks.config import Stage
from torch_utils.errors import UserError
from training import losses
from training.config import RunConfig
from training.loop import train
from training.runs.checkpointing import MAX_ROLLBACKS
from training.runs.report import LOG, STATS
from training.runs.run_dir import STATE
from training.schedule import PerResolution
from training.state import TrainState


def log(run_dir: Path) -> list[str]:
    return (run_dir / LOG).read_text().splitlines()


def saved(run_dir: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run_dir / STATE, weights_only=True)
    return state


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """poison(3, 4): makes the discriminator's loss infinite in the third and fourth step of the process."""

    def make(*steps: int, every: bool = False) -> None:
        count, healthy = 0, losses.d_logistic_real

        def d_logistic_real(real: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            return healthy(real) * (math.inf if count in steps or (every and count >= steps[0]) else 1)

        monkeypatch.setattr(losses, "d_logistic_real", d_logistic_real)

    return make


def test_a_run_leaves_what_the_field_expects(tiny, tmp_path) -> None:
    cfg = tiny(data__cond=True, data__class_names=("cat", "dog"))
    state = train(cfg, tmp_path)
    assert state.nimg == 240
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("events.")}
    assert names == {
        "log.txt", "stats.jsonl", "reals.png", "fakes_init.png", "fakes.json", "fakes000000.png", "growth.webp",
        "network-snapshot-000000.safetensors", "training-state.pt",
        "training-state.previous.pt", ".finished",
    }  # fmt: skip
    assert sum("images 16x16 " in line and line.startswith("Data: ") for line in log(tmp_path)) == 1
    lines = [json.loads(line) for line in (tmp_path / STATS).read_text().splitlines()]
    assert [line["Progress/kimg"] for line in lines] == [0.08, 0.16, 0.24]
    assert [line["Progress/resolution"] for line in lines] == [8, 16, 16]
    assert {"Loss/D/loss", "Loss/G/loss", "Loss/signs/real", "Gradient/D", "Timing/data_percent"} <= set(lines[0])
    snap = load_snapshot(tmp_path / "network-snapshot-000000.safetensors")
    assert (snap.stage, snap.kimg, snap.data, snap.config) == (Stage(16), 0.24, "blotches", cfg.model)
    assert snap.class_names == ("cat", "dog") and any("Classes: 0 cat, 1 dog, 2" in line for line in log(tmp_path))
    assert json.loads((tmp_path / "fakes.json").read_text())["class_names"] == ["cat", "dog"]
    ours = state.G_ema.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in snap.G.state_dict().items())
    assert snap.D is not None


def test_moments_are_forgotten_at_both_ends_of_a_fade(straight) -> None:
    """Adam counts its steps: since the last phase began, at 160 images."""
    counts = {int(entry["step"]) for entry in saved(straight)["opt_d"]["state"].values()}
    assert counts == {(240 - 160) // 8}
    told = [line.split(":")[0] for line in log(straight) if line.startswith("phase")]
    assert told == ["phase 1 at 0.0 kimg", "phase 2 at 0.1 kimg", "phase 3 at 0.1 kimg", "phase 4 at 0.2 kimg"]


def test_every_run_ends_with_a_snapshot(tiny, tmp_path) -> None:
    train(tiny(snap=1000, tick_kimg=PerResolution(100.0)), tmp_path)
    assert len(list(tmp_path.glob("network-snapshot-*"))) == 1
    assert saved(tmp_path)["nimg"] == 240
    assert (tmp_path / "growth.webp").exists()


def test_a_run_whose_time_is_up_ends_whole_and_can_go_on(straight, tiny, tmp_path, monkeypatch) -> None:
    """The clock moves the end and nothing else: prolonged, it is the run that had the time."""
    late = [False] * 16 + [True]
    with monkeypatch.context() as patch:
        patch.setattr("training.runs.report.Clock.late", lambda *_: late.pop(0))
        state = train(tiny(hours=1.0, time_limit=1e9), tmp_path)
    assert state.nimg == 16 * 8
    assert load_snapshot(next(tmp_path.glob("network-snapshot-*"))).kimg == 0.128
    said = log(tmp_path)
    assert "The time of 1 h is over, at 0.1 of the 0.24 kimg" in said[-2] and said[1].startswith(
        "Planned for 1 h: 4x4 to"
    )
    assert "Done: 0.1 kimg. It ends while 16x16 fades in, at 33%; 16x16 is reached at 0.16 kimg: train.py" in said[-1]
    train(tiny(hours=1.0, time_limit=1e-9), tmp_path, resume=True)
    assert saved(tmp_path)["nimg"] == 128, "its time has not come back"
    assert saved(tmp_path)["seconds"] > state.seconds / 2 > 0
    train(tiny(), tmp_path, resume=True)
    assert said[-2] in log(tmp_path) and log(tmp_path)[-1].startswith("Done: 0.2 kimg. Images")
    for net in ("G", "D", "G_ema"):
        mine, theirs = saved(tmp_path)[net], saved(straight)[net]
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_speed_after_a_resume_is_that_of_what_was_done_since(tiny, tmp_path, monkeypatch) -> None:
    """The tick at 160 images of a run that was stopped at 104: 56 were worked through since."""
    signals = [0] * 13 + [signal.SIGINT]
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.wish_of_any", lambda *_: signals.pop(0))
        assert train(tiny(), tmp_path).nimg == 104
    train(tiny(), tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / STATS).read_text().splitlines()]
    done = [line["Timing/img_per_sec"] * line["Timing/sec_per_tick"] for line in lines]
    assert done == pytest.approx([80, 56, 80])


def test_a_finished_run_stays_as_it_is(straight, tiny, tmp_path) -> None:
    run_dir = shutil.copytree(straight, tmp_path / "again")
    before = saved(run_dir), (run_dir / STATS).read_bytes(), (run_dir / "growth.webp").read_bytes()
    train(tiny(), run_dir, resume=True)
    assert saved(run_dir)["nimg"] == 240
    assert torch.equal(saved(run_dir)["G"]["mapping.w_avg"], before[0]["G"]["mapping.w_avg"])
    assert ((run_dir / STATS).read_bytes(), (run_dir / "growth.webp").read_bytes()) == before[1:]


def test_the_run_learns_the_brightness_of_its_data(new_images, tiny, tmp_path) -> None:
    """Reals are darker than grey on average, fresh networks make grey."""
    cfg = tiny(growth__initial=8, growth__final=8, model__resolution=8, total_kimg=0.6, ema_kimg=0.05)
    train(cfg, tmp_path)
    reals, before, after = (
        torch.from_numpy(image_of(tmp_path / name)).float() / 127.5 - 1
        for name in ("reals.png", "fakes_init.png", "fakes000000.png")
    )
    assert (after.mean() - reals.mean()).abs() < 0.3
    assert (after.std() - reals.std()).abs() < (before.std() - reals.std()).abs()


def image_of(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    return np.array(Image.open(path))


def test_a_bad_step_is_skipped_counted_and_reported(poison, tiny, tmp_path) -> None:
    poison(3, 4, 9)
    state = train(tiny(max_bad_steps=3), tmp_path)
    assert [line for line in log(tmp_path) if "steps skipped" in line] == [
        "3 steps skipped between 0.00 and 0.08 kimg, because this is not finite: D's gradient of from_rgb.4.weight "
        "(3); at most 2 in a row, 3 in all"
    ]
    assert (state.nimg, state.skipped, state.bad_steps, state.rollbacks) == (240, 3, 0, 0)
    lines = [json.loads(line) for line in (tmp_path / STATS).read_text().splitlines()]
    assert [line["Progress/skipped_steps"] for line in lines] == [3, 3, 3]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    for net in (state.G, state.D, state.G_ema):
        assert all(p.isfinite().all() for p in net.state_dict().values())


def test_many_bad_steps_return_to_the_last_good_state(poison, straight, tiny, tmp_path) -> None:
    poison(13, 14, 15)  # the state of 80 images, ten steps, is there
    state = train(tiny(max_bad_steps=3), tmp_path)
    (line,) = [line for line in log(tmp_path) if "back to the last good state" in line]
    assert line == "3 bad steps in a row: back to the last good state, at 0.1 kimg, with other random numbers " \
                   f"(time 1 of {MAX_ROLLBACKS})"  # fmt: skip
    assert (state.nimg, state.rollbacks, state.skipped) == (240, 1, 3)
    assert not torch.equal(saved(straight)["G"]["mapping.w_avg"], state.G.mapping.w_avg)


@pytest.mark.parametrize("stop", [14, 16, 18])
def test_a_run_stopped_amid_bad_steps_or_after_goes_back_as_one_that_was_not(stop, poison, tiny, tmp_path, monkeypatch):
    """Four of them from the 13th on; the state of 80 images is good, and the first stop saves one that is not."""
    cfg, ends = tiny(max_bad_steps=3), []
    for name, signals in (("straight", [0] * 99), ("stopped", [0] * stop + [signal.SIGINT] + [0] * 99)):
        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            poison(13, 14, 15, 16)
            patch.setattr("training.loop.wish_of_any", lambda *_, left=signals: left.pop(0))
            state = train(cfg, tmp_path / name)
            if name == "stopped":
                assert saved(tmp_path / name)["bad_steps"] == (2 if stop == 14 else 0)
                state = train(cfg, tmp_path / name, resume=True)
        assert (state.nimg, state.rollbacks, state.skipped, state.bad_steps) == (240, 1, 4, 0)
        ends.append(saved(tmp_path / name))
    for net in ("G", "D", "G_ema"):
        assert all(torch.equal(value, ends[1][net][name]) for name, value in ends[0][net].items())
    assert ends[0]["sums"] == ends[1]["sums"]


def test_a_state_amid_bad_steps_does_not_replace_a_good_one(poison, tiny, tmp_path, monkeypatch) -> None:
    """And those after the last tick are counted, too."""
    saves: list[int] = []
    save = TrainState.save

    def watched(self: TrainState, path: Path, cfg: RunConfig, previous: Path | None = None) -> None:
        saves.append(self.nimg)
        save(self, path, cfg, previous)

    monkeypatch.setattr(TrainState, "save", watched)
    poison(9, 10, 11, 29)
    state = train(tiny(max_bad_steps=5, total_kimg=0.232), tmp_path)
    assert saves == [0, 160, 232] and (state.skipped, state.bad_steps) == (4, 1)
    told = [line.partition("last ")[2] for line in log(tmp_path) if "not saved at this tick" in line]
    assert told == ["2 steps came to nothing", "1 step came to nothing"]
    assert len(list(tmp_path.glob("network-snapshot-*"))) == 1


def test_a_run_that_keeps_diverging_ends_with_its_last_good_state(poison, tiny, tmp_path) -> None:
    poison(13, every=True)
    with pytest.raises(UserError, match=f"diverged {MAX_ROLLBACKS + 1} times.*--gamma"):
        train(tiny(max_bad_steps=2), tmp_path)
    assert sum("back to the last good state" in line for line in log(tmp_path)) == MAX_ROLLBACKS
    state = saved(tmp_path)
    assert state["nimg"] == 80 and all(tensor.isfinite().all() for tensor in state["G"].values())


def test_reals_that_cannot_be_read_end_the_run_at_the_step_that_needs_them(tiny, tmp_path, monkeypatch) -> None:
    """Not when they are gathered, two steps before: what is saved in between is saved."""
    import training.loop

    healthy = training.loop.images_at

    def sick(data: Any, cfg: RunConfig, dist: Any, nimg: int, stage: Any = None) -> Any:
        if nimg >= 88:
            raise UserError("the reduced images are damaged: check that disk")
        return healthy(data, cfg, dist, nimg, stage)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="check that disk"):
        patch.setattr(training.loop, "images_at", sick)
        train(tiny(tick_kimg=PerResolution(0.088)), tmp_path)
    assert saved(tmp_path)["nimg"] == 88
    assert not [thread for thread in threading.enumerate() if thread.name == "reals"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The disk is full once 100 images have been seen."""
    import training.loop
    from torch_utils import checkpoint

    seen: list[int] = []
    healthy_step, healthy_usage = training.loop.train_step, checkpoint.shutil.disk_usage

    def step(state: Any, *arguments: Any) -> Any:
        seen.append(state.nimg)
        return healthy_step(state, *arguments)

    def disk_usage(folder: Path) -> Any:
        usage = healthy_usage(folder)
        return usage._replace(free=1000) if seen and seen[-1] > 100 else usage

    with monkeypatch.context() as patch:
        patch.setattr(training.loop, "train_step", step)
        patch.setattr(checkpoint.shutil, "disk_usage", disk_usage)
        yield patch


def test_a_full_disk_costs_nothing_that_was_saved(straight, full_disk, tiny, tmp_path) -> None:
    cfg = tiny()
    with pytest.raises(UserError, match="disk is full"):
        train(cfg, tmp_path)
    assert saved(tmp_path)["nimg"] == 80
    load_snapshot(tmp_path / "network-snapshot-000000.safetensors")
    full_disk.undo()
    resumed, other = train(cfg, tmp_path, resume=True), saved(straight)
    for name in ("G", "D", "G_ema"):
        ours, theirs = getattr(resumed, name).state_dict(), other[name]
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
