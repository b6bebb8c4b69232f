"""Counts, without computing anything, how often a program would touch memory: the cost of small operations on a GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They launch nothing, and their schemas do not say so as those of views do.
_FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "lift_fresh",
    "detach",
}


@dataclass
class Count:
    """Operations that launch work, and the bytes of their inputs and outputs."""

    kernels: int = 0
    bytes: int = 0


class Traffic(TorchDispatchMode):
    """While it is active, programs on meta tensors are counted, by operation: `counts["aten.add"]`.

    Grouped convolutions are counted apart, as `counts["aten.convolution.grouped"]`. An operation counts once, though
    convolutions, say, take several kernels. Views and allocations are free.
    What a program asks of a number in a tensor, such as whether it is finite, is answered with True.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Count] = defaultdict(Count)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        name = _name(func, args)
        if name == "aten._local_scalar_dense" and args[0].is_meta:
            return True
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor) and t.is_meta]
        if tensors and not _is_free(func):
            self.counts[name].kernels += 1
            self.counts[name].bytes += sum(map(_touched, tensors))
        return result


def added(counts: Mapping[str, Count], names: Sequence[str]) -> Count:
    """The sum over some operations."""
    found = [counts[name] for name in names]
    return Count(sum(count.kernels for count in found), sum(count.bytes for count in found))


def _name(func: Any, args: Sequence[Any]) -> str:
    """As in "aten.add". Grouped convolutions are told apart: their cost is in bytes, not in arithmetic."""
    places = [argument.name for argument in func._schema.arguments]
    grouped = "groups" in places and args[places.index("groups")] > 1
    return str(func._schema.name).replace("::", ".") + (".grouped" if grouped else "")


def _is_free(func: Any) -> bool:
    schema = func._schema
    view = any(value.alias_info is not None and not value.alias_info.is_write for value in schema.returns)
    return view or schema.name.split("::")[1] in _FREE


def _touched(x: Tensor) -> int:
    """The bytes of memory behind a tensor: what is expanded is there only once."""
    numel = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        numel *= length if stride or not length else 1
    return numel * x.element_size()
