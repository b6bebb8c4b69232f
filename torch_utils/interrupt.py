"""Ctrl-C and SIGTERM as a wish that the loop grants when its step is done, or at once where nothing can be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Calling it tells whether the user wants to stop.

    signum: of the signal that said so first, 0 while there was none
    """

    def __init__(self) -> None:
        self._wished, self._at_once = threading.Event(), False
        self.signum = 0

    def __call__(self) -> bool:
        return self._wished.is_set()

    def unless_wanted(self, work: Callable[[], object]) -> bool:
        """Do `work`, and give it up as soon as the user wants to stop. Was it done?"""
        if self():
            return False
        self._at_once = True
        try:
            work()
        except KeyboardInterrupt:
            self.signum = self.signum or signal.SIGINT
            self._wished.set()
            return False
        finally:
            self._at_once = False
        return True

    def handle(self, signum: int, frame: FrameType | None) -> None:
        stop, self._at_once = self() or self._at_once, False
        self.signum = self.signum or signum
        self._wished.set()
        if stop:
            raise KeyboardInterrupt


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """In here SIGTERM raises SystemExit(143), so that what is half done is cleared away, as it is after Ctrl-C."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Gives an `Interrupts`. A second Ctrl-C stops at once."""
    found = Interrupts()
    # Only the main thread may set handlers; elsewhere (in a notebook's worker, say) interrupts keep their meaning.
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.signal(number, found.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
