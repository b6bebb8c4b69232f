"""The build of the kernels in one process: its files, when it is repeated, and the values of STYLEGAN_OPS."""

from __future__ import annotations

import ctypes
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from ops import BuildError, autograd, build, cache, mode, toolchain

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("stand_in")


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def key() -> str:
    return build._key("cpu", sorted((build.CSRC / "cpu").glob("*.cpp")))


def test_a_build_makes_a_library_and_nothing_else_and_the_next_one_finds_it(stand_in, capfd):
    library = build.find_or_build("cpu")
    assert answer(library) == 42
    said = capfd.readouterr().err
    assert "ops: compiling 1 cpu files" in said and f"into {library.parent}" in said
    assert {path.name for path in stand_in.iterdir()} == {library.parent.name, f"{library.parent.name}.lock"}
    assert build.find_or_build("cpu") == library
    assert capfd.readouterr().err == ""
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o755


def test_a_process_may_build_twice():
    """PyTorch counts the builds of a process, and adds the number to the library's name."""
    first = build.find_or_build("cpu")
    (build.CSRC / "answer.h").write_text("#define ANSWER 43\n")
    second = build.find_or_build("cpu")
    assert first.parent != second.parent and first.name == second.name
    assert (answer(first), answer(second)) == (42, 43)


def test_a_lock_that_pytorch_left_in_a_killed_build_is_ignored(stand_in):
    """PyTorch up to 2.13 waits forever if it finds a file `lock` in its build folder."""
    target = stand_in / key()
    for left in (target, target.with_name(f"{target.name}{cache.SCRATCH}1")):
        left.mkdir(parents=True)
        (left / "lock").touch()
    assert answer(build.find_or_build("cpu")) == 42
    assert not (target / "lock").exists() and not list(stand_in.glob(f"*{cache.SCRATCH}*"))


def test_a_stale_lock_is_ignored(stand_in, capfd):
    stand_in.mkdir()
    (stand_in / f"{key()}.lock").touch()
    (stand_in / f"{key()}.owner").write_text("process 999999999 on elsewhere")
    assert answer(build.find_or_build("cpu")) == 42
    assert "waiting" not in capfd.readouterr().err
    assert not list(stand_in.glob("*.owner"))


def test_the_key_changes_with_everything_that_the_library_depends_on(monkeypatch, tmp_path):
    seen = [key()]
    (build.CSRC / "cpu" / "answer.cpp").write_text("// changed\n")
    seen.append(key())
    (build.CSRC / "answer.h").write_text("#define ANSWER 44\n")
    seen.append(key())
    (build.CSRC / "cpu" / "more.h").write_text("")
    seen.append(key())
    monkeypatch.setattr(toolchain, "cpu_flags", lambda: ["-O1"])
    seen.append(key())
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    seen.append(key())
    monkeypatch.setattr(torch.version, "cuda", "99.0")
    seen.append(key())
    monkeypatch.setattr(toolchain, "processor", lambda: "another")
    seen.append(key())
    other = tmp_path / "c++"
    other.write_text("#!/bin/sh\necho another compiler\n")
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    seen.append(key())
    assert len(set(seen)) == len(seen) and key() == seen[-1]


def test_a_device_without_kernels():
    with pytest.raises(BuildError, match="no kernels for mps"):
        build.find_or_build("mps")


def test_auto_prints_once_what_is_used(capfd):
    assert build.available("cpu") and build.available("cpu")
    said = [line for line in capfd.readouterr().err.splitlines() if "compil" not in line]
    assert len(said) == 1 and said[0].startswith("ops: cpu kernels (") and said[0].endswith("threads)")


def test_auto_uses_the_reference_and_prints_why(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not build.available("cpu") and not build.available("cpu")
    said = capfd.readouterr().err
    assert said.startswith("ops: reference (no C++ compiler found: ") and said.count("\n") == 1


def test_several_threads_build_once(capfd):
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(build.available("cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4 and capfd.readouterr().err.count("ops: c") == 3  # compiling, compiled, cpu kernels


def test_only_the_first_rank_prints(monkeypatch, capfd):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert build.available("cpu")
    assert capfd.readouterr().err == ""


def test_ref_never_compiles(monkeypatch, stand_in, capfd):
    monkeypatch.setenv("STYLEGAN_OPS", "ref")
    assert not build.available("cpu") and not build.available("cuda")
    assert capfd.readouterr().err == "ops: reference (STYLEGAN_OPS=ref)\n"
    assert not stand_in.exists()


def test_strict_raises_where_auto_uses_the_reference(monkeypatch, tmp_path, forget):
    monkeypatch.setenv("STYLEGAN_OPS", "strict")
    assert build.available("cpu")
    forget()
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        with pytest.raises(BuildError, match="no C\\+\\+ compiler found"):
            build.available("cpu")


def test_an_unknown_value(monkeypatch):
    monkeypatch.setenv("STYLEGAN_OPS", "fast")
    with pytest.raises(BuildError, match="STYLEGAN_OPS must be one of auto, ref, strict, got fast"):
        build.available("cpu")
    monkeypatch.setenv("STYLEGAN_OPS", "")
    assert mode() == "auto"


def test_requiring_a_kernel_says_why_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLEGAN_OPS", "ref")
    with pytest.raises(BuildError, match="impl='cpu' needs the kernels, but STYLEGAN_OPS=ref disables them"):
        autograd.use_kernel("cpu", torch.zeros(1))
    monkeypatch.delenv("STYLEGAN_OPS")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="impl='cpu' needs the kernels: no C\\+\\+ compiler found"):
        autograd.use_kernel("cpu", torch.zeros(1))


def test_importing_the_ops_builds_nothing(tmp_path):
    """Nor does it need a compiler."""
    names = [f"ops.{path.stem}" for path in (ROOT / "ops").glob("*.py") if path.stem != "__init__"]
    code = f"import sys, {', '.join(names)}; assert 'torch.utils.cpp_extension' not in sys.modules"
    variables = {"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "home").exists()
