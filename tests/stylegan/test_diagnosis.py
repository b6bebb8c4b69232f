"""The checks of Python, PyTorch, GPU, threads, memory and disk, on good machines and on bad ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from stylegan import diagnosis

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("version, state", [("2.9.1", "broken"), ("2.10.0+cu130", "ok"), ("3.0.0a0+git1", "ok")])
def test_the_version_of_torch(version, state, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    assert diagnosis.check_torch().state == state


def test_the_version_of_python(monkeypatch):
    assert diagnosis.check_python().state == "ok"
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert diagnosis.check_python().state == "broken"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 580.65\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_gpu_that_this_torch_cannot_use(driver, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    found = diagnosis.check_gpu()
    assert found.state == "note" and "driver 580.65" in found.text and "pip install" in found.cure
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert diagnosis.check_gpu().state == "broken"


def test_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for version in (None, "13.0"):
        monkeypatch.setattr(torch.version, "cuda", version)
        assert diagnosis.check_gpu().state == "ok"


@pytest.mark.parametrize("archs, state", [(["sm_80", "sm_90"], "ok"), (["sm_75"], "broken")])
def test_a_gpu_for_which_torch_may_have_no_code(archs, state, driver, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, answer in {"is_available": True, "get_device_capability": (8, 6), "get_device_name": "GPU",
                         "get_arch_list": archs}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    found = diagnosis.check_gpu()
    assert found.state == state and "GPU, sm_86, driver 580.65" in found.text


def test_threads(monkeypatch):
    monkeypatch.setattr(diagnosis, "usable_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert diagnosis.check_threads().state == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert diagnosis.check_threads().state == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = diagnosis.check_threads()
    assert (found.state, found.cure) == ("note", "unset OMP_NUM_THREADS") and "may use 4 cores" in found.text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc")
def test_memory_of_this_machine():
    found = diagnosis.check_memory()
    assert found.state == "ok" and "when freed memory is kept" in found.text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc")
def test_memory_that_is_not_kept(monkeypatch):
    monkeypatch.setattr(diagnosis, "allocation_cost", lambda kept: diagnosis.AllocationCost(50.0, 16384.0))
    monkeypatch.setattr(diagnosis, "preloaded_allocator", lambda: "jemalloc")
    found = diagnosis.check_memory()
    assert found.state == "note" and found.text.startswith("jemalloc, preloaded: ") and "LD_PRELOAD" in found.cure

    def fail(kept: bool) -> None:
        raise subprocess.CalledProcessError(1, "python")

    monkeypatch.setattr(diagnosis, "allocation_cost", fail)
    assert diagnosis.check_memory().state == "broken"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has LD_PRELOAD")
def test_a_preloaded_allocator_is_detected(tmp_path):
    library = tmp_path / "libtcmalloc_minimal.so.4"
    subprocess.run(["cc", "-shared", "-x", "c", os.devnull, "-o", str(library)], check=True)
    command = [sys.executable, "-c", "from stylegan.diagnosis import preloaded_allocator; print(preloaded_allocator())"]
    for preload, expected in {"": "", str(library): "tcmalloc"}.items():
        variables = os.environ | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": preload}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda path: Usage(10e9, 0, 2e9))
    assert [found.state for found in diagnosis.check_disk([tmp_path, tmp_path / "not" / "yet"])] == ["ok", "ok"]
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda path: Usage(10e9, 0, 1e6))
    (found,) = diagnosis.check_disk([tmp_path / "missing"])
    assert (found.state, found.cure) == ("note", f"df -h {tmp_path}")
