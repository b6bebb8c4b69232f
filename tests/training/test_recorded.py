"""A recorded step, repeated, is the step: shown by a recording of operations that can do no more than a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.stylegan2 import StyleGAN2Config
from torch_utils.images import to_float
from training.config import AUGMENTATIONS, RunConfig
from training.data.archive import Archive
from training.data.dataset import Dataset, fade
from training.loop import labels_on
from training.recorded import WARM_UP, Recorder
from training.schedule import PerResolution
from training.state import TrainState, fresh_state
from training.step import Steps, train_step

CPU = torch.device("cpu")


class Operations(TorchDispatchMode):
    """Keeps all operations with the very tensors that they read and write, as a CUDA graph keeps launches.

    Nothing else is kept: whatever the host computes, decides or reads while it records stays as it was then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        result = func(*args, **(kwargs or {}))
        self.all.append((func, *tree_map(_plain, (args, kwargs or {}, result))))
        return result

    def repeat(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, results in self.all:
                again = func(*args, **kwargs)
                for kept, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(kept, Tensor) and kept.numel() and kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def emulated(state: TrainState) -> Callable[[Callable[[], Steps]], tuple[Steps, Callable[[], None]]]:
    """Records as a GPU does, which computes nothing meanwhile."""

    def record(function: Callable[[], Steps]) -> tuple[Steps, Callable[[], None]]:
        changing = state.changing()
        before = [tensor.clone() for tensor in changing]
        with Operations() as operations:
            reported = function()
        torch._foreach_copy_(changing, before)
        for checks in reported:
            checks.values.fill_(torch.nan)
        return reported, operations.repeat

    return record


def run(
    cfg: RunConfig, steps: int, nimg: int, recorder_of: Callable[[TrainState], Recorder[Steps] | None]
) -> tuple[TrainState, list[dict[str, float]]]:
    data = Dataset(Archive.open(cfg.data.path), cfg.data.mirror, seed=cfg.seed)
    labels, state = labels_on(data, cfg, CPU), fresh_state(cfg, CPU)
    state.nimg = nimg
    dtype = torch.bfloat16 if cfg.precision == "bf16" else torch.float32
    recorder, told = recorder_of(state), []
    for _ in range(steps):
        stage = cfg.growth.at(state.nimg)
        images, c = data.batch(state.nimg, stage.batch, *cfg.model.size(stage.resolution))
        reals = fade(to_float(images), stage.alpha), c if cfg.data.cond else None
        stats = train_step(state, reals, stage, cfg, labels, dtype, recorder=recorder)
        told.append({name: float(value) for name, value in stats.items()})
        state.nimg += stage.batch
    return state, told


CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "lazy penalties in rounds, ramp": {
        "loss__r1_interval": 2, "loss__r2_gamma": PerResolution(0.5), "batch_gpu": 4, "ema_ramp": 0.05,
    },
    "augmented, relativistic, classes": {
        "loss__diffaugment": AUGMENTATIONS, "loss__name": "relativistic", "data__cond": True,
    },
    "bf16, shared": {"precision": "bf16", "loss__share_fakes": True},
    "progan": {"model": ProGANConfig(resolution=16, z_dim=16, fmap_max=16), "loss__name": "wgan-gp",
               "loss__r1_gamma": PerResolution(0.0)},
    "stylegan2": {
        "model": StyleGAN2Config(
            resolution=16, z_dim=8, w_dim=8, mapping_dim=8, mapping_layers=2, fmap_base=64, fmap_max=8
        ),
        "growth__initial": 16,
    },
    "dcgan": {"model": DCGANConfig(resolution=16, z_dim=8, fmap_base=64, fmap_max=8), "growth__initial": 16,
              "loss__r1_gamma": PerResolution(0.0)},
}  # fmt: skip


class Ordinary(Recorder[Steps]):
    """Takes every step as it is, fed as a recording is."""

    def take(self, stage: Any, kind: Any, fed: Any, step: Any, changed: Any) -> Steps:
        found: Steps = step(fed)
        return found


START = {False: 0, True: 408}  # with the phases below, the middle of the first, and of the first fade
LONG = {"growth__stable_kimg": PerResolution(0.4), "growth__fade_kimg": PerResolution(0.4)}


