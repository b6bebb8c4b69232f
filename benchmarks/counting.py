"""Counting the kernels that a GPU would launch and the bytes that they would move, on tensors without contents.

Almost every operation of PyTorch is one kernel that reads its inputs and writes its outputs once. The exceptions that
training meets are below: several passes (the ops of this project, as csrc/cuda/ divides their work), lists of tensors
(as ATen/native/cuda/MultiTensorApply.cuh does), and operations that do not read all of their arguments. What caches
save is not known and not counted, and neither is what cuDNN and cuBLAS launch to rearrange their inputs.

This file imports PyTorch alone, so that it can count for programs whose modules have the names of ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READ = "aten._local_scalar_dense"  # the host asks for a value, and waits for all that was launched before


@dataclass
class Count:
    """Kernels and bytes: inputs read and outputs written. They are fractions where steps are averaged."""

    kernels: float = 0
    bytes: float = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.kernels + other.kernels, self.bytes + other.bytes)

    def __mul__(self, weight: float) -> Count:
        return Count(self.kernels * weight, self.bytes * weight)


Counts = Mapping[str, Count]


def added(counts: Counts, names: Iterable[str] | None = None) -> Count:
    """The sum over some operations, or over all."""
    return sum((counts[name] for name in (counts if names is None else names)), Count())


def weighed(parts: Iterable[tuple[float, Counts]]) -> dict[str, Count]:
    """The sum of counts, by name, each of which counts as often as its weight says."""
    total: dict[str, Count] = defaultdict(Count)
    for weight, counts in parts:
        for name, count in counts.items():
            total[name] += count * weight
    return dict(total)


class Traffic(TorchDispatchMode):
    """Counts operations on meta tensors by name while it is active: `counts["aten.add"]`. calls: all, also free ones.

    Grouped convolutions are counted separately, as `counts["aten.convolution.grouped"]`. Views and allocations are
    free. When a program asks for a value in a tensor, for example whether it is finite, the answer is 1, or True.
    Convolutions return the memory format that cuDNN does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Count] = defaultdict(Count)
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        self.calls += 1
        name = str(func._schema.name).replace("::", ".")
        if name == READ and args[0].is_meta:
            self.counts[name] += Count(1, args[0].element_size())
            return True if args[0].dtype == torch.bool else 1
        call = Call(func, args, kwargs or {}, func(*args, **(kwargs or {})))
        if name in _CONVOLUTIONS:
            call.result = _as_cudnn_returns_it(call)
        if any(t.is_meta for t in _tensors((args, kwargs, call.result))) and not _is_free(func):
            grouped = call.named.get("groups", 1) > 1
            self.counts[name + ".grouped" * grouped] += call.bytes_once * 1 + _besides(name, call)
        return call.result


class Call:
    """A call of an operator. named: its arguments by their names"""

    def __init__(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any):
        self.schema = func._schema
        names = [argument.name for argument in self.schema.arguments]
        defaults = {a.name: a.default_value for a in self.schema.arguments if a.has_default_value()}
        self.named: dict[str, Any] = defaults | dict(zip(names, args, strict=False)) | dict(kwargs)
        self.result = result

    @property
    def bytes_once(self) -> Count:
        """One kernel that reads every argument and writes every result once; arguments may be results, too."""
        name = self.schema.name.split("::")[1]
        unread = name in _OVERWRITE or name.endswith("_like") or name.startswith("new_")
        moved = 0
        for index, argument in enumerate(self.schema.arguments):
            written = argument.alias_info is not None and argument.alias_info.is_write
            read = not argument.is_out and not (unread and index == 0)
            moved += (written + read) * _bytes(self.named.get(argument.name))
        results = [self.result] if len(self.schema.returns) == 1 else self.result or ()
        moved += sum(_bytes(t) for t, r in zip(results, self.schema.returns, strict=False) if r.alias_info is None)
        return Count(1, moved)


