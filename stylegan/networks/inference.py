"""A network that only computes: all that its layers derive from their weights is derived once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from stylegan.networks.layers import EqualConv2d, EqualLinear
from stylegan.networks.stylegan1 import DiscriminatorBlock, StyleLayer

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def baked(network: Network, dtype: torch.dtype = torch.float32, batch: int | None = None) -> Network:
    """The same function, to the last bit, for feature maps of `dtype`, faster where the batch is small.

    (A discriminator's scores, which come out of sums in another order, are the same but for their rounding.)

    Scaled weights, merged kernels and their conversion to `dtype` are kept. The copy shares all else with `network` and
    does not follow when that learns.

    batch: how many pictures a generator is to draw at once. Then weights are kept in the order in which a CPU's
    convolutions read them; there are no derivatives, and rounding may differ. None: any number, derivatives as ever.
    """
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, shared)
    for layer in copied.modules():
        if isinstance(layer, EqualLinear):
            setattr(layer, "effective", _always(tuple(t.clone() for t in layer.effective())))  # noqa: B010
        elif isinstance(layer, StyleLayer) and layer.kind != "const":
            kept = layer.effective(dtype) if batch is None else layer.packed(dtype, batch)
            setattr(layer, "effective", _always(kept))  # noqa: B010
        elif isinstance(layer, EqualConv2d | DiscriminatorBlock):
            setattr(layer, "effective", _always(layer.effective(dtype)))  # noqa: B010
    return copied


def _always(kept: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    return lambda dtype=None: kept
