"""How much memory a program would hold at its peak, without holding any."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_local_scalar = torch.ops.aten._local_scalar_dense.default


class LiveBytes(TorchDispatchMode):
    """While it is active, the memory behind tensors that are made is counted as long as somebody holds it.

    For programs on meta tensors, whose memory is none. What a program asks of a number in a tensor is answered with 0.
    now: bytes held   peak: the most there were
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        if func is _local_scalar and args[0].is_meta:
            return 0
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                self._count(made)
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        key = storage._cdata
        if key not in self._held:  # views share what they are of
            self._held[key] = storage.nbytes()
            self.now += self._held[key]
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._held.pop(key)