# They launch nothing, but unlike for views, their schemas do not say so.
_FREE = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh", "detach",
    "_efficientzerotensor",
}  # fmt: skip
_OVERWRITE = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "_foreach_copy_", "_foreach_zero_"}
_CONVOLUTIONS = {"aten.convolution", "stylegan.conv2d", "stylegan.conv2d_dw"}  # those whose results on meta are not so


def _is_free(func: Any) -> bool:
    schema = func._schema
    view = any(value.alias_info is not None and not value.alias_info.is_write for value in schema.returns)
    return view or schema.name.split("::")[1] in _FREE


def _tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def _bytes(values: Any) -> int:
    """Bytes of memory behind tensors; an expanded dimension counts once."""
    return sum(_touched(t) for t in _tensors(values) if t.is_meta)


def _touched(x: Tensor) -> int:
    numel = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        numel *= length if stride or not length else 1
    return numel * x.element_size()


def _as_cudnn_returns_it(call: Call) -> Any:
    """channels_last if one of the first two arguments is (`cudnn_conv_suggest_memory_format`)."""
    y, first = call.result, list(call.named.values())[:2]
    last = any(t.is_meta and _is_last(t) for t in first)
    return torch.empty_like(y, memory_format=torch.channels_last) if last and y.is_meta else y


def _is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


# Kernels and bytes besides those of one kernel


def _besides(name: str, call: Call) -> Count:
    if name.startswith(("aten._foreach_", "aten._fused_")):
        return _of_lists(name, call)
    return _RULES[name](call) if name in _RULES else Count()


def _fill_first(call: Call) -> Count:
    """All of the result is filled, and a part of it is then written."""
    source = next(t for t in _tensors(call.named) if t.is_meta)
    return Count(1, _bytes(source))


def _convolution(call: Call) -> Count:
    """The bias is added by a kernel of its own."""
    return Count() if call.named["bias"] is None else Count(1, 2 * _bytes(call.result))


def _convolution_backward(call: Call) -> Count:
    """Two convolutions, or one, and a sum for the bias; each reads the gradient."""
    to_x, to_weight, to_bias = call.named["output_mask"]
    dy, x, weight = (_bytes(call.named[name]) for name in ("grad_output", "input", "weight"))
    moved = to_x * (dy + weight) + to_weight * (dy + x) + to_bias * dy
    return Count(to_x + to_weight + to_bias - 1, moved - dy - x - weight)


# How many tensors one launch takes, by the number of lists, and how many chunks of how many elements: the limits of
# builds for CUDA 12. From CUDA 13 on, launches take seven times as many.
_MOST_TENSORS, _MOST_CHUNKS, _CHUNK = (110, 64, 48, 36, 30), 320, 65536


def _of_lists(name: str, call: Call) -> Count:
    per_step = name == "aten._fused_adam_"
    lists = [value for key, value in call.named.items() if _is_list(value) and key != "state_steps"]
    if _is_list(call.result):
        lists.append(call.result)
    if name == "aten._foreach_norm":  # the results are single numbers, which two more launches clear and finish
        return Count(_launches(lists[0], 1) + 2 - 1)
    if not all(len({_strides(t) for t in row}) == 1 for row in zip(*lists, strict=False)):
        return Count(len(lists[0]) - 1)  # one by one
    # The schema says that gradients are written, which they are not.
    unwritten = _bytes(call.named["grads"]) if per_step else 0
    return Count(_launches(lists[0], len(lists)) - 1, -unwritten)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(t, Tensor) for t in value)


def _strides(x: Tensor) -> tuple[int, ...]:
    """Those that matter."""
    return tuple(stride for length, stride in zip(x.shape, x.stride(), strict=True) if length != 1)


