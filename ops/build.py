"""Compiles the kernels with ninja at their first use, once per machine, and loads them.

Nothing happens at import. A finished library lies in a cache folder whose name is a hash of all that it depends on. It is
built in a scratch folder and renamed into place under an operating system lock, so that a killed build leaves nothing
that the next one could trip over, and nobody waits for a process that is no longer there.

STYLEGAN_OPS chooses: "auto" (the default) falls back on the reference in plain PyTorch and says why; "ref" never compiles;
"strict" raises BuildError where "auto" would fall back. STYLEGAN_OPS_CACHE moves the cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

CSRC = Path(__file__).parent / "csrc"
MODES = ("auto", "ref", "strict")
# The oldest torch whose stable ABI the kernels use; a library built so is good for every later one.
TARGET_VERSION = "0x020a000000000000"


class BuildError(RuntimeError):
    """The kernels cannot be had. The message is one line: why, and what to do."""


def mode() -> str:
    """What STYLEGAN_OPS asks for. Raises BuildError for a word it does not know."""
    chosen = os.environ.get("STYLEGAN_OPS", "auto")
    if chosen not in MODES:
        raise BuildError(f"STYLEGAN_OPS={chosen} is none of {', '.join(MODES)}")
    return chosen


@torch.compiler.assume_constant_result
def available(device_type: str) -> bool:
    """Can the kernels be used on "cpu" or "cuda"? The first call builds or loads them and says in one line what is in use.

    Raises BuildError if not and STYLEGAN_OPS is "strict".
    """
    return _loaded(device_type, mode())


@functools.cache
def _loaded(device_type: str, chosen: str) -> bool:
    if chosen == "ref":
        _say("ops: reference (STYLEGAN_OPS=ref)")
        return False
    try:
        library = find_or_build(device_type)
    except BuildError as error:
        if chosen == "strict":
            raise
        _say(f"ops: reference ({error})")
        return False
    torch.ops.load_library(library)
    _say(f"ops: {describe(device_type)}")
    return True


def describe(device_type: str) -> str:
    """What the kernels of a device are: "cpu kernels (avx512, 2 threads)" or "cuda kernels sm_90"."""
    if device_type == "cuda":
        return f"cuda kernels {_cuda_arch()}"
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return f"cpu kernels ({capability}, {torch.get_num_threads()} threads)"


def find_or_build(device_type: str) -> Path:
    """The path of the compiled library. Raises BuildError if there is none and none can be made."""
    sources = sorted((CSRC / device_type).glob("*.cu" if device_type == "cuda" else "*.cpp"))
    if not sources:
        raise BuildError(f"there are no kernels for {device_type}")
    key = _key(device_type, sources)
    for root in cache_folders():
        library = root / key / f"{_name(device_type)}.so"
        if library.exists():
            return library
    root = _writable(cache_folders())
    library = root / key / f"{_name(device_type)}.so"
    with _locked(root / f"{key}.lock"):
        if not library.exists():  # another process may have built it while this one waited
            _build(device_type, sources, root / key)
    return library


def cache_folders() -> list[Path]:
    """Where compiled libraries are kept, best first; the last is for machines with a read-only home."""
    chosen = os.environ.get("STYLEGAN_OPS_CACHE")
    if chosen:
        return [Path(chosen)]
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return [home / "stylegan" / "ops", Path(tempfile.gettempdir()) / f"stylegan-ops-{user}"]


def compiler() -> str:
    """The path of the C++ compiler, $CXX or the system's. Raises BuildError if there is none."""
    asked = os.environ.get("CXX", "c++")
    found = shutil.which(asked.split()[0])
    if not found:
        raise BuildError(
            f"no C++ compiler found: '{asked}' is not on PATH; install one (Debian or Ubuntu: apt-get install g++)"
        )
    return found


