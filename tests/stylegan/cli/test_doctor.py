"""doctor.py on this machine, and on machines with problems."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from ops import build, cache, selftest
from ops.selftest import Case, interleaved
from stylegan import diagnosis
from stylegan.cli import doctor
from stylegan.diagnosis import Finding

DOUBLE = Case("double", lambda x: [x], lambda t, impl: t[0] * 2, linear=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty cache, kernels that need no build, and no processes that measure memory."""
    monkeypatch.setattr(diagnosis, "CASES", (DOUBLE,))
    monkeypatch.setattr(diagnosis, "allocation_cost", lambda kept: diagnosis.AllocationCost(10.0, 0.0))
    monkeypatch.setattr(build, "why_not", lambda device: "")
    monkeypatch.setattr(cache, "folders", lambda: [tmp_path / "cache"])
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path))
    for variable in ("STYLEGAN_OPS", "CXX", "OMP_NUM_THREADS", "CUDA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def ask(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the report."""
    result = CliRunner().invoke(doctor.main, ["--json", "--device", "cpu", *arguments])
    return result.exit_code, json.loads(result.stdout)


def named(report: dict[str, Any], name: str) -> list[Finding]:
    return [Finding(**found) for found in report["findings"] if found["name"] == name]


def test_without_problems():
    code, report = ask()
    assert (code, report["broken"]) == (0, False)
    checks = "python torch gpu threads memory disk compiler ninja nvcc cache kernels double"
    assert {found["name"] for found in report["findings"]} == set(checks.split())
    assert set(report["milliseconds"]["double"]) == {"kernel", "reference"}


def test_the_table():
    lines = CliRunner().invoke(doctor.main, ["--device", "cpu"]).stdout.splitlines()
    assert lines[0].split() == ["python", "ok", platform.python_version()]
    assert lines[-1] == "Nothing to do." or "What to do:" in lines


def test_the_real_kernels(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(diagnosis, "allocation_cost", lambda kept: diagnosis.AllocationCost(10.0, 0.0))
    monkeypatch.setattr(selftest, "interleaved", lambda both, device, seconds: interleaved(both, device, seconds=0))
    code, report = ask()
    assert code == int(report["broken"])
    (kernels,) = named(report, "kernels")
    for name in {case.name for case in diagnosis.CASES}:
        assert [found.state for found in named(report, name)] == (["ok"] if kernels.state == "ok" else [])


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "why_not", lambda device: "no C++ compiler found: and so on")
    code, report = ask()
    assert code == 1
    (compiler,), (kernels,) = named(report, "compiler"), named(report, "kernels")
    assert (compiler.state, compiler.cure) == ("broken", "sudo apt-get install g++")
    assert kernels.state == "broken" and "no C++ compiler found" in kernels.text
    assert not report["milliseconds"]


def test_each_problem_has_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(doctor.main, ["--device", "cpu"])
    lines = result.stdout.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("compiler: no C++ compiler found"))
    assert result.exit_code == 1 and lines[begin + 1] == "    sudo apt-get install g++"


def test_kernels_switched_off(monkeypatch):
    monkeypatch.setenv("STYLEGAN_OPS", "ref")
    code, report = ask()
    (kernels,) = named(report, "kernels")
    assert (code, kernels.state, kernels.cure) == (0, "note", "unset STYLEGAN_OPS")
    monkeypatch.setenv("STYLEGAN_OPS", "fast")
    code, report = ask()
    assert code == 1 and "STYLEGAN_OPS must be one of auto, ref, strict, got fast" in named(report, "kernels")[0].text


def test_a_device_that_has_no_kernels(monkeypatch):
    monkeypatch.setattr(build, "sources", lambda device: [])
    code, report = ask()
    assert code == 0 and named(report, "kernels")[0].state == "note"


def test_a_kernel_that_computes_something_else(monkeypatch):
    def run(tensors: list[torch.Tensor], impl: str) -> torch.Tensor:
        if impl == "ref":
            return tensors[0] * 2
        if tensors[0].dtype == torch.bfloat16:
            raise NotImplementedError("no bfloat16\nhere")
        return tensors[0] * 2.001

    monkeypatch.setattr(diagnosis, "CASES", (Case("double", lambda x: [x], run),))
    code, report = ask()
    (found,) = named(report, "double")
    assert code == 1 and found.state == "broken" and found.cure == "export STYLEGAN_OPS=ref"
    assert found.text.startswith("fp32 contiguous: the value at [2, 16, 16, 16] is off by ")
    monkeypatch.setattr("ops.selftest.DTYPES", {"bf16": torch.bfloat16})
    assert named(ask()[1], "double")[0].text == "bf16 contiguous: no bfloat16; bf16 channels_last: no bfloat16"


def test_leftovers_of_broken_builds_are_found_and_removed(tmp_path):
    folder = tmp_path / "cache"
    for name in ("cpu-1", f"cpu-2{cache.SCRATCH}x", "cpu-3"):
        (folder / name).mkdir(parents=True)
    (folder / "cpu-1" / "stylegan_ops_cpu.so").write_bytes(b"\x7fELF cut off")
    (folder / "cpu-2.owner").write_text("process 1 on elsewhere")
    (folder / "cpu-4.log").write_text("error: no")
    code, report = ask()
    found = {Path(found.text.split(": ")[1]).name: found for found in named(report, "cache")}
    assert code == 1 and {name: x.state for name, x in found.items()} == {
        "cpu-1": "broken",
        f"cpu-2{cache.SCRATCH}x": "note",
        "cpu-2.owner": "note",
        "cpu-3": "note",
        "cpu-4.log": "note",
    }
    assert {x.cure for x in found.values()} == {"python doctor.py --fix"}
    code, report = ask("--fix")
    assert code == 0 and len(named(report, "fix")) == 5 and list(folder.iterdir()) == []
    assert [x.state for x in named(report, "cache")] == ["ok"]


def test_leftovers_that_cannot_be_removed(tmp_path, monkeypatch):
    (tmp_path / "cache" / "cpu-1").mkdir(parents=True)

    def refuse(path: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(cache, "remove", refuse)
    code, report = ask("--fix")
    assert code == 1 and "Operation not permitted" in named(report, "fix")[0].text


def test_a_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "folders", lambda: [tmp_path / "file" / "cache"])
    code, report = ask()
    assert code == 1 and "nowhere to keep the compiled kernels" in named(report, "cache")[-1].text


def test_an_nvcc_of_another_version(tmp_path, monkeypatch):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 11.8, V11.8.89'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert named(ask()[1], "nvcc")[0].state == "ok"  # without a GPU the version does not matter
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(diagnosis, "check_gpu", lambda: Finding("gpu", "ok", "one"))
    code, report = ask()
    (found,) = named(report, "nvcc")
    assert code == 1 and "nvcc is of CUDA 11.8 but torch of CUDA 13.0" in found.text
    assert found.cure == "sudo apt-get install cuda-toolkit-13-0"


def test_a_device_that_is_not_there():
    result = CliRunner().invoke(doctor.main, ["--device", "cuda:99"])
    assert result.exit_code == 2 and "--device cuda:99" in result.output
