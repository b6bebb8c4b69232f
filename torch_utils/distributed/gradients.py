"""Gradients of several processes: added up over all ranks while a backward pass computes the rest of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from torch_utils.distributed import DistContext, begin_all_reduce_sum

BUCKET_NUMBERS = 1 << 20  # gradients per all-reduce: 4 MB in float32


class GradientSums:
    """The sums over all ranks of the gradients of parameters, to be had once: the same to the last bit on each rank.

    Gradients are sent in buckets, in the order of the parameters. In the pass that is declared to be the last one, a
    bucket is sent as soon as it is complete and those before it have been sent, so that all ranks send the same buckets
    in the same order, however fast they are.

    If memory runs out in that pass and it has to be done again, in whatever parts, what has been sent stays sent: it is
    this rank's whole contribution, which would be the same again but for rounding. Only the rest is sent then, and
    ranks that did not run out of memory need not know.

    params: in about the order in which a backward pass computes their gradients
    dtype: format of the numbers that are sent; bfloat16 halves the bytes
    sent: how many buckets have been
    """

    def __init__(
        self, dist: DistContext, name: str, params: Sequence[Tensor], dtype: torch.dtype = torch.float32
    ) -> None:  # fmt: skip
        self.dist, self._name, self._params, self._dtype = dist, name, params, dtype
        self._buckets: list[list[Tensor]] = []  # of parameters
        self._sums: list[Tensor] = []
        self._waits: list[Callable[[], None]] = []
        self._coming: set[Tensor] | None = None  # what has no gradient of this pass yet

    @property
    def sent(self) -> int:
        return len(self._sums)

    @contextmanager
    def last_backward(self) -> Iterator[None]:
        """In the block, one backward pass adds what has been missing of the gradients."""
        if self.dist.world_size == 1:
            yield
            return
        self._coming = None
        hooks = [p.register_post_accumulate_grad_hook(self._arrived) for p in self._params if p.requires_grad]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self) -> None:
        """Send the rest, wait for the sums, and put them in place of the gradients. What has none stays without."""
        if self.dist.world_size == 1:
            return
        if not self._buckets:  # nothing in the last pass had a gradient
            self._fill(set())
        while self.sent < len(self._buckets):
            self._send()
        for bucket, flat, wait in zip(self._buckets, self._sums, self._waits, strict=True):
            wait()
            parts = flat.to(bucket[0].dtype).split([p.numel() for p in bucket])
            pairs = [(p.grad, part.view(p.shape)) for p, part in zip(bucket, parts, strict=True) if p.grad is not None]
            torch._foreach_copy_([grad for grad, _ in pairs], [part for _, part in pairs])

    def _arrived(self, param: Tensor) -> None:
        if self._coming is None:  # PyTorch knows by now which parameters the pass will reach
            self._coming = {p for p in self._params if p.requires_grad and _will_be_reached(p)}
            if not self._buckets:
                self._fill(self._coming)
        self._coming.discard(param)
        while self.sent < len(self._buckets) and self._coming.isdisjoint(self._buckets[self.sent]):
            self._send()

    def _fill(self, coming: set[Tensor]) -> None:
        """Divide into buckets what has a gradient and what is about to have one: the same on all ranks, which run the
        same program.
        """
        self._buckets = list(buckets([p for p in self._params if p.grad is not None or p in coming], BUCKET_NUMBERS))

    def _send(self) -> None:
        bucket = self._buckets[self.sent]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        flat = flat.to(self._dtype)
        self._waits.append(begin_all_reduce_sum(self.dist, self._name, flat))
        self._sums.append(flat)


def _will_be_reached(param: Tensor) -> bool:
    """Whether the backward pass that is under way computes a gradient for a parameter. To be asked in a hook of it."""
    return torch._C._will_engine_execute_node(get_gradient_edge(param).node)


def buckets(tensors: Sequence[Tensor], numbers: int) -> Iterator[list[Tensor]]:
    """Split the tensors, in order, into lists of at most `numbers` numbers together, or of one larger tensor."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if bucket and held + tensor.numel() > numbers:
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.numel()
    if bucket:
        yield bucket
