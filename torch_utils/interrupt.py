"""Deferred Ctrl-C and SIGTERM: a loop finishes its current step before it stops.

Work that can be repeated is interrupted at once.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Records Ctrl-C and SIGTERM. Calling it tells whether the user wants to stop.

    signum: number of the first signal, 0 before any came
    """

    def __init__(self) -> None:
        self._requested, self._at_once = threading.Event(), False
        self.signum = 0

    def __call__(self) -> bool:
        return self._requested.is_set()

    def unless_requested(self, work: Callable[[], object]) -> bool:
        """Call `work`, but interrupt it as soon as the user wants to stop. Returns whether it was completed."""
        if self():
            return False
        self._at_once = True
        try:
            work()
        except KeyboardInterrupt:
            self.signum = self.signum or signal.SIGINT
            self._requested.set()
            return False
        finally:
            self._at_once = False
        return True

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Record a signal; raise KeyboardInterrupt if it is the second one, or within `unless_requested`."""
        stop, self._at_once = self() or self._at_once, False
        self.signum = self.signum or signum
        self._requested.set()
        if stop:
            raise KeyboardInterrupt


REPEATED_S = 3.0  # a terminal that closes sends several signals at once; a later one is from somebody who waits


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error came of a Ctrl-C: libraries that are interrupted while they write may raise one of their own."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def signals_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit (143, 129) in the block, so that it cleans up as it does after Ctrl-C.

    The same signal more than REPEATED_S later, while it is still cleaning up, ends the process at once.
    """
    began = 0.0

    def end(signum: int, frame: FrameType | None) -> None:
        nonlocal began
        if not began:
            began = time.monotonic()
            raise SystemExit(128 + signum)
        if time.monotonic() - began > REPEATED_S:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    # Not on Windows, which has no SIGHUP; nohup ignores it, and so do we then.
    hangup = [] if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    with _handled(end, signal.SIGTERM, *hangup):
        yield


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Yield an `Interrupts` that records signals during the block. A second Ctrl-C stops at once."""
    found = Interrupts()
    with _handled(found.handle, signal.SIGINT, signal.SIGTERM):
        yield found


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *signals: int) -> Iterator[None]:
    """Let `handler` handle signals in the block.

    Only the main thread may set handlers; elsewhere, for example in a notebook worker, signals act as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