def recorded_run(cfg: RunConfig, steps: int, start: int, said: list[str]) -> tuple[Any, Recorder[Steps]]:
    made: list[Recorder[Steps]] = []

    def recorder(state: TrainState) -> Recorder[Steps]:
        made.append(Recorder(said.append, emulated(state)))
        return made[0]

    return run(cfg, steps, start, recorder), made[0]


def assert_same(one: tuple[TrainState, Any], other: tuple[TrainState, Any]) -> None:
    assert one[1] == other[1]
    for ours, theirs in zip(one[0].changing(), other[0].changing(), strict=True):
        assert torch.equal(ours, theirs)
    assert one[0].read() == other[0].read()


@pytest.mark.parametrize("fading", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_recorded_steps_are_the_steps(tiny, name, fading) -> None:
    cfg = tiny(**LONG | CASES[name])
    if fading and cfg.growth.at(START[True]).alpha == 1:
        pytest.skip("such networks do not grow")
    said: list[str] = []
    steps = 2 * WARM_UP + 6
    ours, recorder = recorded_run(cfg, steps, START[fading], said)
    assert_same(ours, run(cfg, steps, START[fading], lambda state: Ordinary(said.append)))
    assert not said and len(recorder._recordings) == (2 if cfg.loss.r1_interval == 2 else 1)
    stage = cfg.growth.at(START[fading]), cfg.growth.at(ours[0].nimg - 8)
    assert stage[0].phase == stage[1].phase and (stage[1].alpha < 1) == fading


def test_a_new_phase_begins_with_new_recordings(tiny) -> None:
    """And a run through several of them, with annealing at its end, is the run without recordings."""
    cfg = tiny(growth__stable_kimg=PerResolution(0.06), growth__anneal_from=0.3, growth__anneal_kimg=0.1)
    said: list[str] = []
    ours, recorder = recorded_run(cfg, 50, 0, said)
    assert_same(ours, run(cfg, 50, 0, lambda state: Ordinary(said.append)))
    assert not said and len(recorder._recordings) < 2


class BreaksOff(TorchDispatchMode):
    """Raises after so many operations, as a GPU does that may not do one of them while it records."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("after", [10, 300, 550, 900, 10**9])
def test_what_cannot_be_recorded_is_taken_in_the_ordinary_way_and_said_once(tiny, after: int) -> None:
    """Wherever the recording stops, also halfway through gradients, and after it has changed everything."""

    def broken(function: Callable[[], Steps]) -> Any:
        with BreaksOff(after):
            function()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    said: list[str] = []
    ours = run(tiny(), 9, 1000, lambda state: Recorder(said.append, broken))
    assert_same(ours, run(tiny(), 9, 1000, lambda state: Ordinary(said.append)))
    assert len(said) == 1 and said[0].endswith("operation not permitted when stream is capturing")


def test_recordings_make_room_where_little_is_left_and_are_made_again(tiny) -> None:
    said: list[str] = []
    made: list[Recorder[Steps]] = []
    kept: list[int] = []

    class Watched(Recorder[Steps]):
        def take(self, *arguments: Any) -> Steps:
            self.make_room(0.1 if len(kept) % 3 == 0 else 0.5)
            kept.append(len(self._recordings))
            found: Steps = super().take(*arguments)
            return found

    def recorder(state: TrainState) -> Recorder[Steps]:
        made.append(Watched(said.append, emulated(state)))
        return made[0]

    assert_same(run(tiny(), 10, 1000, recorder), run(tiny(), 10, 1000, lambda state: Ordinary(said.append)))
    assert not said and kept == [0, 0, 0, 0, 1, 1, 0, 1, 1, 0]


def test_a_recording_that_gives_something_else_is_not_used(tiny) -> None:
    def forgetful(state: TrainState) -> Any:
        record = emulated(state)

        def wrong(function: Callable[[], Steps]) -> Any:
            reported, repeat = record(function)

            def less() -> None:
                repeat()
                reported[1].values[-1] *= 1.1

            return reported, less

        return wrong

    said: list[str] = []
    ours = run(tiny(), 9, 1000, lambda state: Recorder(said.append, forgetful(state)))
    assert_same(ours, run(tiny(), 9, 1000, lambda state: Ordinary(said.append)))
    assert len(said) == 1 and "a recorded step reports" in said[0]
