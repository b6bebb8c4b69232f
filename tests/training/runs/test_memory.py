"""Finding out how many images fit: the choice is right, and the rehearsal leaves no trace."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch

import training.runs.memory
from torch_utils.distributed import SINGLE_PROCESS, DistContext
from torch_utils.errors import UserError
from torch_utils.images import to_float
from training.config import AUGMENTATIONS, RunConfig
from training.data.archive import Archive
from training.data.dataset import Dataset
from training.loop import labels_on
from training.runs.memory import fit, rehearsed
from training.schedule import PerResolution
from training.state import TrainState, fresh_state
from training.step import train_step

CPU = torch.device("cpu")
GROUPS = {"growth__batch": PerResolution(16), "model__mbstd_group": 2}


def step(state: TrainState, cfg: RunConfig) -> None:
    stage = cfg.growth.at(state.nimg)
    data = Dataset(Archive.open(cfg.data.path), seed=cfg.seed)
    images, c = data.batch(state.nimg, stage.batch, *cfg.model.size(stage.resolution))
    labels = labels_on(data, cfg, CPU)
    reals = to_float(images), c if cfg.data.cond else None
    train_step(state, reals, stage, cfg, labels, torch.float32)
    assert (reading := state.read()) and not reading.culprits
    state.nimg += stage.batch


def everything(state: TrainState) -> dict[str, Any]:
    return {name: copy.deepcopy(part.state_dict()) for name, part in state.parts.items()}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("changes", [{
    "data__cond": True, "loss__name": "relativistic", "loss__diffaugment": AUGMENTATIONS}, {
    "loss__name": "wgan-gp", "loss__r1_gamma": PerResolution(0.0)}])  # fmt: skip
def test_a_rehearsal_changes_no_bit_of_what_follows(changes: dict[str, Any], tiny) -> None:
    cfg = tiny(**changes)
    state, other = fresh_state(cfg, CPU), fresh_state(cfg, CPU)
    for it in (state, other):
        it.nimg = 200
        step(it, cfg)
    before, random = everything(state), torch.get_rng_state()
    assert rehearsed(state, cfg.growth.at(state.nimg), cfg, torch.float32, 1, 4)
    assert_equal(everything(state), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for net in (state.G, state.D) for p in net.parameters())
    step(state, cfg)
    step(other, cfg)
    assert_equal(everything(state), everything(other))


@pytest.mark.parametrize("limit, micro_batch", [(16, 16), (15, 8), (5, 4), (2, 2)])
def test_as_many_as_fit_and_it_is_said_once(limit: int, micro_batch: int, memory_for, tiny) -> None:
    cfg = tiny(**GROUPS)
    state, said = fresh_state(cfg, CPU), []
    memory_for(state.D, limit)
    stage = cfg.growth.at(200)
    for _ in range(2):
        fit(
            state,
            stage,
            cfg,
            torch.float32,
            SINGLE_PROCESS,
            said.append,
            partial(rehearsed, state, stage, cfg, torch.float32, 1),
        )
    assert state.micro_batch == {16: micro_batch}
    (line,) = said
    assert line.startswith(f"at 16: {micro_batch} of 16 images")


def test_too_little_for_the_smallest_part_is_an_error_with_a_cure(tiny) -> None:
    cfg = tiny(**GROUPS)
    with pytest.raises(UserError, match="2 images of 16x16 .*--fmap-max"):
        fit(
            fresh_state(cfg, CPU),
            cfg.growth.at(200),
            cfg,
            torch.float32,
            SINGLE_PROCESS,
            print,
            lambda micro_batch: False,
        )


def test_processes_agree_on_what_fits_the_smallest(tiny, monkeypatch) -> None:
    """The other process has room for 2."""
    cfg = tiny(**GROUPS, gpus=2)
    state = fresh_state(cfg, CPU)
    monkeypatch.setattr(training.runs.memory, "all_reduce_max", lambda dist, name, number: max(number, -2))
    fit(state, cfg.growth.at(200), cfg, torch.float32, DistContext(0, 2), print, lambda micro_batch: micro_batch <= 4)
    assert state.micro_batch == {16: 2}


def test_on_a_cpu_or_when_asked_nothing_is_tried(tiny) -> None:
    for asked, micro_batch in ((None, 16), (4, 4), (64, 16)):
        cfg = tiny(**GROUPS, batch_gpu=asked)
        state = fresh_state(cfg, CPU)
        fit(state, cfg.growth.at(200), cfg, torch.float32, SINGLE_PROCESS, pytest.fail)
        assert state.micro_batch == {16: micro_batch}
