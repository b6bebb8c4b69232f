"""The CUDA kernels and their launchers, compiled for the CPU with csrc/cuda/emulate.h."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from ops import bias_act, build, philox, style_epilogue, toolchain, upfirdn2d

assert bias_act and philox and style_epilogue and upfirdn2d  # imported, because they define the schemas

FLAGS = ["-x", "c++", "-O1", "-std=c++20", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE"]


def headers(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cuh"))


def compile_emulated(folder: Path) -> Path:
    """The library of all emulated kernels, in `folder`; compiled if one of its sources has changed."""
    sources = sorted((build.CSRC / "cuda").glob("*.cu"))
    seen = hashlib.sha256(torch.__version__.encode() + " ".join(FLAGS).encode())
    for path in [*sources, *headers(build.CSRC)]:
        seen.update(path.read_bytes())
    library = folder / f"emulated-{seen.hexdigest()[:20]}.so"
    with FileLock(library.with_suffix(".lock")):  # other workers wait
        if not library.exists():
            compile_all(sources, library)
    return library


def compile_all(sources: list[Path], library: Path) -> None:
    torch_folder = Path(torch.__file__).parent
    command = [
        toolchain.compiler(),
        *FLAGS,
        f"-DTORCH_TARGET_VERSION={build.TARGET_VERSION}",
        f"-I{torch_folder}/include",
    ]
    scratch = f"{library.parent}/{os.getpid()}-"
    objects = [scratch + path.stem + ".o" for path in sources]
    jobs = [
        subprocess.Popen([*command, "-c", path, "-o", out], stderr=subprocess.PIPE, text=True)
        for path, out in zip(sources, objects)
    ]
    for job in jobs:
        complaint = job.communicate()[1]
        assert job.returncode == 0, complaint
    link = [f"-L{torch_folder}/lib", f"-Wl,-rpath,{torch_folder}/lib", "-ltorch_cpu", "-ltorch", "-lc10"]
    subprocess.run([toolchain.compiler(), "-shared", "-o", scratch + "all.so", *objects, *link], check=True)
    os.replace(scratch + "all.so", library)
    for path in objects:
        os.unlink(path)


@pytest.fixture(scope="session")
def emulated(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """emulated(name, *args) runs an op's emulated CUDA kernel twice, and checks that the result is the same.

    The emulation runs threads and blocks in another order the second time.
    """
    if sys.platform != "linux":
        pytest.skip("the emulation of CUDA threads needs Linux's ucontext")
    schemas = torch.library.Library("stylegan_emulated", "DEF")
    torch.ops.load_library(compile_emulated(Path(request.config.cache.mkdir("emulated"))))

    def run(name: str, *args: Any) -> Any:
        if not hasattr(torch.ops.stylegan_emulated, name):
            schema = str(getattr(torch.ops.stylegan, name).default._schema)
            schemas.define(re.sub(r"^\w+::", "", schema))
        op = getattr(torch.ops.stylegan_emulated, name)
        first, second = op(*args), op(*args)
        for one, other in zip(*[(r,) if isinstance(r, Tensor) else r for r in (first, second)]):
            assert torch.equal(bits(one), bits(other)), "the result depends on the order of the threads"
        return first

    return run


def bits(x: Tensor) -> Tensor:
    """The bits of x, so that NaNs are equal to themselves."""
    return x.contiguous().flatten().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
