"""Ctrl-C, SIGTERM and SIGHUP (a terminal closes): while a command loads, while it cleans up, and deferred, so that a
loop finishes its current step before it stops. Work that can be repeated is interrupted at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

REPEATED_S = 3.0  # a terminal that closes sends several signals at once; a later one is from somebody who waits


def stopping_signals() -> set[signal.Signals]:
    """The signals by which this process is asked to stop. SIGHUP is not among them under nohup, nor on Windows."""
    found = {signal.SIGINT, signal.SIGTERM}
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        found.add(signal.SIGHUP)
    return found


class Interrupts:
    """Records the signals by which a user wants to stop. Calling it tells whether one has come.

    signum: number of the first signal, 0 before any came
    """

    def __init__(self) -> None:
        self._requested, self._at_once = threading.Event(), False
        self.signum = 0
        self._heard = -REPEATED_S

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
        if self.is_echo(signum):
            return
        stop, self._at_once = self() or self._at_once, False
        self.signum = self.signum or signum
        self._requested.set()
        if stop:
            raise KeyboardInterrupt

    def is_echo(self, signum: int) -> bool:
        """Whether a signal only comes with the one before, as both the terminal and its shell send SIGHUP."""
        before, self._heard = self._heard, time.monotonic()
        return signum not in (signal.SIGINT, signal.SIGTERM) and self._heard - before < REPEATED_S


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

    with _handled(end, *stopping_signals() - {signal.SIGINT}):
        yield


def quiet_until_begun() -> None:
    """Let Ctrl-C end this process at once and without a word, until a command begins (`ctrl_c_raises`).

    It only loads until then. An interrupted import ends in a traceback, and some libraries take it for another error.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in the block, as Python's own handler does, after `quiet_until_begun`."""
    if signal.getsignal(signal.SIGINT) is _leave:
        with _handled(signal.default_int_handler, signal.SIGINT):
            yield
    else:
        yield


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Yield an `Interrupts` that records signals during the block. A second one stops at once."""
    found = Interrupts()
    with _handled(found.handle, *stopping_signals()):
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
