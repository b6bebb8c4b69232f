"""How many threads to work with. Apart from `device.py`, as torch takes seconds to load."""

from __future__ import annotations

import os


def cpu_threads(asked: int | None = None) -> int:
    """As many as asked for, or as many as there are cores that this process may use."""
    if asked:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
