"""Which device to compute on, in which number format, and how memory is taken from the system."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys

import torch

from torch_utils.errors import UserError


def pick_device(name: str) -> torch.device:
    """ "auto" is a CUDA device if there is one, else the CPU. Raises UserError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is no device; use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"--device {name} is not there: torch sees {torch.cuda.device_count()} GPUs; use --device cpu")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Does this device compute bfloat16 in hardware? A GPU from Ampere on does, a CPU with AVX512-BF16 or AMX.

    `torch.cuda.is_bf16_supported` says yes to older GPUs as well, which emulate it slowly.
    """
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of returning it to the system (Linux; elsewhere nothing happens).

    By default every tensor of 32 MiB or more is mapped and page-faulted afresh, which costs several times the
    arithmetic done on it. Freed blocks stay with the process, so its size stays near its peak.
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
    """Give back to the device, or to the system, what nobody holds, graphs in circles included."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory taken so far, in MB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
