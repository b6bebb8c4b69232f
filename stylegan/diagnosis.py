"""Environment checks: known causes of PyTorch failing or running slowly on this machine, each with its cure.

`examine` runs the checks in the order of this file: Python, PyTorch and the GPU; threads, memory and disk; the tools
that compile the fused ops, and the caches of compiled ops; then the ops, compared with their references and timed.
`table` prints the findings.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from ops import VARIABLE, BuildError, build, cache, mode, toolchain
from ops.selftest import CASES, TIMED_SHAPE, milliseconds, mistakes
from torch_utils.device import cpu_threads, keep_freed_memory, pick_device, usable_cores
from torch_utils.files import cache_folder

OLDEST_PYTHON, OLDEST_TORCH = (3, 10), (2, 10)
LOW_DISK = 500 << 20
FIX = "python doctor.py --fix"

State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. A "note" is about something that works and could be better. cure: a command, or ""."""

    name: str
    state: State
    text: str
    cure: str = ""


@dataclass
class Report:
    """All findings. milliseconds: for each op, forward and backward of its "kernel" and of its "reference"."""

    findings: list[Finding] = field(default_factory=list)
    milliseconds: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        return any(found.state == "broken" for found in self.findings)


def examine(device: str, fix: bool = False) -> Report:
    """Run all checks; before them, if `fix`, remove what broken builds have left.

    device: "auto", "cpu", "cuda" or "cuda:1", whose kernels are checked. Raises UserError if it does not exist.
    """
    where = pick_device(device)
    report = Report(remove_leftovers() if fix else [])
    report.findings += [check_python(), check_torch(), check_gpu(), check_threads(), check_memory()]
    report.findings += check_disk(dict.fromkeys([*cache.folders(), cache_folder("models")]))
    report.findings += [*check_tools(), *check_caches()]
    keep_freed_memory()
    torch.set_num_threads(cpu_threads())
    check_ops(report, where)
    return report


def table(report: Report) -> str:
    """The report as text: a line for each finding, then the cures."""
    width = max(len(found.name) for found in report.findings)
    rows = [f"{found.name:<{width}}  {found.state:<6}  {found.text}" for found in report.findings]
    shape = "x".join(map(str, TIMED_SHAPE))
    rows += [f"(Times: forward and backward at {shape}, float32.)"] if report.milliseconds else []
    cures = [f"{found.name}: {found.text}\n    {found.cure}" for found in report.findings if found.cure]
    return "\n".join([*rows, "", *(["What to do:", *dict.fromkeys(cures)] if cures else ["Nothing to do."])])


# Versions, and the GPU


def check_python() -> Finding:
    """Check the version of Python."""
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "broken", f"{found}; 3.10 or newer is needed", "sudo apt-get install python3.11-venv")
    return Finding("python", "ok", found)


def check_torch() -> Finding:
    """Check the version of PyTorch."""
    found = torch.__version__
    if tuple(int(part) for part in found.split("+")[0].split(".")[:2]) < OLDEST_TORCH:
        return Finding("torch", "broken", f"{found}; 2.10 or newer is needed", "pip install --upgrade torch")
    return Finding("torch", "ok", f"{found}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU only'}")


def check_gpu() -> Finding:
    """Check that the driver works with this PyTorch, and that this PyTorch has code for the GPU."""
    driver = _driver_version()
    if not torch.version.cuda:
        if driver:
            cure = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
            return Finding("gpu", "note", f"driver {driver}, but this PyTorch was built for CPUs only", cure)
        return Finding("gpu", "ok", "none")
    if not torch.cuda.is_available():
        if driver:
            text = f"driver {driver} does not work with this PyTorch, which needs CUDA {torch.version.cuda}"
            return Finding("gpu", "broken", text, "sudo apt-get install --only-upgrade nvidia-driver")
        return Finding("gpu", "ok", "none: nvidia-smi finds no driver")
    major, minor = torch.cuda.get_device_capability()
    text = f"{torch.cuda.get_device_name()}, sm_{major}{minor}, driver {driver or 'unknown'}"
    # Code for 8.0 also runs on 8.6 and 8.9: only the first number has to match.
    if not any(arch.startswith(f"sm_{major}") for arch in torch.cuda.get_arch_list()):
        return Finding("gpu", "broken", f"{text}: this PyTorch has no code for it", "pip install --upgrade torch")
    return Finding("gpu", "ok", text)


def _driver_version() -> str:
    """The version of NVIDIA's driver, or "" if there is none."""
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""


# Threads, memory and disk


def check_threads() -> Finding:
    """Check that PyTorch starts with one thread for each core that this process may use."""
    usable = usable_cores()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if not asked:
        return Finding("threads", "ok", f"{usable} cores")
    if asked != str(usable):
        text = f"OMP_NUM_THREADS={asked}, but this process may use {usable} cores"
        return Finding("threads", "note", text, "unset OMP_NUM_THREADS")
    return Finding("threads", "ok", f"{usable} cores, OMP_NUM_THREADS={asked}")


MIB = 64
_ALLOCATION_TEST = f"""
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
print(json.dumps([statistics.median(times[20:]), statistics.median(faults[20:])]))  # after the heap has settled
"""


@dataclass(frozen=True)
class AllocationCost:
    """The cost of x + 1 into a new tensor of 64 MiB: the time, and the page faults."""

    milliseconds: float
    faults: float


