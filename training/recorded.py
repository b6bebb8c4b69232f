"""Steps that a GPU repeats by itself: what a step launches is recorded once, and later steps are one launch.

A step is some thousand kernels. Giving them out one by one takes a processor longer than a fast GPU needs for small
images. A CUDA graph holds them all; what differs between steps has to lie in tensors, which are filled before each
repetition. So a recording belongs to what does not differ: the stage, the images per round, the penalties that are due.

Nobody has to trust it: a recorded step must report what the ordinary one reports from the same state. Where it does
not, or where recording fails, the run goes on with ordinary steps and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

WARM_UP = 3  # ordinary steps of each kind before: libraries choose their methods, and Adam gets its moments
ENOUGH = 0.25  # of a GPU's memory, for images that are drawn and measured between steps
TOLERANCE = 0.02  # relative, of what a recorded step reports: on GPUs some sums depend on the order of threads

Fed = Mapping[str, Tensor]
"""By name, the tensors in which steps of a kind differ."""


class Reported(Protocol):
    """What a step has to report about one of its parts."""

    @property
    def values(self) -> Tensor: ...


R = TypeVar("R", bound=Iterable[Reported])
Repeat = Callable[[], object]
Record = Callable[[Callable[[], R]], tuple[R, Repeat]]
"""Calls a function without computing anything. Returns its result, and what computes it again."""


@dataclass(frozen=True)
class Recording(Generic[R]):
    """fed: its own tensors, to be filled   reported: filled by `repeat`"""

    fed: Fed
    reported: R
    repeat: Repeat


def record_on_cuda(function: Callable[[], R]) -> tuple[R, Repeat]:
    """See `Record`. Other threads may go on with what they do, such as fetching images."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        reported = function()
    return reported, graph.replay


class Recorder(Generic[R]):
    """Takes steps, from recordings where there are any.

    say: how the user gets to know that there are none   record: how the device does it
    """

    def __init__(self, say: Callable[[str], object], record: Record[R] = record_on_cuda):
        self._say, self._record = say, record
        self._stage: Hashable = None
        self._seen: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, Recording[R]] = {}
        self.given_up = False

    def take(
        self, stage: Hashable, kind: Hashable, fed: Fed, step: Callable[[Fed], R], changed: Callable[[], list[Tensor]]
    ) -> R:
        """Take a step, and return what it reports, in tensors that the next one may fill again.

        stage, kind: of steps that differ in nothing but what they are fed with. Recordings of another stage, and their
        memory, are given back   changed: all tensors that a step changes
        """
        if stage != self._stage:
            self._seen.clear()
            self._recordings.clear()
            self._stage = stage
        if recording := self._recordings.get(kind):
            for name, value in fed.items():
                recording.fed[name].copy_(value, non_blocking=True)
            recording.repeat()
            return recording.reported
        self._seen[kind] += 1
        if self.given_up or self._seen[kind] <= WARM_UP:
            return step(fed)
        return self._first(kind, fed, step, changed())

    def make_room(self, free: float) -> None:
        """Forget all recordings, which hold the memory of whole steps, if little is left for what comes between steps.

        free: share of the device's memory. The next step of each kind is recorded again.
        """
        if free < ENOUGH:
            self._recordings.clear()

    def _first(self, kind: Hashable, fed: Fed, step: Callable[[Fed], R], changed: list[Tensor]) -> R:
        """Take a step in the ordinary way, then again from a recording, and keep that if both are the same."""
        before = _aside(changed)
        ordinary = step(fed)
        after = _aside(changed)
        own = {name: value.clone() for name, value in fed.items()}
        _put_back(changed, before)
        try:
            reported, repeat = self._record(lambda: step(own))
            repeat()
            wrong = _difference(reported, ordinary)
        except RuntimeError as error:
            wrong = str(error).partition("\n")[0][:200]
        if not wrong:
            self._recordings[kind] = Recording(own, reported, repeat)
            return reported
        _put_back(changed, after)
        self.given_up = True
        self._recordings.clear()
        self._say(f"Steps are not recorded but taken one by one, which is slower and gives the same: {wrong}")
        return ordinary


def _aside(tensors: list[Tensor]) -> list[Tensor]:
    """Copies in the memory of the machine: that of a GPU may be full of as many images as fit."""
    return [tensor.to("cpu", copy=True) for tensor in tensors]


def _put_back(tensors: list[Tensor], copies: list[Tensor]) -> None:
    for tensor, copied in zip(tensors, copies, strict=True):
        tensor.copy_(copied)


def _difference(ours: Iterable[Reported], theirs: Iterable[Reported]) -> str:
    """How far what one step reports is from what another does; "" if it is near enough. Reads from the device."""
    found, wanted = (torch.cat([part.values.flatten() for part in parts]).double() for parts in (ours, theirs))
    far = ~torch.isclose(found, wanted, rtol=TOLERANCE, atol=1e-6, equal_nan=True)
    if not far.any():
        return ""
    return f"a recorded step reports {float(found[far][0]):.6g} where it should be {float(wanted[far][0]):.6g}"
