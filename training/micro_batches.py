"""How much of a batch is worked on at once, and what to do when that is more than memory holds.

A process works its share of the batch off in equal parts, whose gradients add up. Parts that keep the groups of the
minibatch deviation whole give what the share at once would have given, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from torch_utils.errors import UserError

T = TypeVar("T")

# What PyTorch says, besides by the type of its error, when the system, CUDA or one of its libraries has no more memory.
# oneDNN has no word for it but the first; the second is what our compiled ops pass on of what PyTorch tells them.
_SIGNS = (
    "could not create a primitive",
    'torch_call_dispatcher( "aten::empty',
    "can't allocate memory",
    "bad_alloc",
    "bad allocation",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
)


def portions(share: int, group: int, most: int | None = None) -> list[int]:
    """The sizes of part in which `share` pictures can be worked off, the largest first.

    group: pictures that the minibatch deviation compares; where the share, or `most`, is smaller, it is the group
    most: the largest part to be had, all if None; it has been checked to divide the share
    """
    largest = min(share, most or share)
    whole = min(max(group, 1), largest)
    return [size for size in range(largest, 0, -1) if share % size == 0 and size % whole == 0]


def fewer(at_once: int, share: int, group: int, most: int | None = None) -> int | None:
    """The largest part of at most half of `at_once` pictures, None if there is none. For the rest see `portions`."""
    return next((size for size in portions(share, group, most) if size <= at_once // 2), None)


def unless_short(work: Callable[[], T], last_word: str = "") -> T | None:
    """What `work` returns, which is not None; None if memory ran out in it.

    last_word: what to say of that; then raises UserError instead
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if last_word:
            raise UserError(f"{last_word} ({str(error).partition(chr(10))[0][:200]})") from error
    return None  # here and not above, where the error still holds what work had made


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Is that what the error says?"""
    told = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return told or any(sign in str(error) for sign in _SIGNS)


def too_large(size: tuple[int, int], at_once: int, group: int) -> str:
    """What to say of a step that fits in no part. size: height and width   at_once: of the smallest part."""
    height, width = size
    what = "one picture" if at_once == 1 else f"{at_once} pictures"
    groups = "--mbstd-group, " if at_once > 1 and group > 1 else ""
    return (
        f"memory is too small for {what} of {width}x{height} at once, the least there can be here; free some and go on "
        f"with --resume, or start a new run with less {groups}--fmap-base, --fmap-max or --resolution"
    )
