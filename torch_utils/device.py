"""Devices, number formats, CPU threads, copies between memories, and how memory is taken from the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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


# How a GPU computes: the one place where this is chosen


@dataclass(frozen=True)
class GpuMath:
    """How a GPU computes convolutions and matrix products. A CPU does not ask.

    tf32: factors of float32 are rounded to 10 bits of their fraction (TF32): several times as fast, to 3 digits
    repeatable: cuDNN takes only kernels that add up in the same order each time, and chooses them by the sizes of the
    tensors. Otherwise it times its kernels at each new size, and takes the fastest of them.
    """

    tf32: bool = False
    repeatable: bool = True


GENERATING = GpuMath()
"""For all that generates or measures images: the same numbers each time, on the same card."""
TRAINING = GpuMath()
"""For training, as a run that is resumed must end as one that was not. With `repeatable` off, cuDNN would find its
fastest kernels, others in each run, and the promise would hold up to rounding only. Float32 is not rounded to TF32, as
nobody asks for it: where speed counts, --precision is bf16.
"""


def set_gpu_math(math: GpuMath) -> None:
    """Choose for the whole process, at its beginning. PyTorch by itself rounds the factors of convolutions to TF32."""
    _choose((math.tf32, math.tf32, math.repeatable, not math.repeatable))


@contextmanager
def gpu_math(math: GpuMath, device: torch.device) -> Iterator[None]:
    """Computes as chosen in the block, if `device` is a GPU, and afterwards as before."""
    if device.type != "cuda":
        yield
        return
    before = _chosen()
    set_gpu_math(math)
    try:
        yield
    finally:
        _choose(before)


def _chosen() -> tuple[bool, bool, bool, bool]:
    """TF32 in convolutions and in matrix products, and cuDNN's flags `deterministic` and `benchmark`."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    tf32 = cudnn.conv.fp32_precision == "tf32", products.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return *tf32, cudnn.deterministic, cudnn.benchmark


def _choose(flags: tuple[bool, bool, bool, bool]) -> None:
    """Set what differs, as some versions of PyTorch warn whenever TF32 is set.

    By the older of PyTorch's two interfaces: the newer one leaves the older flags as they were, and PyTorch's profiler
    stops where the two disagree.
    """
    cudnn, before = torch.backends.cudnn, _chosen()
    convolutions, products, cudnn.deterministic, cudnn.benchmark = flags
    if convolutions != before[0]:
        cudnn.allow_tf32 = convolutions
    if products != before[1]:
        torch.set_float32_matmul_precision("high" if products else "highest")


# Copies between the memories of a GPU and of the machine


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device. Of a GPU it waits for nothing: the copy is made from pinned memory, in its turn."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def collected(parts: Iterable[Tensor], into: Tensor) -> Tensor:
    """Copy parts [n,...] one after another into a tensor [N,...] on the CPU, and return it.

    Those of a GPU come through pinned memory, and one part late: it computes the next while the last is copied on.
    """
    coming: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()
    end = 0

    def arrive() -> None:
        nonlocal end
        part, event = coming.popleft()
        if event is not None:
            event.synchronize()
        into[end : end + len(part)] = part
        end += len(part)

    for part in parts:
        coming.append(_on_its_way(part))
        if len(coming) > 1:
            arrive()
    while coming:
        arrive()
    return into


def _on_its_way(part: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The part in memory of the CPU, and what to wait for before it is read."""
    if part.device.type != "cuda":
        return part.cpu(), None
    pinned = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
    pinned.copy_(part, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(part.device))
    return pinned, event


# Memory


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


def free_memory(device: torch.device) -> float:
    """The share of a GPU's memory that nobody has taken; 1 for the CPU, of which nobody knows."""
    if device.type != "cuda":
        return 1.0
    free, total = torch.cuda.mem_get_info(device)
    return free / total


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far in MB, of the GPU or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def memory_of(device: torch.device) -> float:
    """Bytes of memory that the GPU has, or this machine, see `total_memory`."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return total_memory()


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
