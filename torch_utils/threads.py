"""How many threads to work with. Apart from `device.py`, as torch takes seconds to load."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cpu_threads(asked: int | None = None) -> int:
    """As many as asked for, or as OMP_NUM_THREADS says, or as there are usable cores."""
    if asked:
        return asked
    variable = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(variable)) if variable.isdecimal() else usable_cores()


def usable_cores() -> int:
    """How many cores this process may use, by affinity and by the quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no limit, "max"
        return cores
