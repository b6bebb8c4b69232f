"""How far a long job has come: a bar on a terminal, a plain line now and then in a file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_EVERY_S = 10.0


class Progress:
    """Counts towards `total` (None: not known yet). A context manager; `quiet` counts without a word.

    unit: "B" for bytes, which are shown in kB and MB; any other word as it is.
    """

    def __init__(self, label: str, total: int | None = None, unit: str = "img", quiet: bool = False) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, 0
        self._quiet, self._note = quiet, ""
        self._started = self._spoken = time.monotonic()
        live = sys.stderr.isatty() and not quiet
        self._bar = tqdm(total=total, desc=label, unit=unit, unit_scale=unit == "B", leave=True) if live else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and kind is None:
            self._say()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """`amount` more is done. note: how it stands, in a few words that are shown behind the numbers."""
        self.done += amount
        self._note = note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif not self._quiet and time.monotonic() - self._spoken > LINE_EVERY_S:
            self._say()

    def move_to(self, done: int, total: int | None) -> None:
        """Set the position: a download that resumes, or that has to start again."""
        self.done, self.total = done, total
        if self._bar is not None:
            self._bar.total, self._bar.n = total, done
            self._bar.refresh()

    def _say(self) -> None:
        self._spoken = time.monotonic()
        scale, unit = (1e6, "MB") if self.unit == "B" else (1.0, self.unit)
        digits = 1 if self.unit == "B" else 0
        of = "" if self.total is None else f"/{self.total / scale:.{digits}f}"
        seconds = self._spoken - self._started
        note = f", {self._note}" if self._note else ""
        print(
            f"{self.label}: {self.done / scale:.{digits}f}{of} {unit}, {seconds:.0f} s{note}",
            file=sys.stderr,
            flush=True,
        )
