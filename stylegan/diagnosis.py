"""What memory costs that is taken from the system afresh for every tensor, measured in processes of their own."""

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

MIB = 64
_CODE = f"""
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
print(json.dumps([statistics.median(times[20:]), statistics.median(faults[20:])]))  # once the heap has settled
"""


@dataclass(frozen=True)
class Cost:
    """Of x + 1 into a fresh tensor of 64 MiB: time, and the pages that the system had to hand over for it."""

    milliseconds: float
    faults: float


def cost(kept: bool) -> Cost:
    """With `keep_freed_memory`, or with what the process starts with."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, "kept" if kept else "as it is"], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    return Cost(*json.loads(done.stdout))


def replacement() -> str:
    """The allocator that LD_PRELOAD has put in place of the system's: "tcmalloc", "jemalloc", "mimalloc", or ""."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        mapped = os.environ.get("LD_PRELOAD", "")
    match = re.search(r"/lib(tcmalloc|jemalloc|mimalloc)", mapped)
    return match[1] if match else ""


# What of a machine and its environment makes PyTorch fail or crawl, as a list of findings, each with its cure


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
        before, after = cost(kept=False), cost(kept=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return Finding("memory", "broken", f"a process that adds two tensors fails: {error}", "unset LD_PRELOAD")
    instead = replacement()
    text = (
        f"{f'{instead}, preloaded' if instead else platform.libc_ver()[0] or 'system'}: x + 1 of {MIB} MiB"
        f" takes {before.milliseconds:.0f} ms, {after.milliseconds:.0f} ms where freed memory is kept"
    )
    if after.faults > (MIB << 20 >> 12) / 4:  # of all pages
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


# What is wrong with a machine, or slow, and the command that cures it: versions, compilers, caches, and every op


FIX = "python doctor.py --fix"


@dataclass
class Report:
    """What was found. milliseconds: by op, of its kernel and of its reference, forward and backward."""

    findings: list[Finding] = field(default_factory=list)
    milliseconds: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        return any(found.state == "broken" for found in self.findings)


def examine(device: str, fix: bool = False) -> Report:
    """Look at everything; before that, if `fix`, clear away what broken builds have left.

    device: "auto", "cpu", "cuda" or "cuda:1"; raises UserError for one that is not there.
    """
    where = pick_device(device)
    report = Report(cleared() if fix else [])
    for check in (environment, tools, caches):
        report.findings += check()
    keep_freed_memory()
    torch.set_num_threads(cpu_threads())
    try_ops(report, where)
    return report


def environment() -> list[Finding]:
    """What has nothing to do with the ops."""
    folders = dict.fromkeys([*cache.folders(), cache_folder("models")])
    checks = (python, pytorch, gpu, threads, memory)
    return [*(check() for check in checks), *disk(folders)]


def tools() -> list[Finding]:
    """What the ops are built with."""
    found = [
        tool("compiler", lambda: toolchain.output([toolchain.compiler(), "--version"]), "sudo apt-get install g++"),
        tool("ninja", lambda: toolchain.ninja_folder(), "pip install ninja"),
    ]
    if not torch.version.cuda or not torch.cuda.is_available():
        return [*found, Finding("nvcc", "ok", "not needed: there is no GPU that this torch could use")]
    cure = f"sudo apt-get install cuda-toolkit-{torch.version.cuda.replace('.', '-')}"
    return [*found, tool("nvcc", lambda: f"in {toolchain.cuda_home()}", cure)]


def tool(name: str, probe: Callable[[], str], cure: str) -> Finding:
    try:
        return Finding(name, "ok", probe().split("\n")[0])
    except BuildError as error:
        return Finding(name, "broken", str(error), cure)


def caches() -> list[Finding]:
    """What lies in the folders of compiled libraries."""
    found = []
    for folder in cache.folders():
        left = cache.leftovers(folder)
        found += [Finding("cache", "broken" if x.harms else "note", f"{x.what}: {x.path}", FIX) for x in left]
        if not left:
            found.append(Finding("cache", "ok", f"{len(list(folder.glob('*/*.so')))} libraries in {folder}"))
    try:
        cache.writable(cache.folders())
    except BuildError as error:
        found.append(Finding("cache", "broken", str(error), "export STYLEGAN_OPS_CACHE=/tmp/stylegan-ops"))
    return found


def cleared() -> list[Finding]:
    """Removes what `caches` would complain of."""
    found = []
    for left in (left for folder in cache.folders() for left in cache.leftovers(folder)):
        try:
            cache.remove(left.path)
            found.append(Finding("fix", "ok", f"removed {left.what}: {left.path}"))
        except OSError as error:
            text = f"cannot remove {left.path}: {error.strerror}"
            found.append(Finding("fix", "broken", text, f"sudo rm -r {left.path}"))
    return found


def try_ops(report: Report, device: torch.device) -> None:
    """Whether there are kernels, and what each of them computes in what time."""
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
        text = f"equals its reference; {times['kernel']:.1f} ms beside {times['reference']:.1f} ms of the reference"
        report.findings.append(Finding(case.name, "ok", text))


def find_kernels(device: torch.device) -> Finding:
    """Builds them if need be."""
    try:
        if mode() == "ref":
            return Finding("kernels", "note", f"{VARIABLE}=ref switches them off", f"unset {VARIABLE}")
    except BuildError as error:
        return Finding("kernels", "broken", str(error), f"unset {VARIABLE}")
    if not build.sources(device.type):
        return Finding("kernels", "note", f"there are none for {device.type}: the reference is used")
    problem = build.why_not(device.type)
    if problem:
        return Finding("kernels", "broken", problem, f"export {VARIABLE}=ref  # slower, but works")
    return Finding("kernels", "ok", build.describe(device.type))


def table(report: Report) -> str:
    """For people: a line for each finding, then what to do."""
    width = max(len(found.name) for found in report.findings)
    rows = [f"{found.name:<{width}}  {found.state:<6}  {found.text}" for found in report.findings]
    shape = "x".join(map(str, TIMED_SHAPE))
    rows += [f"(Times: forward and backward at {shape}, float32.)"] if report.milliseconds else []
    cures = [f"{found.name}: {found.text}\n    {found.cure}" for found in report.findings if found.cure]
    return "\n".join([*rows, "", *(["What to do:", *dict.fromkeys(cures)] if cures else ["Nothing to do."])])
