"""What a tool shows while it works: the progress of a long job, on streams that may be closed at any time.

Progress is a bar on a terminal, or a line every few seconds in a file.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from types import TracebackType
from typing import Any

from torch_utils.text import printable, say

LINE_EVERY_S = 10.0


class Progress:
    """Counts towards `total`, and shows it unless `quiet`. Use it as a context manager.

    total: None if not yet known
    unit: "B" for bytes, shown as kB and MB; any other word is shown as it is
    """

    def __init__(self, label: str, total: int | None = None, unit: str = "img", quiet: bool = False) -> None:
        self.label, self.total, self.unit, self.done = printable(label), total, unit, 0
        self._quiet, self._note = quiet, ""
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm  # not at the top, because --help should not wait for it

            self._bar = tqdm(total=total, desc=self.label, unit=unit, unit_scale=unit == "B", leave=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and kind is None:
            self._print()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` to what is done. note: a few words on the state, shown after the numbers."""
        self.done += amount
        self._note = printable(note)
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(amount)
        elif not self._quiet and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._print()

    def move_to(self, done: int, total: int | None) -> None:
        """Set position and total, for a download that resumes or has to start again."""
        self.done, self.total = done, total
        if self._bar is not None:
            self._bar.total, self._bar.n = total, done
            self._bar.refresh()

    def _print(self) -> None:
        self._last_line = time.monotonic()
        scale, unit = (1e6, "MB") if self.unit == "B" else (1.0, self.unit)
        digits = 1 if self.unit == "B" else 0
        of = "" if self.total is None else f"/{self.total / scale:.{digits}f}"
        seconds = self._last_line - self._started
        note = f", {self._note}" if self._note else ""
        done = f"{self.done / scale:.{digits}f}{of} {unit}"
        say(f"{self.label}: {done}, {seconds:.0f} s{note}", err=True)


# Standard output and error


NOBODY = {errno.EPIPE, errno.EIO, errno.EBADF}  # a pager that was quit, a terminal that was closed, `>&-`


class _Lasting(io.FileIO):
    """The file of a stream that takes all that is written, also when it cannot be passed on any more.

    trouble: why it cannot, if not because nobody reads it
    """

    trouble: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in NOBODY:
                self.trouble = error
            _to_nowhere(self.fileno())
            return memoryview(content).nbytes


def lasting_streams() -> None:
    """Let this process work on when standard output or error is closed, or its reader ends, and those it will start.

    Streams that a program has put in their place, such as those of a notebook, stay as they are.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file to be opened would get this number, and what libraries print
            _to_nowhere(descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and not isinstance(_file_of(stream), _Lasting):
            lasting = _lasting(stream, descriptor)
            setattr(sys, name, lasting)
            setattr(sys, f"__{name}__", lasting)


def lost_output() -> str:
    """Why standard output is not complete, such as a full disk; "" if it is, or if nobody wanted to read more of it."""
    file = _file_of(sys.stdout)
    if not isinstance(file, _Lasting):
        return ""
    sys.stdout.flush()
    return file.trouble.strerror or str(file.trouble) if file.trouble else ""


def _lasting(stream: Any, descriptor: int) -> io.TextIOWrapper:
    """A stream to the same place, of the same kind. stream: None if Python found it closed"""
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor, "w", closefd=False)),
        encoding=getattr(stream, "encoding", "utf-8"), errors=getattr(stream, "errors", "backslashreplace"),
        line_buffering=getattr(stream, "line_buffering", True), write_through=getattr(stream, "write_through", False),
    )  # fmt: skip


def _file_of(stream: Any) -> Any:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _to_nowhere(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    else:
        os.set_inheritable(descriptor, True)
