"""Several processes that build at the same time, and processes that are killed while they build."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from ops import build, cache

ROOT = Path(__file__).parents[2]
# A process that uses the kernels; its argument is the folder of sources.
CHILD = "import pathlib, sys; from ops import build; build.CSRC = pathlib.Path(sys.argv[1]); build.available('cpu')"
pytestmark = pytest.mark.usefixtures("stand_in")


def start(environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(build.CSRC)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | (environment or {})
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables, start_new_session=True)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def slow_compiler(tmp_path: Path) -> str:
    """A compiler that creates a file `compiling` next to itself, and continues as soon as the file `go` exists."""
    script = tmp_path / "slow-c++"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *" -c "*) touch "${0%/*}/compiling"\n'
        'while [ ! -e "${0%/*}/go" ]; do sleep 0.1; done;; esac\nexec c++ "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def test_one_process_builds_and_the_others_wait_and_say_for_which(stand_in, slow_compiler, tmp_path):
    first = start({"CXX": slow_compiler})
    wait_for((tmp_path / "compiling").exists)
    others = [start({"CXX": slow_compiler}) for _ in range(3)]
    waiting = others[0].stderr.readline()
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60)[1] for process in [first, *others]]
    assert f"ops: waiting for process {first.pid} on " in waiting and waiting.endswith(
        "compiling the kernels, for 1 s\n"
    )
    assert "compiling 1 cpu files" in outputs[0]
    assert all("compiling 1 cpu" not in text and "ops: cpu kernels" in text for text in outputs[1:]), outputs
    assert [process.returncode for process in [first, *others]] == [0] * 4
    assert len(list(stand_in.glob("*/stylegan_ops_cpu.so"))) == 1 and not list(stand_in.glob(f"*{cache.SCRATCH}*"))


@pytest.mark.parametrize("whole_group", [True, False])
def test_after_a_kill_the_next_one_just_builds(whole_group, stand_in, slow_compiler, tmp_path):
    """The compilers are killed as well, or they continue to write to the scratch folder."""
    killed = start({"CXX": slow_compiler})
    wait_for((tmp_path / "compiling").exists)
    (os.killpg if whole_group else os.kill)(killed.pid, signal.SIGKILL)
    killed.wait()
    left = cache.leftovers(stand_in)
    assert {found.path.name.rpartition(".")[2][:5] for found in left} == {"build", "owner"}
    (tmp_path / "go").touch()
    after = start({"CXX": slow_compiler})
    output = after.communicate(timeout=60)[1]
    assert after.returncode == 0 and "waiting" not in output and "ops: cpu kernels" in output
    assert cache.leftovers(stand_in) == []
    with contextlib.suppress(ProcessLookupError):  # orphaned compilers have seen `go`, and end soon
        os.killpg(killed.pid, signal.SIGKILL)


def test_a_lock_that_is_held_by_children_of_a_killed_process_is_explained(stand_in):
    stand_in.mkdir()
    lock = stand_in / "x.lock"
    with FileLock(lock):  # as a child process would hold it
        dead = subprocess.Popen(["true"])
        dead.wait()
        lock.with_suffix(".owner").write_text(f"process {dead.pid} on {os.uname().nodename}")
        lines: list[str] = []
        waiter = threading.Thread(target=take, args=(lock, lines.append))
        waiter.start()
        wait_for(lambda: lines)
        assert [found.what for found in cache.leftovers(stand_in)] == ["lock held by child processes of a killed build"]
        lock.unlink()  # as the line recommends
        waiter.join(10)
    assert not waiter.is_alive() and "which is gone" in lines[0] and str(lock) in lines[0]


def take(lock: Path, say: Callable[[str], None]) -> None:
    with cache.locked(lock, say):
        pass