def check_memory() -> Finding:
    """Check that freed memory is reused; otherwise page faults of large tensors cost more than computing them."""
    if not sys.platform.startswith("linux"):
        return Finding("memory", "ok", "the system's own allocator")
    try:
        before, after = allocation_cost(kept=False), allocation_cost(kept=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return Finding("memory", "broken", f"a process that adds two tensors fails: {error}", "unset LD_PRELOAD")
    preloaded = preloaded_allocator()
    text = (
        f"{f'{preloaded}, preloaded' if preloaded else platform.libc_ver()[0] or 'system'}: x + 1 of {MIB} MiB takes"
        f" {before.milliseconds:.0f} ms, or {after.milliseconds:.0f} ms when freed memory is kept"
    )
    if after.faults > (MIB << 20 >> 12) / 4:  # a quarter of the tensor's pages
        cure = 'sudo apt-get install libtcmalloc-minimal4 && export LD_PRELOAD="libtcmalloc_minimal.so.4"'
        return Finding("memory", "note", f"{text}: it is not kept", cure)
    return Finding("memory", "ok", text)


def allocation_cost(kept: bool) -> AllocationCost:
    """Measure in a new process, with `keep_freed_memory` or with the settings with which a process starts."""
    done = subprocess.run(
        [sys.executable, "-c", _ALLOCATION_TEST, "kept" if kept else "as it is"],
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    return AllocationCost(*json.loads(done.stdout))


def preloaded_allocator() -> str:
    """The allocator with which LD_PRELOAD has replaced the system's: "tcmalloc", "jemalloc", "mimalloc", or ""."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        mapped = os.environ.get("LD_PRELOAD", "")
    match = re.search(r"/lib(tcmalloc|jemalloc|mimalloc)", mapped)
    return match[1] if match else ""


def check_disk(folders: Iterable[Path]) -> list[Finding]:
    """Check the free space for the cache folders, whether or not they exist."""
    found = []
    for folder in folders:
        existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
        if existing is None:
            continue
        free = shutil.disk_usage(existing).free
        text = f"{free / 1e9:.1f} GB free in {folder}"
        state: State = "ok" if free >= LOW_DISK else "note"
        found.append(Finding("disk", state, text, "" if state == "ok" else f"df -h {existing}"))
    return found


# The tools that compile the fused ops


def check_tools() -> list[Finding]:
    """Check that the C++ compiler, ninja and, if there is a GPU, nvcc can be used."""
    found = [
        _tool("compiler", lambda: toolchain.output([toolchain.compiler(), "--version"]), "sudo apt-get install g++"),
        _tool("ninja", toolchain.ninja_folder, "pip install ninja"),
    ]
    if not torch.version.cuda or not torch.cuda.is_available():
        return [*found, Finding("nvcc", "ok", "not needed: this PyTorch can use no GPU")]
    cure = f"sudo apt-get install cuda-toolkit-{torch.version.cuda.replace('.', '-')}"
    return [*found, _tool("nvcc", lambda: f"in {toolchain.cuda_home()}", cure)]


def _tool(name: str, probe: Callable[[], str], cure: str) -> Finding:
    try:
        return Finding(name, "ok", probe().split("\n")[0])
    except BuildError as error:
        return Finding(name, "broken", str(error), cure)


# The caches of compiled ops


def check_caches() -> list[Finding]:
    """Check the folders of compiled libraries: leftovers of broken builds, and whether a folder can be written to."""
    found = []
    for folder in cache.folders():
        leftovers = cache.leftovers(folder)
        found += [Finding("cache", "broken" if x.harms else "note", f"{x.what}: {x.path}", FIX) for x in leftovers]
        if not leftovers:
            found.append(Finding("cache", "ok", f"{len(list(folder.glob('*/*.so')))} libraries in {folder}"))
    try:
        cache.writable(cache.folders())
    except BuildError as error:
        found.append(Finding("cache", "broken", str(error), "export STYLEGAN_OPS_CACHE=/tmp/stylegan-ops"))
    return found


def remove_leftovers() -> list[Finding]:
    """Remove the leftovers that `check_caches` reports."""
    found = []
    for left in (left for folder in cache.folders() for left in cache.leftovers(folder)):
        try:
            cache.remove(left.path)
            found.append(Finding("fix", "ok", f"removed {left.what}: {left.path}"))
        except OSError as error:
            text = f"cannot remove {left.path}: {error.strerror}"
            found.append(Finding("fix", "broken", text, f"sudo rm -r {left.path}"))
    return found


# The ops


def check_ops(report: Report, device: torch.device) -> None:
    """Compare each kernel with its reference and measure both; add the findings and the times to `report`."""
    kernels = find_kernels(device)
    report.findings.append(kernels)
    if kernels.state != "ok":
        return
    for case in CASES:
        wrong = mistakes(case, device)
        if wrong:
            report.findings.append(Finding(case.name, "broken", wrong, f"export {VARIABLE}=ref"))
            continue
        report.milliseconds[case.name] = times = milliseconds(case, device)
        text = f"equals its reference; {times['kernel']:.1f} ms, the reference {times['reference']:.1f} ms"
        report.findings.append(Finding(case.name, "ok", text))


def find_kernels(device: torch.device) -> Finding:
    """Check whether the device has kernels. They are built if necessary."""
    try:
        if mode() == "ref":
            return Finding("kernels", "note", f"{VARIABLE}=ref switches them off", f"unset {VARIABLE}")
    except BuildError as error:
        return Finding("kernels", "broken", str(error), f"unset {VARIABLE}")
    if not build.sources(device.type):
        return Finding("kernels", "note", f"there are no kernels for {device.type}: the reference is used")
    problem = build.why_not(device.type)
    if problem:
        return Finding("kernels", "broken", problem, f"export {VARIABLE}=ref  # slower, but works")
    return Finding("kernels", "ok", build.describe(device.type))
