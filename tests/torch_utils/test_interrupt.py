"""Ctrl-C is granted when the step is done; a second one at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from torch_utils.interrupt import deferred_interrupts, sigterm_ends, was_interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_wish_and_the_second_an_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with deferred_interrupts() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), number)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 1)  # where Python gets to see the signal
    assert signal.getsignal(number) is before


def test_an_error_of_a_library_that_was_interrupted_is_an_interruption() -> None:
    with pytest.raises(RuntimeError) as raised:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected position in the file")
    assert was_interrupted(raised.value) and was_interrupted(KeyboardInterrupt())
    assert not was_interrupted(RuntimeError()) and not was_interrupted(None)


def test_sigterm_lets_what_is_half_done_be_cleared_away() -> None:
    before, cleared = signal.getsignal(signal.SIGTERM), False
    with pytest.raises(SystemExit) as ended, sigterm_ends():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
        finally:
            cleared = True
    assert cleared and ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is before


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError), deferred_interrupts():
        raise ValueError
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone() -> None:
    seen: list[bool] = []

    def work() -> None:
        with deferred_interrupts() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
