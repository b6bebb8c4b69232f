"""What happens besides steps. Whole runs are in test_loop.py."""

from __future__ import annotations

import errno

import pytest
import torch

import stylegan
from stylegan.checkpoints.snapshot import load_snapshot
from stylegan.networks.config import Stage
from torch_utils.distributed import DistContext
from torch_utils.errors import UserError
from training.loop import pick_dtype, train
from training.runs import checkpointing as milestones
from training.runs.report import LOG, Clock, Report
from training.runs.run_dir import FINISHED, OPTIONS, STATE
from training.state import Checks, fresh_state


def test_the_state_is_saved_between_snapshots_when_they_are_far_apart(tiny, tmp_path, monkeypatch) -> None:
    saves: list[int] = []
    original = milestones._save_state

    def save_state(run):
        saves.append(run.state.nimg)
        original(run)

    monkeypatch.setattr(milestones, "_save_state", save_state)
    for minutes, expected in ((1e-6, [80, 160, 240, 240]), (60.0, [240])):
        saves.clear()
        folder = tmp_path / str(minutes)
        folder.mkdir()
        train(tiny(snap=1000, snap_minutes=minutes), folder)
        assert saves == expected


def test_of_several_ticks_within_a_kimg_the_last_one_stays(tiny, tmp_path) -> None:
    state = train(tiny(), tmp_path)
    assert state.tick == 3
    (fakes,) = tmp_path.glob("fakes0*.png")
    milestones.save_fakes(tmp_path / "last.png", state.G_ema, Stage(16))
    assert fakes.name == "fakes000000.png" and fakes.read_bytes() == (tmp_path / "last.png").read_bytes()
    assert stylegan.load(tmp_path).kimg == 0.24, "which says where in the kimg it is from"


def test_all_processes_work_on_as_many_images_as_the_one_with_the_least_memory(tiny, tmp_path, monkeypatch) -> None:
    state = fresh_state(tiny(), torch.device("cpu"))
    with Report(tmp_path, 1, 0, {}) as report:
        run = milestones.Run(tiny(), tmp_path, state, report, Clock(), DistContext(0, 2))
        monkeypatch.setattr(milestones, "all_reduce_max", lambda dist, name, number: max(number, -4))
        state.micro_batch = {8: 2, 16: 8}
        milestones.settle(run)
        assert state.micro_batch == {8: 2, 16: 8}, "there have been no steps"
        state.tally.add((Checks("D", ("d",), torch.ones(1), torch.ones(1).bool(), torch.tensor(True)),), 0, 0)
        milestones.settle(run)
    assert state.micro_batch == {8: 2, 16: 4}
    assert "out of memory at 0.00 kimg: from now on 4 images per GPU" in (tmp_path / LOG).read_text()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_discriminator_is_in_the_snapshot_where_it_is_asked_for(wanted: bool, tiny, tmp_path) -> None:
    train(tiny(total_kimg=0.016, snap_d=wanted), tmp_path)
    assert (stylegan.load(tmp_path).D is not None) == wanted


def test_a_picture_that_cannot_be_written_ends_the_run_in_one_line(tiny, tmp_path, monkeypatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(milestones, "save_fakes", full)
    with pytest.raises(UserError, match="cannot write to .* \\(No space left on device\\).*--resume"):
        train(tiny(), tmp_path)


def test_scratch_files_of_a_killed_process_are_removed(tiny, tmp_path) -> None:
    train(tiny(total_kimg=0.08), tmp_path)
    for name in (f".{STATE}.12345.tmp", f"{OPTIONS}.tmp"):  # the second as earlier versions called it
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".keep").touch()
    train(tiny(total_kimg=0.08), tmp_path, resume=True)
    assert [path.name for path in tmp_path.glob(".*") if path.name != FINISHED] == [".keep"]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("snap", [1, 1000])
def test_a_last_snapshot_that_was_deleted_is_written_again_with_a_word(snap: int, tiny, tmp_path) -> None:
    """Whether it is that of a tick or only that of the end."""
    cfg = tiny(total_kimg=0.08, snap=snap)
    train(cfg, tmp_path)
    path = tmp_path / "network-snapshot-000000.safetensors"
    fingerprint = load_snapshot(path).fingerprint
    for resumptions in (1, 2):
        if resumptions == 1:
            path.unlink()
        train(cfg, tmp_path, resume=True)
        assert (tmp_path / LOG).read_text().count(f"{path.name} was missing or damaged: written again") == 1
    assert load_snapshot(path).fingerprint == fingerprint


def test_a_run_says_where_its_weights_are_from(tiny, tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = train(tiny(total_kimg=0.08), tmp_path / "one")
    two = train(tiny(total_kimg=0.008, growth__lr=tiny().growth.lr.parse("0", float)), tmp_path / "two",
                init_from=str(tmp_path / "one"))  # fmt: skip
    assert torch.equal(two.G.mapping.layers[0].weight, one.G_ema.mapping.layers[0].weight)
    assert f"Weights from {tmp_path / 'one'}:" in (tmp_path / "two" / LOG).read_text()


@pytest.mark.parametrize("precision, expected", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_number_format_is_the_one_asked_for(tiny, precision: str, expected: torch.dtype) -> None:
    assert pick_dtype(tiny(precision=precision), torch.device("cpu")) == expected


def test_the_number_format_follows_the_hardware(tiny, monkeypatch) -> None:
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("training.loop.fast_bf16", lambda device, fast=fast: fast)
        assert pick_dtype(tiny(precision="auto"), torch.device("cpu")) == expected
