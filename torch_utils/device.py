"""Devices, number formats, CPU threads, and how memory is taken from the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torch_utils.errors import UserError
from torch_utils.text import counted, printable


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
    if device.type not in ("cpu", "cuda"):
        try:
            torch.rand(1, generator=torch.Generator(device), device=device)
        except (RuntimeError, AssertionError, ImportError, NotImplementedError):
            raise UserError(f"{called} {name} is not available, or computes nothing; use cpu or cuda") from None
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


@cache
def total_memory() -> float:
    """Bytes of memory that this machine, or the container of this process, has; infinity where it cannot be known."""
    found = [math.inf]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # the file is missing, or the limit is "max"
            found.append(int(Path(file).read_text()))
    with contextlib.suppress(AttributeError, OSError, ValueError):  # the names are unknown, as on Windows
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found)


def require_memory(needed: float, what: str, cure: str = "use a machine with more") -> None:
    """Raises UserError if `what` needs more bytes than `total_memory`."""
    if needed > total_memory():
        raise UserError(f"{what} needs {needed / 2**30:,.1f} GiB of memory, but this machine has "
                        f"{total_memory() / 2**30:,.1f}; {cure}")  # fmt: skip


# CPU threads


THREADS_PER_CORE = 4  # more only get into each other's way, and thousands end the process


def cpu_threads(asked: int | None = None) -> int:
    """Number of threads to use: `asked` if given, else OMP_NUM_THREADS, else the number of usable cores.

    Raises UserError if more than `THREADS_PER_CORE` are asked for; as many are taken of OMP_NUM_THREADS.
    """
    if asked:
        require_workers("--threads", asked)
        return asked
    cores, variable = usable_cores(), os.environ.get("OMP_NUM_THREADS", "")
    if not variable.isdecimal() or len(variable) > 9:
        return cores
    return min(max(1, int(variable)), THREADS_PER_CORE * cores)


def require_workers(flag: str, count: int) -> None:
    """Raises UserError if `flag` asks for more than `THREADS_PER_CORE` threads or processes for each usable core."""
    cores = usable_cores()
    if count > THREADS_PER_CORE * cores:
        raise UserError(f"{flag} {count} is too many for the {counted(cores, 'core')} that this process may use; give "
                        f"at most {THREADS_PER_CORE * cores}")  # fmt: skip


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


# What only changes the contents of a tensor, if everything else that it takes is a number.
_CONTENTS = {Tensor.normal_, Tensor.uniform_, Tensor.add, Tensor.mul, Tensor.div}


class _Unfilled(TorchFunctionMode):
    """Leaves out what would compute contents."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [value for value in args if isinstance(value, Tensor)]
        if func in _CONTENTS and len(tensors) == 1:
            return tensors[0]
        return (torch.empty if func in (torch.randn, torch.rand) else func)(*args, **(kwargs or {}))


@contextmanager
def without_contents() -> Iterator[None]:
    """Tensors that are made in the block have a shape and a dtype but no contents (the meta device), and no memory.

    PyTorch 2.13 imports its compiler and sympy to compute any such tensor, even half of another: 0.8 s and 75 MB.
    """
    with torch.device("meta"), _Unfilled():
        yield