def _launches(tensors: Sequence[Tensor], depth: int) -> int:
    """How many kernels work off lists of such tensors. depth: lists"""
    launched = taken = chunks = 0
    for t in tensors:
        taken += t.numel() > 0
        of_this = -(-t.numel() // _CHUNK)
        for chunk in range(of_this):
            chunks += 1
            last = chunk == of_this - 1
            if chunks == _MOST_CHUNKS or (last and taken == _MOST_TENSORS[depth - 1]):
                launched, chunks, taken = launched + 1, 0, 0 if last else 1
    return launched + (chunks > 0)


# The ops of this project: see the .cu files of the same names. All sums are float32.


def _dense(x: Tensor) -> Count:
    """The copy of an input in neither memory format."""
    return Count() if x.is_contiguous() or _is_last(x) else Count(1, 2 * _bytes(x))


def _in_layout_of(x: Tensor, like: Tensor) -> Count:
    same = x.is_contiguous(memory_format=torch.channels_last) if _is_last(like) else x.is_contiguous()
    return Count() if same else Count(1, 2 * _bytes(x))


def _epilogue(call: Call) -> Count:
    x, noise, dy = call.named["x"], call.named["noise"], call.named.get("dy")
    n, c, h, w = x.shape
    pixels, last = h * w, _is_last(x)
    found = _dense(x)
    if noise is not None and noise.dtype == torch.int64 and not last:
        found += Count(1, 2 * 4 * n * pixels)  # maps, which are made first
    in_maps = pixels if pixels <= 512 * 32 else 512 * 8
    chunks = -(-pixels // (max(256, -(-pixels // 1024) * 4) if last else in_maps))
    partial = Count(0, 2 * 2 * 4 * n * chunks * c)  # two sums of each chunk, written and read
    if dy is None:
        several = call.named["norm"] and chunks > 1
        return found + (partial + Count(2, _bytes(x)) if several else Count())
    found += _in_layout_of(dy, x) + partial + Count(1)
    several = (call.named["norm"] or call.named["style"] is not None) and chunks > 1
    return found + (partial + Count(2, _bytes(x) + _bytes(dy)) if several else Count())


def _bias_act(call: Call) -> Count:
    return _dense(call.named["x"])


def _bias_act_grad(call: Call) -> Count:
    dy, seen, dim = call.named["dy"], call.named["seen"], call.named["dim"]
    found = _dense(seen) + _in_layout_of(dy, seen)
    if not call.named["reduce"] or not seen.numel():
        return found
    channels, vector = seen.shape[dim], 16 // seen.element_size()
    inner = 1
    for d in range(seen.ndim):
        nearer = seen.stride(d) < seen.stride(dim) or (seen.stride(d) == seen.stride(dim) and d > dim)
        inner *= seen.shape[d] if nearer else 1
    outer = seen.numel() // (channels * inner)
    along, wanted = (outer, 1024) if inner == 1 else (inner, -(-4096 // (outer * channels)))
    chunk = max(64 if inner == 1 else 256 * vector * 4, -(-along // wanted))
    chunks = -(-along // (-(-chunk // vector) * vector))
    rows = chunks if inner == 1 else outer * chunks
    return found + (Count(1, 2 * 4 * rows * channels) if rows > 1 else Count())


def _upfirdn2d(call: Call) -> Count:
    """Two passes for a long separable filter."""
    x, f, y = call.named["x"], call.named["f"], call.result
    between = 2 * x.shape[0] * x.shape[1] * x.shape[2] * y.shape[3] * x.element_size()
    return _dense(x) + (Count(1, between) if f is not None and f.ndim == 1 and len(f) > 4 else Count())


_RULES: Mapping[str, Callable[[Call], Count]] = {
    "aten.constant_pad_nd": _fill_first,
    "aten.slice_backward": _fill_first,
    "aten.select_backward": _fill_first,
    "aten.convolution": _convolution,
    "aten.convolution_backward": _convolution_backward,
    "stylegan.style_epilogue": _epilogue,
    "stylegan.style_epilogue_grad": _epilogue,
    "stylegan.bias_act": _bias_act,
    "stylegan.bias_act_grad": _bias_act_grad,
    "stylegan.upfirdn2d": _upfirdn2d,
}
