"""Devices, number formats, CPU threads, and how memory is taken from the system."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from torch_utils.errors import UserError
from torch_utils.text import printable


def pick_device(name: str | torch.device, called: str = "--device") -> torch.device:
    """The device called `name`; "auto" means CUDA if available, else the CPU. Raises UserError if there is none.

    called: the option or argument, for messages
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UserError(f"Invalid {called} {printable(str(name)[:40])}: expected auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(
            f"{called} {name} is not available: torch sees {torch.cuda.device_count()} GPUs; use {called} cpu"
        )
    if device.type not in ("cpu", "cuda") and not (device.type == "mps" and torch.backends.mps.is_available()):
        raise UserError(f"{called} {name} is not supported: images are computed on cpu, cuda or cuda:1")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 in hardware: GPUs from Ampere on, and CPUs with AVX512-BF16 or AMX.

    `torch.cuda.is_bf16_supported` is also true for older GPUs, which emulate it slowly.
    """
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system (Linux only; elsewhere a no-op).

    By default every tensor of 32 MiB or more is mapped and page-faulted again, which takes several times as long as the
    arithmetic on it. The process then stays near its peak size.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 64 << 20)


def return_freed_memory(device: torch.device) -> None:
    """Return unused memory to the device or the system, after collecting autograd graphs in reference cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far in MB, of the GPU or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


# CPU threads


def cpu_threads(asked: int | None = None) -> int:
    """Number of threads to use: `asked` if given, else OMP_NUM_THREADS, else the number of usable cores."""
    if asked:
        return asked
    variable = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(variable)) if variable.isdecimal() else usable_cores()


def usable_cores() -> int:
    """Number of cores this process may use, by its affinity and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # the file is missing, or the quota is "max"
        return cores


@contextmanager
def single_thread_workers(count: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a `map` that calls a function in `count` threads, each of which runs its torch operations on one thread.

    Torch adds up in another order on another number of threads, so only results from one thread are the same to the
    bit on every machine. Small networks are also faster this way than with all threads in each operation.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        # The calling thread kept its number, but threads created from now on would inherit the workers' 1.
        torch.set_num_threads(threads)
