"""nvcc compiles the CUDA kernels for every kind of GPU, and no kernel needs more registers than there are.

`make cuda-check` compiles for all kinds and prints a table; the ordinary tests compile for one.
"""

from __future__ import annotations

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


@pytest.mark.parametrize("arch", ["sm_90", *(pytest.param(arch, marks=pytest.mark.every_gpu) for arch in OTHERS)])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_kernel_spills(source: Path, arch: str, tmp_path: Path) -> None:
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
    command = [nvcc, "-c", source, "-o", tmp_path / "out.o", f"-I{include}", "-Xptxas", "-v", "-Xcompiler", "-fPIC"]
    begun = time.monotonic()
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = kernels(done.stderr)
    assert found
    seconds, registers = time.monotonic() - begun, [r for r, _, _ in found.values()]
    spilling = {name: numbers for name, numbers in found.items() if numbers[1] or numbers[2]}
    print(
        f"\n{source.name:20} {arch:6} {seconds:5.1f} s  {len(found)} kernels, {min(registers)} to {max(registers)}"
        f" registers, {len(spilling)} with local memory"
    )
    # float64 kernels are only used for checking derivatives, and may be slow. The d stands for double.
    hot = {name: numbers for name, numbers in spilling.items() if not re.search(r"kernelI\w*d(Li|NS_|EE)", name)}
    assert not hot
