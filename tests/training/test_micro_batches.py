"""Parts of a batch: whole groups, the largest first, and what counts as being out of memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training.micro_batches import fewer, out_of_memory, portions, unless_short

from stylegan.networks.layers import minibatch_stddev
from torch_utils.errors import UserError

sizes = st.integers(1, 48)


@given(sizes, st.integers(1, 6), st.none() | sizes)
def test_parts_are_whole_groups_and_halving_ends_at_the_smallest(share: int, group: int, most: int | None) -> None:
    most = next(n for n in range(min(most, share), 0, -1) if share % n == 0) if most else None
    found = portions(share, group, most)
    largest = most or share
    assert found == sorted(set(found), reverse=True)
    for size in found:
        assert share % size == 0 and size <= largest and size % min(group, largest) == 0
        smaller = fewer(size, share, group, most)
        assert smaller is None if size == found[-1] else smaller in found and 2 * smaller <= size
    if largest % min(group, largest) == 0:
        assert found[0] == largest


@pytest.mark.parametrize("share, group, parts", [(32, 4, [32, 16, 8, 4]), (24, 4, [24, 12, 8, 4]), (6, 1, [6, 3, 2, 1]),
                                                 (2, 4, [2]), (9, 3, [9, 3]), (5, 0, [5, 1])])  # fmt: skip
def test_parts_by_hand(share: int, group: int, parts: list[int]) -> None:
    assert portions(share, group) == parts


def test_every_part_compares_the_pictures_that_the_whole_compares() -> None:
    x = torch.randn(24, 2, 3, 3)
    whole = minibatch_stddev(x, 4)
    for size in portions(24, 4):
        rounds = 24 // size
        for start in range(rounds):
            torch.testing.assert_close(minibatch_stddev(x[start::rounds], 4), whole[start::rounds])


@pytest.mark.parametrize(
    "error, short",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError('torch_call_dispatcher( "aten::empty_like", "", stack.data()) API call failed at ops.h'), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)  # fmt: skip
def test_out_of_memory_is_told_from_other_trouble(error: RuntimeError | MemoryError, short: bool) -> None:
    def work() -> int:
        raise error

    assert out_of_memory(error) == short
    if short:
        assert unless_short(work) is None
        with pytest.raises(UserError, match="too small"):
            unless_short(work, "too small")
    else:
        with pytest.raises(RuntimeError):
            unless_short(work, "too small")
    assert unless_short(lambda: 3, "too small") == 3


def test_nothing_of_what_failed_is_held() -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    def work() -> int:
        tensor = torch.ones(3)
        seen.append(weakref.ref(tensor))
        raise MemoryError

    assert unless_short(work) is None
    assert seen[0]() is None


def test_a_real_allocation_that_cannot_be_is_recognised() -> None:
    assert unless_short(lambda: torch.empty(1 << 60, dtype=torch.uint8)) is None
