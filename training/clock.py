"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from training.config import RunConfig
from training.cost import TYPICAL, Machine
from training.state import TrainState


class Clock:
    """Where the time goes since the last tick, and since the last save; and all of it, whatever it goes into.

    machine: whose time it is, by which the time that is left is reckoned
    images: worked through in that time; not what the run got on by, of which a resumed one did a part before
    """

    def __init__(self, machine: Machine = TYPICAL) -> None:
        self.machine = machine
        self.saved = self.lapped = time.perf_counter()
        self.restart()

    def restart(self) -> None:
        self.images, self.data_seconds, self.began = 0, 0.0, time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def lap(self) -> float:
        """Seconds since it was last asked, saving and measuring included."""
        before, self.lapped = self.lapped, time.perf_counter()
        return self.lapped - before

    def late(self, state: TrainState, cfg: RunConfig) -> bool:
        """Is the time up that --hours gave the run?"""
        spent = state.seconds + time.perf_counter() - self.lapped
        return cfg.time_limit is not None and spent > cfg.time_limit

    @contextmanager
    def data(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.data_seconds += time.perf_counter() - begin
