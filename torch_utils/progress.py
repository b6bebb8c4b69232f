"""Progress of a long job: a bar on a terminal, or a line every few seconds in a file."""

from __future__ import annotations

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
