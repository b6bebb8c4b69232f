"""However a batch is split among processes and rounds, it is the same batch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import training.runs.processes
from stylegan.networks.stylegan1 import StyleGAN1Discriminator
from torch_utils.distributed import SINGLE_PROCESS, DistContext, from_environment, gradients, process_group
from torch_utils.distributed.gradients import GradientSums
from torch_utils.settings import replaced
from training.config import RunConfig
from training.data.archive import Archive
from training.data.dataset import Dataset
from training.loop import next_reals
from training.runs.processes import train_in_processes
from training.schedule import PerResolution
from training.state import TrainState, fresh_state
from training.step import train_step

CPU = torch.device("cpu")

# Of 16 images in groups of 4; Adam's eps of 1 makes a step proportional to the gradient.
COMMON = {"growth__batch": PerResolution(16), "model__mbstd_group": 4, "optim__eps": 1.0}
Prepare = Callable[[TrainState], None]
SPLITS: list[dict[str, Any]] = [
    {}, {"loss.name": "relativistic"}, {"batch_gpu": 4}, {"loss.name": "wgan-gp", "loss.r1_gamma": PerResolution(0.0)},
    {"loss.r1_interval": 2, "loss.share_fakes": True},
]  # fmt: skip


def limit_memory(D: StyleGAN1Discriminator, images: int) -> None:
    def before(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if len(arguments[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory")

    D.from_rgb["16"].register_forward_pre_hook(before)


def fail_late(state: TrainState, phase: str) -> None:
    """Memory runs out once, when the last backward pass of a phase has nearly reached the other end."""
    param, last = (state.D.from_rgb["16"].weight, 2) if phase == "D" else (state.G.mapping.layers[0].weight, 1)
    calls = itertools.count(1)

    def hook(grad: Tensor) -> None:
        if next(calls) == last:
            raise torch.OutOfMemoryError("CUDA out of memory")

    param.register_hook(hook)


def started(cfg: RunConfig) -> TrainState:
    """A state that no norm makes much of rounding in: fresh networks have a constant of ones."""
    state = fresh_state(cfg, CPU)
    with torch.no_grad():
        for p in state.G.parameters():
            p.add_(0.3 * torch.randn_like(p))
        state.G_ema.load_state_dict(state.G.state_dict())
    return state


def steps(cfg: RunConfig, dist: DistContext, count: int = 3, prepare: Prepare = lambda state: None) -> dict[str, Any]:
    """Networks and losses after some steps at 16x16, and how many images are worked on at once in the end."""
    data = Dataset(Archive.open(cfg.data.path), seed=cfg.seed)
    state = started(cfg)
    state.nimg = 200
    prepare(state)
    stats = []
    for _ in range(count):
        stage = cfg.growth.at(state.nimg)
        reals = next_reals(data, state.nimg, stage, cfg, CPU, dist)
        found = train_step(state, reals, stage, cfg, None, torch.float32, dist)
        stats.append({name: float(value) for name, value in found.items()})
        state.nimg += stage.batch
    assert (reading := state.read()) and not reading.culprits
    return {
        "stats": stats,
        "micro_batch": state.micro_batch,
        **{name: getattr(state, name).state_dict() for name in ("G", "D", "G_ema")},
    }


def split_process(
    cfg: RunConfig, run_dir: Path, resume: bool, init_from: str | None, notes: Path, launcher: Connection
) -> int:
    dist = from_environment(os.environ)
    assert dist
    torch.set_num_threads(1)
    gradients.BUCKET_NUMBERS = 1000  # several buckets for such small networks
    with process_group(dist, CPU, 60) as dist:
        found = [steps(replaced(cfg, split), dist) for split in SPLITS]
        # The second process has no memory for the 8 images of its share: it halves them while the first one waits.
        scarce = steps(cfg, dist, prepare=lambda state: limit_memory(state.D, 4) if dist.rank else None)
        for phase in "DG":
            found.append(steps(cfg, dist, prepare=lambda state: fail_late(state, phase) if dist.rank else None))  # noqa: B023
        with patch.object(GradientSums, "last_backward", nullcontext):
            afterwards = [steps(replaced(cfg, split), dist) for split in SPLITS]
        torch.save([*found, scarce, afterwards], run_dir / f"{dist.rank}.pt")
    return 0


def assert_same_way(one: dict[str, Any], other: dict[str, Any], start: TrainState) -> None:
    """Two states have come from `start` to the same place, but for rounding: of the way and of where it has led."""
    for net in ("G", "D", "G_ema"):
        begun = getattr(start, net).state_dict()
        assert any((one[net][name] != begun[name]).any() for name in begun)
        for name, value in one[net].items():
            moved = (value - begun[name]).abs().max()
            assert ((value - other[net][name]).abs() <= 1e-3 * moved + 3e-7 * value.abs()).all(), (net, name)
    for a, b in zip(one["stats"], other["stats"], strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """To the last bit."""
    networks = all(torch.equal(one[net][k], other[net][k]) for net in ("G", "D", "G_ema") for k in one[net])
    return networks and one["stats"] == other["stats"]


def test_a_batch_is_the_same_batch_in_processes_and_in_rounds(tiny, tmp_path, monkeypatch) -> None:
    """16 at once, 8 in each of two processes (also in rounds of 4), and two rounds of 8 in one."""
    monkeypatch.setattr(training.runs.processes, "process", split_process)
    train_in_processes(tiny(**COMMON, gpus=2), tmp_path, False, None)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for split, during, after in zip(SPLITS, first, first.pop(), strict=False):
        assert same(during, after), f"{split}: sums begun during the backward pass are those begun after it"
    second.pop()
    for ours, theirs in zip(first[-3:], second[-3:], strict=True):
        assert (ours["micro_batch"], theirs["micro_batch"]) == ({16: 8}, {16: 4})
    for split, ours, theirs in zip([*SPLITS, {}, {}, {}], first, second, strict=True):
        cfg = replaced(tiny(**COMMON), split | {"batch_gpu": None})
        start, whole, rounds = (
            started(cfg),
            steps(cfg, SINGLE_PROCESS),
            steps(replace(cfg, batch_gpu=8), SINGLE_PROCESS),
        )
        assert same(ours, theirs)
        assert_same_way(whole, ours, start)
        assert_same_way(whole, rounds, start)


def test_the_share_of_a_process_is_of_every_so_many_th_image(tiny) -> None:
    cfg = tiny(data__mirror=True)
    data = Dataset(Archive.open(cfg.data.path), mirror=True)
    stage = cfg.growth.at(200)
    whole, _ = next_reals(data, 200, stage, cfg, CPU)
    shares = [next_reals(data, 200, stage, cfg, CPU, DistContext(rank, 4))[0] for rank in range(4)]
    assert torch.equal(torch.stack(shares, dim=1).flatten(0, 1), whole)
