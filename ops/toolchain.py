"""The compilers of this machine, their flags, and everything that a compiled library depends on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from ops import BuildError


def compiler() -> str:
    """The path of the C++ compiler: $CXX, or c++. Raises BuildError if there is none."""
    asked = os.environ.get("CXX") or "c++"
    found = shutil.which(asked)
    if found:
        return found
    if len(asked.split()) > 1:
        raise BuildError(
            f"CXX must be the name of one program, because PyTorch accepts no arguments there, got '{asked}'"
        )
    raise BuildError(
        f"no C++ compiler found: '{asked}' is not on PATH; install one (Debian or Ubuntu: apt-get install g++)"
    )


def ninja_folder() -> str:
    """The folder of ninja, which is not on PATH if a virtual environment is used without being activated.

    Raises BuildError if ninja is not installed.
    """
    found = shutil.which("ninja")
    if found:
        return os.path.dirname(found)
    try:
        import ninja
    except ImportError as error:
        raise BuildError("ninja is not installed: pip install ninja") from error
    return str(ninja.BIN_DIR)


def cpu_flags() -> list[str]:
    """Flags for the CPU kernels, which are compiled for exactly this processor."""
    flags = ["-O2", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    if platform.machine() in ("x86_64", "AMD64"):
        flags.append("-march=native")
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            flags.append("-mprefer-vector-width=512")
    elif sys.platform != "darwin":
        flags.append("-mcpu=native")
    return flags


def cuda_flags() -> list[str]:
    """Flags for the CUDA kernels, in addition to `cuda_arch_flags`.

    --use_fast_math is not among them: it makes exp and tanh much less accurate and turns denormals into 0, and it would
    not be faster, because the kernels wait for memory.
    """
    return ["-O3", "-std=c++20", "-lineinfo", "-DUSE_CUDA", "-Xcompiler", "-fvisibility=hidden"]


def cuda_arch_flags() -> list[str]:
    """Flags for the GPUs of this machine; empty if TORCH_CUDA_ARCH_LIST is set, which PyTorch turns into flags."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return []
    capabilities = {torch.cuda.get_device_capability(device) for device in range(torch.cuda.device_count())}
    numbers = [f"{major}{minor}" for major, minor in sorted(capabilities)]
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]


def cuda_home() -> Path:
    """The CUDA toolkit's folder, as nvcc reports it. Raises BuildError if it is missing or does not match PyTorch."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(os.environ.get("CUDA_HOME", ""), "bin"))
    if not nvcc:
        raise BuildError("no CUDA compiler found: nvcc is not on PATH; install the CUDA toolkit")
    dry = subprocess.run([nvcc, "-dryrun", "-c", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
    tops = [line.split("TOP=")[1].strip() for line in dry.stderr.splitlines() if "TOP=" in line]
    home = Path(tops[0]).resolve() if tops else Path(nvcc).resolve().parents[1]
    if torch.version.cuda:
        version = output([nvcc, "--version"]).split("release ")[-1].split(",")[0]
        if version.split(".")[0] != torch.version.cuda.split(".")[0]:
            raise BuildError(
                f"nvcc is of CUDA {version} but torch of CUDA {torch.version.cuda}: install the toolkit of CUDA"
                f" {torch.version.cuda.split('.')[0]}, or the torch that was built for {version}"
            )
    return home


def cuda_arch() -> str:
    """The architecture of the current GPU, such as "sm_90"."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def processor() -> str:
    """What -march=native depends on; machines with different processors may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "CPU part"))}))


def traits(device_type: str) -> list[str]:
    """Everything that a compiled library depends on besides its sources. Raises BuildError if a compiler is missing."""
    if device_type == "cuda":
        home = cuda_home()
        found = [str(home), output([str(home / "bin" / "nvcc"), "--version"]), *cuda_flags(), *cuda_arch_flags()]
        found.append(os.environ.get("TORCH_CUDA_ARCH_LIST", ""))
    else:
        found = [processor(), *cpu_flags()]
    return [*found, output([compiler(), "--version"]), torch.__version__, str(torch.version.cuda)]


def output(command: list[str]) -> str:
    """The output of a command. Raises BuildError if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"'{' '.join(command)}' fails: {error}") from error
