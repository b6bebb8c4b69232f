"""Batches that were gathered ahead are those that would have been gathered at their step, and cost nothing if they are
not needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch

from torch_utils.distributed import DistContext
from torch_utils.errors import UserError
from training.data import ahead
from training.data.ahead import Ahead, Images
from training.data.archive import Archive
from training.data.dataset import Dataset
from training.loop import images_at, next_reals, position_after, shown
from training.schedule import PerResolution

CPU = torch.device("cpu")
DEVICES = [CPU] + ([torch.device("cuda")] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("rank, processes", [(0, 1), (1, 2)])
def test_batches_are_those_of_their_positions(rank: int, processes: int, device: torch.device, tiny) -> None:
    """Through all sizes of images and of batches, after returns to earlier positions, and at the end of the run."""
    cfg = tiny(data__mirror=True, data__cond=True, growth__batch=PerResolution(8, {4: 16, 8: 12}))
    data, dist = Dataset(Archive.open(cfg.data.path), mirror=True), DistContext(rank, processes)
    gathered: list[int] = []

    def gather(position: int) -> Images:
        gathered.append(position)
        return images_at(data, cfg, dist, position)

    positions = [0]
    while (following := position_after(cfg, positions[-1])) is not None:
        positions.append(following)
    sizes = {cfg.growth.at(nimg).resolution for nimg in positions}
    assert sizes == {4, 8, 16} and positions[-1] + 8 >= 240
    taken = [*positions[:6], *positions[3:9], *positions[:2], *positions[2:]]
    with Ahead(gather, partial(position_after, cfg), device) as reals:
        for nimg in taken:
            stage = cfg.growth.at(nimg)
            images, c = shown(reals.take(nimg), stage)
            expected, classes = next_reals(data, nimg, stage, cfg, device, dist)
            assert torch.equal(images, expected) and c is not None and torch.equal(c, classes)
    assert set(gathered) == set(positions) and len(gathered) <= len(taken) + 2 * ahead.STEPS_AHEAD


@contextmanager
def counted(broken: tuple[int, ...] = (), held: threading.Semaphore | None = None) -> Iterator[tuple[Ahead, list[int]]]:
    """Batches of one number, which is the position; what has been gathered. Some cannot be; each waits for `held`."""
    gathered: list[int] = []

    def gather(position: int) -> Images:
        gathered.append(position)
        if held:
            held.acquire(timeout=60)
        if position in broken:
            raise UserError(f"the images at {position} are damaged")
        return torch.tensor([position]), None

    with Ahead(gather, lambda position: position + 1, CPU) as reals:
        yield reals, gathered


def soon(gathered: list[int], wanted: list[int]) -> bool:
    """Whether the thread comes that far, and no farther."""
    deadline = time.monotonic() + 60
    while gathered != wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    return gathered == wanted


def test_two_steps_are_gathered_ahead_and_no_more() -> None:
    with counted() as (reals, gathered):
        for position in range(3):
            assert reals.take(position)[0].item() == position
            assert soon(gathered, [*range(position + 3)])
        assert reals.take(10)[0].item() == 10
        assert soon(gathered, [*range(5), 10, 11, 12])


def test_an_error_is_raised_at_the_step_that_needs_the_images_and_not_otherwise() -> None:
    with counted(broken=(2, 4)) as (reals, gathered):
        assert [reals.take(position)[0].item() for position in (0, 1)] == [0, 1]
        with pytest.raises(UserError, match="the images at 2 are damaged"):
            reals.take(2)
        assert reals.take(3)[0].item() == 3 and soon(gathered, [*range(6)])
        assert reals.take(8)[0].item() == 8, "those at 4 were not needed"


def test_the_end_waits_for_nothing_that_nobody_needs() -> None:
    held = threading.Semaphore(1)
    with counted(held=held) as (reals, gathered):
        reals.take(0)
        assert soon(gathered, [0, 1])
        threading.Timer(0.05, held.release).start()
    assert gathered == [0, 1] and not reals._thread.is_alive()


def test_the_end_comes_though_the_thread_is_stuck(monkeypatch) -> None:
    monkeypatch.setattr(ahead, "END_S", 0.05)
    held = threading.Semaphore(1)
    with pytest.raises(KeyboardInterrupt), counted(held=held) as (reals, gathered):
        reals.take(0)
        assert soon(gathered, [0, 1])
        raise KeyboardInterrupt
    assert reals._thread.is_alive() and reals._thread.daemon
    held.release()
    reals._thread.join(60)


# What a GPU is asked to do, and in which order


class Gpu:
    """Stands for a GPU, and for tensors: notes what is asked of them, and by which thread."""

    type = "cuda"

    def __init__(self) -> None:
        self.said: dict[str, list[str]] = {"main": [], "thread": []}

    def say(self, text: str) -> None:
        self.said["thread" if threading.current_thread().name == "reals" else "main"].append(text)

    def stream(self, name: str) -> Any:
        gpu = self

        class Stream:
            def record_event(self) -> Any:
                gpu.say(f"{name} records")
                return type("Event", (), {"synchronize": lambda self: gpu.say(f"wait for {name}")})()

            def wait_event(self, event: Any) -> None:
                gpu.say(f"{name} waits")

            def __enter__(self) -> None:
                gpu.say(f"on {name}")

            def __exit__(self, *error: object) -> None:
                gpu.say(f"off {name}")

        return Stream()

    def tensor(self, name: str) -> Any:
        gpu = self

        class Noted:
            device = gpu

            def pin_memory(self) -> Any:
                gpu.say(f"pin {name}")
                return self

            def to(self, device: Any, non_blocking: bool) -> Any:
                gpu.say(f"copy {name}" if device is gpu and non_blocking else f"wait for copying {name}")
                return self

            def record_stream(self, stream: Any) -> None:
                gpu.say(f"keep {name}")

        return Noted()


def test_a_gpu_fetches_images_by_itself_on_another_stream(monkeypatch) -> None:
    gpu = Gpu()
    compute, copies = gpu.stream("compute"), gpu.stream("copies")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copies)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: gpu.say("its own GPU"))

    def gather(position: int) -> Any:
        gpu.say(f"gather {position}")
        return gpu.tensor(f"images {position}"), gpu.tensor(f"c {position}")

    with Ahead(gather, lambda position: position + 1 if position < 3 else None, gpu) as reals:  # type: ignore[arg-type]
        for position in range(2):
            reals.take(position)
    received = [[f"keep images {n}", f"keep c {n}"] for n in range(2)]
    assert gpu.said["main"] == [
        text for keep in received for text in ["compute records", "compute waits", *keep]
    ]  # fmt: skip
    begun, *rest = gpu.said["thread"]
    assert begun == "its own GPU" and rest[:9] == [
        "gather 0", "wait for compute", "on copies", "pin images 0", "copy images 0", "pin c 0", "copy c 0",
        "copies records", "off copies",
    ]  # fmt: skip
    assert "wait for copying" not in str(rest)
