"""Compiles the kernels with ninja when they are first used, once per machine, and loads them.

Importing this file has no effect. A finished library is stored in a cache folder, in a subfolder whose name is a hash
of everything that the library depends on. It is built in a scratch folder and moved into place under a lock of the
operating system: a killed build does not disturb the next one, and no process waits for one that has ended.

With STYLEGAN_OPS=auto (the default), the reference in plain PyTorch replaces kernels that are not available, and a line
says why. "ref" never compiles; "strict" raises BuildError instead. STYLEGAN_OPS_CACHE moves the cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ops import BuildError, cache, mode, toolchain

CSRC = Path(__file__).parent / "csrc"
# The kernels use the stable ABI of this version of PyTorch, 2.10, and work with every later one.
TARGET_VERSION = "0x020a000000000000"
_ONE_AT_A_TIME = threading.RLock()


# Which kernels are available


def available(device_type: str) -> bool:
    """Whether the kernels can be used on "cpu" or "cuda". The first call builds or loads them, and prints what is used.

    Raises BuildError if they cannot and STYLEGAN_OPS is "strict".
    """
    with _ONE_AT_A_TIME:  # several threads may call an op for the first time
        return _settled(device_type, mode())


# As torch.compiler.assume_constant_result does, without importing the compiler, which takes a second and 70 MB.
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
    """Build or load the kernels of a device, once; the reason why they are not available, or "" if they are."""
    try:
        _load(find_or_build(device_type))
    except BuildError as error:
        return str(error)
    return ""


def describe(device_type: str) -> str:
    """The kernels of a device in a few words: "cpu kernels (avx512, 2 threads)" or "cuda kernels sm_90"."""
    if device_type == "cuda":
        return f"cuda kernels {toolchain.cuda_arch()}"
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return f"cpu kernels ({capability}, {torch.get_num_threads()} threads)"


# Finding the library, or building it


def find_or_build(device_type: str) -> Path:
    """The path of the compiled library. Raises BuildError if it is missing and cannot be built."""
    found = sources(device_type)
    if not found:
        raise BuildError(f"there are no kernels for {device_type}")
    key, name = _key(device_type, found), f"{_name(device_type)}.so"
    folders = cache.folders()
    for root in folders:
        if _is_there(root / key / name):
            return root / key / name
    root = cache.writable(folders)
    with cache.locked(root / f"{key}.lock", _say):
        if not _is_there(root / key / name):  # another process may have built it in the meantime
            _build(device_type, found, root / key)
    return root / key / name


def _is_there(library: Path) -> bool:
    """Whether a library is there and has its full length: loading one that was cut short would end the process."""
    return library.exists() and cache.is_whole(library)


def sources(device_type: str) -> list[Path]:
    """The files to compile for a device; empty if it has no kernels."""
    return sorted((CSRC / device_type).glob("*.cu" if device_type == "cuda" else "*.cpp"))


def _name(device_type: str) -> str:
    return f"stylegan_ops_{device_type}"


def _key(device_type: str, files: list[Path]) -> str:
    """A folder name that changes whenever the compiled library would change."""
    seen = hashlib.sha256()
    headers = sorted(path for folder in (CSRC, CSRC / device_type) for path in folder.glob("*.*h"))  # .h and .cuh
    for path in [*files, *headers]:
        seen.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for text in [*toolchain.traits(device_type), TARGET_VERSION]:
        seen.update(text.encode() + b"\0")
    return f"{device_type}-{sysconfig.get_platform()}-{seen.hexdigest()[:20]}"


def _build(device_type: str, files: list[Path], target: Path) -> None:
    """Compile in a scratch folder next to `target`, then rename it to `target`. Raises BuildError.

    The caller holds the lock, so older scratch folders were left by killed builds.
    """
    begun = time.monotonic()
    _say(f"ops: compiling {len(files)} {device_type} files; this takes some seconds, once")
    try:
        for left in target.parent.glob(f"{target.name}{cache.SCRATCH}*"):
            # As far as possible: the compilers of a killed build may still be writing to it.
            shutil.rmtree(left, ignore_errors=True)
        # The name must be new: PyTorch remembers in which folders it has built, and waits forever for the `lock` file
        # that a killed build has left there.
        scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}{cache.SCRATCH}", dir=target.parent))
        try:
            _compile(device_type, files, scratch, target.with_name(f"{target.name}.log"))
            shutil.rmtree(target, ignore_errors=True)
            scratch.chmod(0o755)  # a cache may serve several users
            os.replace(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise BuildError(f"cannot write to {target.parent}: {error.strerror}; free some space there") from error
    _say(f"ops: compiled in {time.monotonic() - begun:.1f} s into {target}")


def _compile(device_type: str, files: list[Path], scratch: Path, log: Path) -> None:
    """Let PyTorch write the ninja file and run it. Raises BuildError with the compiler's first error message."""
    changes = {
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), toolchain.ninja_folder()]),
        "LC_ALL": "C",  # `complaint` searches for the English words
        "TORCH_DONT_CHECK_COMPILER_ABI": "1",  # with the stable ABI, PyTorch may have been built by any compiler
    }
    if device_type == "cuda":
        changes["CUDA_HOME"] = str(toolchain.cuda_home())
    common, for_cuda = [f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"], []
    with _environment(changes):
        cpp_extension = _cpp_extension()
        if device_type == "cuda":
            for_cuda = [*common, *toolchain.cuda_flags(), *toolchain.cuda_arch_flags()]
            # It reads the environment when it is imported, which may have been earlier.
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
        except (RuntimeError, OSError, ValueError) as error:  # ValueError for a GPU that PyTorch does not know
            log.write_text(_reason(error))
            raise BuildError(f"compiling failed: {complaint(_reason(error))}; all of it is in {log}") from error
    # PyTorch adds a version number to the name if the process has already built a library.
    (built,) = scratch.glob(f"{_name(device_type)}*.so")
    built.rename(scratch / f"{_name(device_type)}.so")
    (scratch / "lock").unlink(missing_ok=True)  # PyTorch leaves it from version 2.14 on
    log.unlink(missing_ok=True)


def _cpp_extension() -> Any:
    """torch.utils.cpp_extension, imported here because it takes half a second and only a build needs it.

    Without its warning that PyTorch was built for CUDA and there is no GPU, which does not matter to CPU kernels.
    """
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from torch.utils import cpp_extension
    finally:
        logger.setLevel(before)
    return cpp_extension


def complaint(text: str) -> str:
    """The first error in the output of a compiler or linker, shortened; the last line if no line is an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    is_error = re.compile(r"\b(error|fatal)\s*:|\berror [A-Z]+\d|undefined reference|cannot find").search
    errors = filter(is_error, lines)
    return f"{next(errors, lines[-1] if lines else 'it gave no reason'):.200}"


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables temporarily."""
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
    """Load a library into PyTorch. Raises BuildError if it is damaged."""
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise BuildError(
            f"cannot load {library} ({_reason(error)}); delete {library.parent} and it will be compiled again"
        ) from error


def _reason(error: Exception) -> str:
    """The message of an error; of PyTorch's errors that of their cause, which is the message of the system's loader."""
    return str(error.__cause__ if isinstance(error.__cause__, OSError) else error)


# Messages


@functools.cache
def _announce(line: str) -> None:
    """Print a line unless this process has already printed it."""
    _say(line)


def _say(line: str) -> None:
    """Print a line for the user, once per machine. Characters that could control the terminal become escapes."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr, flush=True)
