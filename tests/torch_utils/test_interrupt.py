"""Ctrl-C is granted when the step is done; a second one at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from torch_utils.interrupt import deferred_interrupts, signals_end, was_interrupted

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_terminal_that_closes_says_so_more_than_once(first: signal.Signals) -> None:
    with deferred_interrupts() as interrupted:
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 0.01)
        assert interrupted.signum == first
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)


def test_an_error_of_a_library_that_was_interrupted_is_an_interruption() -> None:
    with pytest.raises(RuntimeError) as raised:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected position in the file")
    assert was_interrupted(raised.value) and was_interrupted(KeyboardInterrupt())
    assert not was_interrupted(RuntimeError()) and not was_interrupted(None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_what_is_half_done_be_cleared_away(number: signal.Signals) -> None:
    before, cleared = signal.getsignal(number), False
    with pytest.raises(SystemExit) as ended, signals_end():
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 1)
        finally:
            os.kill(os.getpid(), number)  # a terminal that closes may send it twice
            signal.sigtimedwait([], 1)
            cleared = True
    assert cleared and ended.value.code == 128 + number and signal.getsignal(number) is before


@pytest.mark.parametrize("patience, code", [(3.0, 143), (-1.0, -signal.SIGTERM)])
def test_a_later_signal_ends_a_process_that_takes_long_to_clear_away(patience: float, code: int) -> None:
    script = f"""
import os, signal
from torch_utils import interrupt
interrupt.REPEATED_S = {patience}
with interrupt.signals_end():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == code


def test_nohup_goes_on_ignoring_the_end_of_the_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_end():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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
