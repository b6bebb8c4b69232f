"""What is wrong with a machine, or slow, and the command that cures it: versions, compilers, caches, and every op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ops import build, cache, toolchain
from ops.catalogue import CASES
from ops.errors import BuildError
from ops.mode import VARIABLE, mode
from ops.selftest import TIMED_SHAPE, milliseconds, mistakes
from stylegan import locate
from torch_utils import checkup
from torch_utils.checkup import Finding
from torch_utils.device import keep_freed_memory, pick_device
from torch_utils.threads import cpu_threads

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
    folders = dict.fromkeys([*cache.folders(), locate.cache()])
    checks = (checkup.python, checkup.pytorch, checkup.gpu, checkup.threads, checkup.memory)
    return [*(check() for check in checks), *checkup.disk(folders)]


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
