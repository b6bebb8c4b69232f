"""Compiles the kernels with ninja at their first use, once per machine, and loads them.

Nothing happens at import. A finished library lies in a cache folder whose name is a hash of all that it depends on. It
is built in a scratch folder and renamed into place under an operating system lock, so that a killed build leaves
nothing that the next one could trip over, and nobody waits for a process that is no longer there.

STYLEGAN_OPS chooses: "auto" (the default) falls back on the reference in plain PyTorch and says why; "ref" never
compiles; "strict" raises BuildError where "auto" would fall back. STYLEGAN_OPS_CACHE moves the cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from ops import BuildError, cache, mode, toolchain

CSRC = Path(__file__).parent / "csrc"
# The oldest torch whose stable ABI the kernels use; a library built so is good for every later one.
TARGET_VERSION = "0x020a000000000000"
_ONE_AT_A_TIME = threading.RLock()


def available(device_type: str) -> bool:
    """Can the kernels be used on "cpu" or "cuda"? The first call builds or loads them and says in a line what is used.

    Raises BuildError if not and STYLEGAN_OPS is "strict".
    """
    with _ONE_AT_A_TIME:  # pictures are drawn in several threads, and each of them could be the first
        return _settled(device_type, mode())


# What torch.compiler.assume_constant_result does, but for the import of the whole compiler: 70 MB and a second.
setattr(available, "_dynamo_marked_constant", True)  # noqa: B010


@functools.cache
def _settled(device_type: str, chosen: str) -> bool:
    if chosen == "ref":
        _announce("ops: reference (STYLEGAN_OPS=ref)")
        return False
    problem = why_not(device_type)
    if problem and chosen == "strict":
        raise BuildError(problem)
    _announce(f"ops: reference ({problem})" if problem else f"ops: {describe(device_type)}")
    return not problem


@functools.cache
def why_not(device_type: str) -> str:
    """Build or load the kernels of a device, if not tried before; why they cannot be had, or "" if they can."""
    try:
        _load(find_or_build(device_type))
    except BuildError as error:
        return str(error)
    return ""


def describe(device_type: str) -> str:
    """What the kernels of a device are: "cpu kernels (avx512, 2 threads)" or "cuda kernels sm_90"."""
    if device_type == "cuda":
        return f"cuda kernels {toolchain.cuda_arch()}"
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return f"cpu kernels ({capability}, {torch.get_num_threads()} threads)"


def find_or_build(device_type: str) -> Path:
    """The path of the compiled library. Raises BuildError if there is none and none can be made."""
    found = sources(device_type)
    if not found:
        raise BuildError(f"there are no kernels for {device_type}")
    key, name = _key(device_type, found), f"{_name(device_type)}.so"
    folders = cache.folders()
    for root in folders:
        if (root / key / name).exists():
            return root / key / name
    root = cache.writable(folders)
    with cache.locked(root / f"{key}.lock", _say):
        if not (root / key / name).exists():  # another process may have built it while this one waited
            _build(device_type, found, root / key)
    return root / key / name


def sources(device_type: str) -> list[Path]:
    """What is compiled for a device; nothing if there are no kernels for it."""
    return sorted((CSRC / device_type).glob("*.cu" if device_type == "cuda" else "*.cpp"))


def _name(device_type: str) -> str:
    return f"stylegan_ops_{device_type}"


def _key(device_type: str, files: list[Path]) -> str:
    """A folder name that changes whenever the compiled library would."""
    seen = hashlib.sha256()
    headers = sorted(path for folder in (CSRC, CSRC / device_type) for path in folder.glob("*.*h"))  # .h and .cuh
    for path in [*files, *headers]:
        seen.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for text in [*toolchain.traits(device_type), TARGET_VERSION]:
        seen.update(text.encode() + b"\0")
    return f"{device_type}-{sysconfig.get_platform()}-{seen.hexdigest()[:20]}"


def _build(device_type: str, files: list[Path], target: Path) -> None:
    """Compile in a scratch folder beside `target`, then rename. Called under the lock: older scratch is from the dead.

    Raises BuildError.
    """
    begun = time.monotonic()
    _say(f"ops: compiling {len(files)} {device_type} files, once; this takes some seconds")
    try:
        for left in target.parent.glob(f"{target.name}{cache.SCRATCH}*"):
            _discard(left)
        # A name that was never there before: PyTorch remembers in which folders it has built, and waits for ever for
        # the `lock` file that a killed build of its own leaves behind.
        scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}{cache.SCRATCH}", dir=target.parent))
        try:
            _compile(device_type, files, scratch, target.with_name(f"{target.name}.log"))
            _discard(target)
            scratch.chmod(0o755)  # a cache may serve several users
            os.replace(scratch, target)
        finally:
            _discard(scratch)
    except OSError as error:
        raise BuildError(f"cannot write to {target.parent}: {error.strerror}; make room there") from error
    _say(f"ops: compiled in {time.monotonic() - begun:.1f} s into {target}")


def _discard(folder: Path) -> None:
    """As far as it goes: the compilers of a killed build may still be writing there."""
    try:
        cache.remove(folder)
    except OSError:
        return


def _compile(device_type: str, files: list[Path], scratch: Path, log: Path) -> None:
    """Let PyTorch write the ninja file and run it. Raises BuildError with the compiler's own first complaint."""
    changes = {
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), toolchain.ninja_folder()]),
        "LC_ALL": "C",  # the complaint is found by the English word for it
        "TORCH_DONT_CHECK_COMPILER_ABI": "1",  # with the stable ABI it does not matter which compiler made PyTorch
    }
    if device_type == "cuda":
        changes["CUDA_HOME"] = str(toolchain.cuda_home())
    common, for_cuda = [f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"], []
    with _environment(changes):
        with _quiet(device_type == "cpu"):
            from torch.utils import cpp_extension  # half a second, and only needed here

        if device_type == "cuda":
            for_cuda = [*common, *toolchain.cuda_flags(), *toolchain.cuda_arch_flags()]
            # It has read the environment when it was imported, which may have been before.
            cpp_extension.CUDA_HOME = changes["CUDA_HOME"]
        try:
            cpp_extension.load(
                _name(device_type),
                [str(path) for path in files],
                extra_cflags=[*common, *toolchain.cpu_flags()],
                extra_cuda_cflags=for_cuda,
                build_directory=str(scratch),
                is_python_module=False,
                verbose=False,
            )
        except (RuntimeError, OSError, ValueError) as error:  # the last for a GPU that PyTorch does not know
            log.write_text(_reason(error))
            raise BuildError(f"compiling failed: {complaint(_reason(error))}; all of it is in {log}") from error
    # In a process that has built before, PyTorch adds a version number to the name.
    (built,) = scratch.glob(f"{_name(device_type)}*.so")
    built.rename(scratch / f"{_name(device_type)}.so")
    (scratch / "lock").unlink(missing_ok=True)  # from 2.14 on PyTorch leaves its own behind
    log.unlink(missing_ok=True)


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """A PyTorch made for CUDA warns that there is no GPU, which is no news where kernels for the CPU are compiled."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level
    if quiet:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def complaint(text: str) -> str:
    """The first line in a compiler's or linker's output that is an error, shortened; the last line if none is."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = (
        line
        for line in lines
        if re.search(r"\b(error|fatal)\s*:|\berror [A-Z]+\d|undefined reference|cannot find", line)
    )
    return f"{next(errors, lines[-1] if lines else 'no word of why'):.200}"


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _load(library: Path) -> None:
    """Raises BuildError if the library is damaged."""
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise BuildError(
            f"cannot load {library} ({_reason(error)}); delete {library.parent} to have it built anew"
        ) from error


def _reason(error: Exception) -> str:
    """PyTorch says which library could not be loaded, and keeps the loader's own words for the cause."""
    return str(error.__cause__ if isinstance(error.__cause__, OSError) else error)


@functools.cache
def _announce(line: str) -> None:
    _say(line)


def _say(line: str) -> None:
    """To the user, from one process per machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
