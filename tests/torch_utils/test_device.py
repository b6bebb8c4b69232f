"""Devices, memory and CPU threads."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from torch_utils.device import (
    GENERATING,
    THREADS_PER_CORE,
    TRAINING,
    GpuMath,
    collected,
    cpu_threads,
    fast_bf16,
    gpu_math,
    peak_memory_mb,
    pick_device,
    require_memory,
    sent,
    set_gpu_math,
    single_thread_workers,
    total_memory,
    usable_cores,
    without_contents,
)  # fmt: skip
from torch_utils.errors import UserError


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu cuda"])
def test_what_is_no_device(name):
    with pytest.raises(UserError, match="--device"):
        pick_device(name)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0").index == 0
    with pytest.raises(UserError, match="torch sees 1 GPU"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="--device cpu"):
        pick_device("cuda")


@pytest.mark.parametrize("capability, fast", [((7, 0), False), ((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_bf16_that_a_gpu_only_emulates_is_not_fast(capability, fast, monkeypatch):
    """PyTorch says that Volta and Turing support it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fast_bf16(torch.device("cuda")) == fast


def test_bf16_on_a_cpu_is_a_question_of_its_instructions(monkeypatch):
    for avx, amx in [(False, False), (True, False), (False, True)]:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=avx: found)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=amx: found)
        assert fast_bf16(torch.device("cpu")) == (avx or amx)


def test_peak_memory_grows_with_use():
    before = peak_memory_mb(torch.device("cpu"))
    block = torch.ones(int(before + 100) * 250_000)  # 4 bytes each: 100 MB more than there ever was
    assert peak_memory_mb(torch.device("cpu")) > before + 50
    assert block.numel()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of glibc")
def test_freed_memory_is_kept_and_not_faulted_in_again():
    code = """
import resource, torch
from torch_utils.device import keep_freed_memory
keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): torch.ones(16 << 20).sum()  # until the heap has settled
before = faults()
for _ in range(5): torch.ones(16 << 20).sum()
print(faults() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 5 * 16384 / 2  # pages of 5 tensors of 64 MiB, half of them at most


def test_as_many_as_asked_or_as_the_variable_says_or_as_there_are_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cpu_threads(3) == 3 and cpu_threads() == 5
    for nothing_said in ("", "2,1"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing_said)
        assert cpu_threads() == usable_cores()


@pytest.mark.parametrize("name", ["meta", "hip", "xla", "privateuseone"])
def test_a_device_that_computes_nothing_is_refused(name):
    with pytest.raises(UserError, match=f"--device {name} is not available"):
        pick_device(name)


def test_threads_are_bounded_by_the_cores(monkeypatch):
    most = THREADS_PER_CORE * usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert cpu_threads(most) == cpu_threads() == most
    with pytest.raises(UserError, match=f"--threads {most + 1} is too many for .* at most {most}"):
        cpu_threads(most + 1)


def test_what_does_not_fit_into_memory_is_refused():
    require_memory(total_memory() / 2, "it")
    with pytest.raises(UserError, match="x.pt needs .* GiB of memory, but this machine has"):
        require_memory(total_memory() + 1, "x.pt")


def test_a_container_may_use_fewer_cores_than_it_sees(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for limit, cores in {"150000 100000": 2, "max 100000": 8, "5000 100000": 1, "": 8}.items():
        monkeypatch.setattr(Path, "read_text", lambda path, limit=limit: limit)
        assert usable_cores() == cores


def test_workers_compute_on_one_thread_each_and_the_caller_keeps_its_number():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with single_thread_workers(3) as run:
            assert list(run(lambda i: (i, torch.get_num_threads()), range(5))) == [(i, 1) for i in range(5)]
        assert torch.get_num_threads() == 2
        with single_thread_workers(1) as run, pytest.raises(ZeroDivisionError):
            list(run(lambda i: 1 // i, [1, 0, 1]))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2, "later threads must not inherit the workers' 1"
    finally:
        torch.set_num_threads(before)


def test_networks_without_contents_have_shapes_and_cost_nothing():
    with without_contents():
        made = [torch.randn(3, 4), torch.rand(2), torch.zeros(5), torch.nn.Linear(10**9, 10**5).weight]
    assert [tuple(tensor.shape) for tensor in made] == [(3, 4), (2,), (5,), (10**5, 10**9)]
    assert all(tensor.is_meta for tensor in made) and not torch.randn(1).is_meta


def test_nothing_is_imported_to_draw_numbers_for_nothing():
    code = """
import sys
from stylegan.networks.registry import FAMILIES, build_discriminator, build_empty, build_generator
for family in FAMILIES.values():
    for build in (build_generator, build_discriminator):
        build_empty(build, family.config())
sys.exit("sympy" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


# How a GPU computes: flags of PyTorch, which are there without a GPU


@pytest.fixture
def flags():
    """() -> TF32 in convolutions and in products, deterministic, benchmark; as they were again after the test"""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul

    def now() -> tuple[bool, ...]:
        formats = {cudnn.allow_tf32 == (cudnn.conv.fp32_precision == "tf32"),
                   products.allow_tf32 == (products.fp32_precision == "tf32")}  # fmt: skip
        assert formats == {True}  # PyTorch's two interfaces agree, else its profiler would stop
        return cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark

    before = now()
    yield now
    cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def test_kernels_repeat_themselves_and_do_not_round_unless_asked(flags):
    for math, expected in (
        (GENERATING, (False, False, True, False)), (GpuMath(repeatable=False), (False, False, False, True)),
        (TRAINING, (False, False, True, False)), (GpuMath(tf32=True), (True, True, True, False)),
    ):  # fmt: skip
        set_gpu_math(math)
        assert flags() == expected


@pytest.mark.parametrize("before", [(True, False, False, False), (False, True, False, True)])
def test_what_was_chosen_before_is_chosen_again(flags, before):
    cudnn = torch.backends.cudnn
    cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
    with gpu_math(GENERATING, torch.device("cpu")):
        assert flags() == before
    with pytest.raises(KeyError), gpu_math(GpuMath(tf32=True), torch.device("cuda")):
        assert flags() == (True, True, True, False)
        raise KeyError
    assert flags() == before


def test_parts_are_put_one_after_the_other():
    asked = []

    def parts():
        for start in range(0, 5, 2):
            asked.append(start)
            yield torch.arange(start, min(start + 2, 5))[:, None].expand(-1, 3)

    into = torch.full((5, 3), -1)
    assert collected(parts(), into) is into and into[:, 1].tolist() == [0, 1, 2, 3, 4] and asked == [0, 2, 4]
    assert collected(iter(()), into) is into
    assert sent(into, torch.device("cpu")) is into
