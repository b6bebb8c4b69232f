"""Gradients of real processes are added up while a backward pass is under way, and come out as if they had waited."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.torch_utils.processes import together
from torch_utils.distributed import SINGLE_PROCESS, DistContext, gradients
from torch_utils.distributed.gradients import GradientSums, buckets

LAYERS, WIDTH = 5, 6
FP32, BF16 = torch.float32, torch.bfloat16


class Net:
    """Layers in a row, a parameter of an earlier term, one that is frozen, and one that nothing uses."""

    def __init__(self, rank: int) -> None:
        draw = torch.Generator().manual_seed(7)
        self.layers = [torch.randn(WIDTH, WIDTH, generator=draw).requires_grad_() for _ in range(LAYERS)]
        self.early = torch.randn(3, 4, 2, 2, generator=draw).to(memory_format=torch.channels_last).requires_grad_()
        self.unused, self.frozen = torch.ones(9, requires_grad=True), torch.ones(())
        self.images = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(rank))

    @property
    def params(self) -> list[Tensor]:
        return [self.unused, *self.layers[::-1], self.frozen, self.early]

    def first_term(self, images: Tensor) -> Tensor:
        return (self.early.square().sum() + self.layers[0].sum()) * images.sum() / len(self.images)

    def last_term(self, images: Tensor) -> Tensor:
        """With a penalty, whose gradient is a gradient of a gradient."""
        images = images.clone().requires_grad_()
        x = images
        for weight in self.layers:
            x = torch.tanh(x @ weight)
        (slope,) = torch.autograd.grad(x.sum(), images, create_graph=True)
        return (x.sum() + slope.square().sum()) / len(self.images)

    def backward(self, sums: GradientSums, rounds: int = 1, declared: bool = True) -> None:
        for number, images in enumerate(self.images.chunk(rounds), 1):
            self.first_term(images).backward()
            if number < rounds or not declared:
                self.last_term(images).backward()
                continue
            with sums.last_backward():
                self.last_term(images).backward()

    def found(self) -> list[Tensor | None]:
        return [None if p.grad is None else p.grad.clone() for p in self.params]


def sums_of(dist: DistContext, net: Net, dtype: torch.dtype = FP32) -> GradientSums:
    gradients.BUCKET_NUMBERS = WIDTH * WIDTH + 10  # in this process: each layer has a bucket of its own
    return GradientSums(dist, "gradients of D", net.params, dtype)


def overlapped(dist: DistContext, folder: Path) -> dict[str, Any]:
    """Sums begun during the pass, and after it; what each process had by itself; and the buckets, as they were sent."""
    found: dict[str, Any] = {}
    for dtype in (FP32, BF16):
        for declared in (True, False):
            net = Net(dist.rank)
            sums = sums_of(dist, net, dtype)
            net.backward(sums, declared=declared)
            sent = sums.sent
            sums.finish()
            found[str(dtype), declared] = net.found()
            found["sent", declared] = sent, [len(flat) for flat in sums._sums]
    own = Net(dist.rank)
    own.backward(GradientSums(SINGLE_PROCESS, "", own.params))
    assert all(not p._post_accumulate_grad_hooks for p in net.params)
    return found | {"own": own.found()}


def same(one: list[Any], other: list[Any]) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_sums_begun_during_the_pass_are_those_begun_after_it(tmp_path) -> None:
    """To the last bit, of two processes; everything is on its way when the pass ends, and there are several buckets."""
    first, second = together(tmp_path, overlapped, 2)
    for dtype, tolerance in ((FP32, 0.0), (BF16, 0.03)):
        during, after = (first[str(dtype), declared] for declared in (True, False))
        assert same(during, after) and same(during, second[str(dtype), True])
        for summed, a, b in zip(during, first["own"], second["own"], strict=True):
            if summed is None:
                assert a is None
            else:
                assert summed.dtype == FP32 and summed.stride() == a.stride()
                torch.testing.assert_close(summed, a + b, rtol=tolerance, atol=tolerance)
    assert [grad is None for grad in first["own"]] == [True, *[False] * LAYERS, True, False]
    assert first["sent", True] == second["sent", True] == (6, [36] * LAYERS + [48])
    assert first["sent", False] == (0, [36] * LAYERS + [48])


def test_three_processes_have_the_same_sums(tmp_path) -> None:
    found = together(tmp_path, overlapped, 3)
    for key in found[0].keys() - {"own", ("sent", True), ("sent", False)}:
        assert same(found[0][key], found[1][key]) and same(found[0][key], found[2][key])
    for summed, *own in zip(found[0][str(FP32), True], *(f["own"] for f in found), strict=True):
        if summed is not None:
            torch.testing.assert_close(summed, own[0] + own[1] + own[2])


def short_of_memory(dist: DistContext, folder: Path) -> tuple[list[Any], int, int, list[Any]]:
    """One process runs out of memory in the midst of the pass, and does all of it again in two rounds."""
    net = Net(dist.rank)
    sums, sent = sums_of(dist, net), 0
    try:
        with failing(net.layers[1], MemoryError(), dist.rank == 1):
            net.backward(sums)
    except MemoryError:
        sent = sums.sent
        for p in net.params:
            p.grad = None
        net.backward(sums, rounds=2)
    sums.finish()
    own = Net(dist.rank)
    own.backward(GradientSums(SINGLE_PROCESS, "", own.params))
    return net.found(), sent, sums.sent, own.found()


class failing:
    """A context in which the backward pass does not get beyond the gradient of a parameter."""

    def __init__(self, param: Tensor, error: BaseException, here: bool = True) -> None:
        self.param, self.error, self.here = param, error, here

    def __enter__(self) -> None:
        self.handle = self.param.register_hook(self.hook) if self.here else None

    def __exit__(self, *error: object) -> None:
        if self.handle:
            self.handle.remove()

    def hook(self, grad: Tensor) -> None:
        raise self.error


def test_who_runs_out_of_memory_in_the_midst_sends_only_the_rest(tmp_path) -> None:
    first, second = together(tmp_path, short_of_memory, 2)
    assert (first[1], second[1]) == (0, 3), "of three layers when it failed"
    assert first[2] == second[2] == 6 and same(first[0], second[0])
    for summed, a, b in zip(first[0], first[3], second[3], strict=True):
        if summed is not None:
            torch.testing.assert_close(summed, a + b)


def ends_in_the_midst(dist: DistContext, folder: Path) -> None:
    net = Net(dist.rank)
    sums = sums_of(dist, net)
    for _ in range(3):
        if dist.rank == 1:
            net.layers[1].register_hook(lambda grad: os.kill(os.getpid(), signal.SIGKILL))
        net.backward(sums)
        sums.finish()


def test_one_that_dies_in_the_midst_is_named_by_the_others(tmp_path) -> None:
    first, dead, third = together(tmp_path, ends_in_the_midst, 3)
    assert dead is None
    assert first.startswith("LostRank: Rank 1 of 3 did not answer in 'gradients of D'")
    # It may notice only when rank 0 ends, which it waits for, and which holds the store here.
    assert third.startswith(("LostRank: Rank 1 of 3 did not", "LostRank: Rank 0 of 3 did not"))


def raises_in_the_midst(dist: DistContext, folder: Path) -> None:
    net = Net(dist.rank)
    sums = sums_of(dist, net)
    with failing(net.layers[1], ValueError("too bad"), dist.rank == 1):
        net.backward(sums)
    sums.finish()


def test_one_that_raises_in_the_midst_does_not_keep_the_others_waiting(tmp_path) -> None:
    text, own = together(tmp_path, raises_in_the_midst, 2)
    assert own == "ValueError: too bad"
    assert "Rank 1 of 2 stopped with an error of its own, which the others noticed in 'gradients of D'" in text


def test_a_process_by_itself_has_its_sums_already() -> None:
    net = Net(0)
    sums = GradientSums(SINGLE_PROCESS, "gradients", net.params)
    net.backward(sums)
    before = net.found()
    sums.finish()
    assert sums.sent == 0 and same(net.found(), before)


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 20))
def test_buckets_hold_everything_in_order_and_are_no_larger_than_they_must(sizes: list[int], limit: int) -> None:
    tensors = [torch.zeros(size) for size in sizes]
    found = list(buckets(tensors, limit))
    assert [id(t) for bucket in found for t in bucket] == [id(t) for t in tensors]
    assert all(len(bucket) == 1 or sum(map(len, bucket)) <= limit for bucket in found)
