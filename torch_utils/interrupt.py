"""Ctrl-C and SIGTERM as a wish that a loop grants when its step is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether the user wants to stop. A second Ctrl-C stops at once."""
    wished = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        if wished.is_set():
            raise KeyboardInterrupt
        wished.set()

    # Only the main thread may set handlers; elsewhere (in a notebook's worker, say) interrupts keep their meaning.
    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wished.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
