"""No step waits for its device: the process gives out work, steps ahead of it, and reads at ticks what has come of it.

The steps are taken on tensors without contents. There nothing can be read, and what goes from one device to another is
seen, as it would be on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.progan import ProGANConfig
from torch_utils.device import without_contents
from torch_utils.distributed import DistContext
from torch_utils.distributed.gradients import GradientSums
from training.config import AUGMENTATIONS, RunConfig
from training.data.dataset import fade
from training.loop import train
from training.runs.memory import META
from training.schedule import PerResolution
from training.state import Tally, TrainState, fresh_state
from training.step import train_step

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.equal,
         aten.repeat_interleave, aten._unique2}  # fmt: skip
MAKERS = {torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor}


class Waits(TorchDispatchMode):
    """Notes what makes the host wait: a number that is read, and what is copied to the device or from it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        op = func.overloadpacket
        if op in READS:
            self.found.append(str(op))
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves([args, kwargs, result]) if isinstance(leaf, Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.found.append(str(op))
        return result


class Made(TorchFunctionMode):
    """Notes which tensors are made from numbers of the host."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MAKERS:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def watched() -> Iterator[list[str]]:
    with Waits() as waits, Made(waits.found):
        yield waits.found


CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "lazy penalties, in rounds": {"loss__r1_interval": 3, "loss__r2_gamma": PerResolution(0.5), "batch_gpu": 4},
    "classes": {"data__cond": True},
    "relativistic, augmented, images shared": {
        "loss__name": "relativistic", "loss__diffaugment": AUGMENTATIONS, "loss__share_fakes": True,
        "data__cond": True, "model__mbstd_group": 2, "ema_ramp": 0.05,
    },
    "vision aid": {
        "loss__vision_aid": "vgg16", "model__resolution": 32, "growth__initial": 32, "growth__final": 32,
        "precision": "bf16", "loss__aid_zoom": 2,
    },
    "progan with classes": {
        "model": ProGANConfig(resolution=16, z_dim=16, fmap_max=16, num_classes=3), "loss__name": "wgan-gp",
        "loss__r1_gamma": PerResolution(0.0), "data__cond": True,
    },
    "batch norm": {
        "model": DCGANConfig(resolution=16, z_dim=8, fmap_base=64, fmap_max=8), "growth__initial": 16,
        "loss__name": "hinge",
    },
}  # fmt: skip


def take(steps: int, state: TrainState, cfg: RunConfig, dist: DistContext) -> None:
    labels = torch.empty(40, dtype=torch.long, device=META) if cfg.data.cond else None
    for _ in range(steps):
        stage = cfg.growth.at(state.nimg)
        share = stage.batch // dist.world_size
        images = torch.empty(share, cfg.model.channels, *cfg.model.size(stage.resolution), device=META)
        c = torch.empty(share, dtype=torch.long, device=META) if cfg.data.cond else None
        dtype = torch.bfloat16 if cfg.precision == "bf16" else torch.float32
        train_step(state, (fade(images, stage.alpha), c), stage, cfg, labels, dtype, dist)
        state.nimg += stage.batch


@pytest.fixture
def without_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from other processes is there, without contents."""
    gone = SimpleNamespace(wait=lambda: None)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda numbers, async_op=False: gone if async_op else None)


@pytest.mark.parametrize("case, steps, processes", [
    ("as published", 20, 1), *((case, 4, 1 + number % 2) for number, case in enumerate(CASES)),
])  # fmt: skip
def test_steps_wait_for_nothing(case: str, steps: int, processes: int, tiny, without_others) -> None:
    cfg, dist = tiny(**CASES[case]), DistContext(processes - 1, processes)
    with without_contents():
        state = fresh_state(cfg, META)
    state.nimg = 8 * 20
    take(1, state, cfg, dist)  # constants come to the device once
    with watched() as waits:
        take(steps, state, cfg, dist)
    assert waits == []
    with pytest.raises(RuntimeError, match="meta"):
        state.read()


@pytest.mark.parametrize("case", CASES)
def test_the_last_backward_pass_sends_all_gradients_and_most_before_its_end(
    case: str, tiny, without_others, monkeypatch
) -> None:
    """Each of them once, whatever the losses and the networks are."""
    sent: dict[str, tuple[int, int, int]] = {}
    arrived, finish = GradientSums._arrived, GradientSums.finish

    def watched(self: GradientSums, param: Tensor) -> None:
        early = sum(map(len, self._sums))
        arrived(self, param)
        if not self._coming:
            reached = [p for bucket in self._buckets for p in bucket]
            assert len(set(reached)) == len(reached) and all(p.grad is not None for p in reached)
            sent[self._name] = early, sum(map(len, self._sums)), sum(p.numel() for p in reached)

    def all_there(self: GradientSums) -> None:
        learning = {p for p in self._params if p.grad is not None}
        assert learning == {p for bucket in self._buckets for p in bucket}
        finish(self)
        assert sum(map(len, self._sums)) == sent[self._name][-1]

    monkeypatch.setattr(GradientSums, "_arrived", watched)
    monkeypatch.setattr(GradientSums, "finish", all_there)
    monkeypatch.setattr("torch_utils.distributed.gradients.BUCKET_NUMBERS", 100)
    cfg, dist = tiny(**CASES[case]), DistContext(1, 2)
    with without_contents():
        state = fresh_state(cfg, META)
    for phase in ("D", "G"):
        order = state.backward_order(phase)
        assert len(order) == len(set(order)) and set(order) == set(state.learner(phase)[1].params)
    state.nimg = 8 * 20
    take(2, state, cfg, dist)
    assert sent.keys() == {"gradients of D", "gradients of G"}
    for early, by_the_end, reached in sent.values():
        assert by_the_end == reached and early >= 0.5 * reached


def test_what_waits_is_seen() -> None:
    x = torch.empty(3, device=META)
    with watched() as waits:
        torch.where(x > 0, x, 0.5).masked_fill(x > 0, 0).lerp(x, 0.3).add_(2)
        assert waits == []
        torch.tensor([1.0, 2.0], device=META)
        x.copy_(torch.empty(3).to(META))
        for read in (lambda: bool(x.sum() > 0), x.sum().item, x.tolist, x.cpu):
            with pytest.raises((RuntimeError, NotImplementedError)):
                read()
    assert waits == ["tensor", "aten._to_copy", *["aten._local_scalar_dense"] * 2]


def test_a_run_reads_once_per_tick(tiny, tmp_path, monkeypatch) -> None:
    readings: list[bool] = []
    read: Callable[[Tally], Any] = Tally.read

    def counted(self: Tally) -> Any:
        reading = read(self)
        readings.append(reading is not None)
        return reading

    monkeypatch.setattr(Tally, "read", counted)
    state = train(tiny(), tmp_path)
    assert state.tick == sum(readings) == 3
