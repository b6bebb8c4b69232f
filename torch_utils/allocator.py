"""What memory costs that is taken from the system afresh for every tensor, measured in processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 64
_CODE = f"""
import json, resource, statistics, sys, time
import torch
from torch_utils.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
x = torch.ones({MIB} << 18)
times, faults = [], []
for _ in range(28):
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    x + 1
    times.append(1000 * (time.perf_counter() - begin))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps([statistics.median(times[20:]), statistics.median(faults[20:])]))  # once the heap has settled
"""


@dataclass(frozen=True)
class Cost:
    """Of x + 1 into a fresh tensor of 64 MiB: time, and the pages that the system had to hand over for it."""

    milliseconds: float
    faults: float


def cost(kept: bool) -> Cost:
    """With `keep_freed_memory`, or with what the process starts with."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, "kept" if kept else "as it is"], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    return Cost(*json.loads(done.stdout))


def replacement() -> str:
    """The allocator that LD_PRELOAD has put in place of the system's: "tcmalloc", "jemalloc", "mimalloc", or ""."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        mapped = os.environ.get("LD_PRELOAD", "")
    match = re.search(r"/lib(tcmalloc|jemalloc|mimalloc)", mapped)
    return match[1] if match else ""
