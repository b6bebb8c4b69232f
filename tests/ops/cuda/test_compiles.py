"""nvcc compiles the CUDA kernels for every kind of GPU, and no kernel needs more registers than there are.

`make cuda-check` compiles for all kinds and prints a table; the ordinary tests compile for one.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

from ops import BuildError, build, toolchain

SOURCES = sorted((build.CSRC / "cuda").glob("*.cu"))
OTHERS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_100", "sm_120"]


def kernels(report: str) -> dict[str, tuple[int, int, int]]:
    """What ptxas reports about each kernel: registers, bytes of local memory, bytes spilled."""
    found = {}
    for name, text in re.findall(r"Compiling entry function '(\w+)'(.*?Used \d+ registers)", report, re.DOTALL):
        registers, stack, *spilled = (
            int(re.findall(pattern, text)[0])
            for pattern in (r"Used (\d+)", r"(\d+) bytes stack", r"(\d+) bytes spill st", r"(\d+) bytes spill lo")
        )
        found[name] = (registers, stack, sum(spilled))
    return found


def compiled(command: list[str], folder: Path, cache: pytest.Cache) -> tuple[float, str]:
    """Seconds and the report of nvcc; those of an earlier run, where no source, flag or compiler has changed since."""
    told = [*command, toolchain.output([command[0], "--version"]), torch.__version__]
    seen = hashlib.sha256("\n".join(told).encode())
    for path in sorted(path for path in build.CSRC.rglob("*") if path.suffix in (".cu", ".cuh", ".h")):
        seen.update(path.read_bytes())
    key = f"nvcc/{seen.hexdigest()[:20]}"
    if cache.get(key, None) is None:
        begun = time.monotonic()
        done = subprocess.run([*command, "-o", folder / "out.o"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        cache.set(key, [time.monotonic() - begun, done.stderr])
    seconds, report = cache.get(key, None)
    return seconds, report


@pytest.mark.parametrize("arch", ["sm_90", *(pytest.param(arch, marks=pytest.mark.every_gpu) for arch in OTHERS)])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_kernel_spills(source: Path, arch: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        nvcc = toolchain.cuda_home() / "bin" / "nvcc"
    except BuildError as error:
        pytest.skip(str(error))
    include = Path(torch.__file__).parent / "include"
    flags = [
        *COMMON_NVCC_FLAGS,
        *toolchain.cuda_flags(),
        f"-DTORCH_TARGET_VERSION={build.TARGET_VERSION}",
        f"-arch={arch}",
    ]
    command = [nvcc, "-c", source, f"-I{include}", "-Xptxas", "-v", "-Xcompiler", "-fPIC", *flags]
    seconds, report = compiled([str(word) for word in command], tmp_path, request.config.cache)
    found = kernels(report)
    assert found
    registers = [r for r, _, _ in found.values()]
    spilling = {name: numbers for name, numbers in found.items() if numbers[1] or numbers[2]}
    print(
        f"\n{source.name:20} {arch:6} {seconds:5.1f} s  {len(found)} kernels, {min(registers)} to {max(registers)}"
        f" registers, {len(spilling)} with local memory"
    )
    # float64 kernels are only used for checking derivatives, and may be slow. The d stands for double.
    hot = {name: numbers for name, numbers in spilling.items() if not re.search(r"kernelI\w*d(Li|NS_|EE)", name)}
    assert not hot