def cpu_flags() -> list[str]:
    """How the CPU kernels are compiled: for this very processor."""
    flags = ["-O3", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    if platform.machine() in ("x86_64", "AMD64"):
        flags.append("-march=native")
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            flags.append("-mprefer-vector-width=512")
    elif sys.platform != "darwin":
        flags.append("-mcpu=native")
    return flags


def cuda_flags() -> list[str]:
    """How the CUDA kernels are compiled; the architecture is added for the GPU at hand."""
    return ["-O3", "-std=c++20", "--use_fast_math", "-lineinfo", "-DUSE_CUDA"]


def cuda_home() -> Path:
    """The CUDA toolkit's folder, as nvcc itself tells it. Raises BuildError if there is none, or of another version."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(os.environ.get("CUDA_HOME", ""), "bin"))
    if not nvcc:
        raise BuildError("no CUDA compiler found: nvcc is not on PATH; install the CUDA toolkit")
    dry = subprocess.run([nvcc, "-dryrun", "-c", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
    tops = [line.split("TOP=")[1].strip() for line in dry.stderr.splitlines() if "TOP=" in line]
    home = Path(tops[0]).resolve() if tops else Path(nvcc).resolve().parents[1]
    if torch.version.cuda:
        version = _output([nvcc, "--version"]).split("release ")[-1].split(",")[0]
        if version.split(".")[0] != torch.version.cuda.split(".")[0]:
            raise BuildError(
                f"nvcc is of CUDA {version} but torch of CUDA {torch.version.cuda}: install the toolkit of CUDA"
                f" {torch.version.cuda.split('.')[0]}, or the torch that was built for {version}"
            )
    return home


def _cuda_arch() -> str:
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def _name(device_type: str) -> str:
    return f"stylegan_ops_{device_type}"


def _key(device_type: str, sources: list[Path]) -> str:
    """A folder name that changes whenever the compiled library would."""
    seen = hashlib.sha256()
    headers = sorted(path for folder in (CSRC, CSRC / device_type) for path in folder.glob("*.h"))
    for path in [*sources, *headers]:
        seen.update(path.name.encode() + path.read_bytes())
    if device_type == "cuda":
        told = [str(cuda_home()), _output([str(cuda_home() / "bin" / "nvcc"), "--version"]), _cuda_arch()]
    else:
        told = [_processor()]
    flags = cuda_flags() if device_type == "cuda" else cpu_flags()
    for text in [*told, _output([compiler(), "--version"]), *flags, torch.__version__, str(torch.version.cuda)]:
        seen.update(text.encode() + b"\0")
    return f"{device_type}-{sysconfig.get_platform()}-{seen.hexdigest()[:20]}"


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "CPU part"))}))


def _writable(folders: list[Path]) -> Path:
    reasons = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        return folder
    raise BuildError(f"nowhere to keep the compiled kernels ({'; '.join(reasons)}); set STYLEGAN_OPS_CACHE to a folder")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an operating system lock, which ends with the process that holds it; say for whom and how long we wait."""
    lock, owner = FileLock(path), path.with_suffix(".owner")
    begun = told = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            now = time.monotonic()
            if told == begun or now - told >= 10:
                told = now
                holder = owner.read_text() if owner.exists() else "another process"
                _say(f"ops: waiting for {holder}, which is compiling the kernels, for {now - begun:.0f} s")
        except OSError as error:
            raise BuildError(
                f"cannot lock {path}: {error.strerror}; set STYLEGAN_OPS_CACHE to another folder"
            ) from error
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _build(device_type: str, sources: list[Path], target: Path) -> None:
    """Compile in a scratch folder beside `target`, then rename. Called under the lock: older scratch is from the dead."""
    for left in target.parent.glob(f"{target.name}.building-*"):
        shutil.rmtree(left, ignore_errors=True)
    scratch = target.with_name(f"{target.name}.building-{os.getpid()}")
    scratch.mkdir()
    begun = time.monotonic()
    _say(f"ops: compiling {len(sources)} {device_type} files, once; this takes some seconds")
    try:
        _compile(device_type, sources, scratch)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _say(f"ops: compiled in {time.monotonic() - begun:.1f} s into {target}")


def _compile(device_type: str, sources: list[Path], folder: Path) -> None:
    """Let PyTorch write the ninja file and run it. Raises BuildError with the compiler's own first complaint."""
    import ninja  # PyTorch looks for it on PATH, where it is not if the virtual environment is not activated

    if device_type == "cuda":
        os.environ["CUDA_HOME"] = str(cuda_home())
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), ninja.BIN_DIR])
    from torch.utils import cpp_extension  # half a second, and only needed here

    common = [f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"]
    try:
        cpp_extension.load(
            _name(device_type),
            [str(path) for path in sources],
            extra_cflags=[*common, *cpu_flags()],
            extra_cuda_cflags=[*common, *cuda_flags()],
            build_directory=str(folder),
            is_python_module=False,
            verbose=False,
        )
    except (RuntimeError, OSError) as error:
        log = target_log(folder)
        log.write_text(str(error))
        complaint = next((line for line in str(error).splitlines() if "error" in line.lower()), str(error))
        raise BuildError(f"compiling failed: {complaint.strip():.200}; all of it is in {log}") from error


def target_log(folder: Path) -> Path:
    """Where the output of a failed build is kept, beside the scratch folder that goes away."""
    return folder.with_name(folder.name.split(".building-")[0] + ".log")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"'{' '.join(command)}' fails: {error}") from error


def _say(line: str) -> None:
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        print(line, file=sys.stderr, flush=True)
