"""The emulation of CUDA threads detects the faults of faulty.cpp."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ops import build, toolchain

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulation of CUDA threads needs Linux's ucontext")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("faulty") / "faulty.so"
    source = Path(__file__).with_name("faulty.cpp")
    flags = ["-shared", "-fPIC", "-std=c++20", "-U_FORTIFY_SOURCE", f"-I{build.CSRC / 'cuda'}"]
    subprocess.run([toolchain.compiler(), *flags, source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def shifted(faulty: ctypes.CDLL, wait: bool) -> np.ndarray:
    out = np.full(256, -1, np.int32)
    faulty.shift(out.ctypes.data_as(ctypes.c_void_p), ctypes.c_bool(wait))
    return out


def test_barriers_and_shuffles_work(faulty):
    blocks = np.arange(256, dtype=np.int32).reshape(4, 64)
    for _ in range(3):
        assert np.array_equal(shifted(faulty, True), np.roll(blocks, -1, axis=1).ravel())
    sums = np.empty(64, np.float32)
    faulty.warp_sums(sums.ctypes.data_as(ctypes.c_void_p))
    assert sums.tolist() == [sum(range(32))] * 32 + [sum(range(32, 64))] * 32


def test_a_missing_barrier_is_detected(faulty):
    assert not np.array_equal(shifted(faulty, False), shifted(faulty, False))


def test_a_barrier_for_half_of_the_threads_is_an_error(faulty):
    faulty.half_of_a_barrier.restype = ctypes.c_bool
    assert faulty.half_of_a_barrier()
    test_barriers_and_shuffles_work(faulty)  # and later launches still work
