"""What of a machine and its environment makes PyTorch fail or crawl, as a list of findings, each with its cure."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from torch_utils import allocator
from torch_utils.threads import usable_cores

OLDEST_PYTHON, OLDEST_TORCH = (3, 10), (2, 10)
LOW_DISK = 500 << 20
State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the table. "note" is what works and could be better. cure: the one command to type."""

    name: str
    state: State
    text: str
    cure: str = ""


def python() -> Finding:
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "broken", f"{found}; 3.10 or newer is needed", "sudo apt-get install python3.11-venv")
    return Finding("python", "ok", found)


def pytorch() -> Finding:
    found = torch.__version__
    if tuple(int(part) for part in found.split("+")[0].split(".")[:2]) < OLDEST_TORCH:
        return Finding("torch", "broken", f"{found}; 2.10 or newer is needed", "pip install --upgrade torch")
    return Finding("torch", "ok", f"{found}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU only'}")


def gpu() -> Finding:
    """The driver, and whether this torch has code for the GPU."""
    driver = _driver()
    if not torch.version.cuda:
        if driver:
            cure = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
            return Finding("gpu", "note", f"driver {driver}, but this torch is for CPUs only", cure)
        return Finding("gpu", "ok", "none")
    if not torch.cuda.is_available():
        if driver:
            text = f"driver {driver} does not serve this torch, which is of CUDA {torch.version.cuda}"
            return Finding("gpu", "broken", text, "sudo apt-get install --only-upgrade nvidia-driver")
        return Finding("gpu", "ok", "none, as nvidia-smi finds no driver")
    major, minor = torch.cuda.get_device_capability()
    text = f"{torch.cuda.get_device_name()}, sm_{major}{minor}, driver {driver or 'unknown'}"
    # Code for 8.0 runs on 8.6 and 8.9 as well: only the first number has to fit.
    if not any(arch.startswith(f"sm_{major}") for arch in torch.cuda.get_arch_list()):
        return Finding("gpu", "broken", f"{text}: this torch has no code for it", "pip install --upgrade torch")
    return Finding("gpu", "ok", text)


def _driver() -> str:
    """The version of NVIDIA's driver, or "" where there is none."""
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""


def threads() -> Finding:
    """Whether the threads that torch starts with are as many as the cores that this process may use."""
    usable = usable_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if not asked:
        return Finding("threads", "ok", f"{usable} cores")
    if asked != str(usable):
        text = f"OMP_NUM_THREADS={asked}, for {usable} cores that this process may use"
        return Finding("threads", "note", text, "unset OMP_NUM_THREADS")
    return Finding("threads", "ok", f"{usable} cores, OMP_NUM_THREADS={asked}")


def memory() -> Finding:
    """Whether freed memory is kept, or faulted in anew for each large tensor, at more than the cost of computing."""
    if not sys.platform.startswith("linux"):
        return Finding("memory", "ok", "the system's own allocator")
    try:
        before, after = allocator.cost(kept=False), allocator.cost(kept=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return Finding("memory", "broken", f"a process that adds two tensors fails: {error}", "unset LD_PRELOAD")
    instead = allocator.replacement()
    text = (
        f"{f'{instead}, preloaded' if instead else platform.libc_ver()[0] or 'system'}: x + 1 of {allocator.MIB} MiB"
        f" takes {before.milliseconds:.0f} ms, {after.milliseconds:.0f} ms where freed memory is kept"
    )
    if after.faults > (allocator.MIB << 20 >> 12) / 4:  # of all pages
        cure = 'sudo apt-get install libtcmalloc-minimal4 && export LD_PRELOAD="libtcmalloc_minimal.so.4"'
        return Finding("memory", "note", f"{text}: it is not kept", cure)
    return Finding("memory", "ok", text)


def disk(folders: Iterable[Path]) -> list[Finding]:
    """Whether there is room for what is cached."""
    found = []
    for folder in folders:
        there = next((path for path in (folder, *folder.parents) if path.exists()), None)
        if there is None:
            continue
        free = shutil.disk_usage(there).free
        text = f"{free / 1e9:.1f} GB free in {folder}"
        state: State = "ok" if free >= LOW_DISK else "note"
        found.append(Finding("disk", state, text, "" if state == "ok" else f"df -h {there}"))
    return found
