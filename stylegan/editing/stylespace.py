"""Directions of single style channels that go with an attribute (StyleSpace, Wu et al. 2021).

A channel is one entry of the style of a layer; the network's config says what it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.editing.directions import Directions
from stylegan.networks.base import Generator
from stylegan.networks.config import NetworkConfig, Stage
from torch_utils.errors import UserError


@dataclass(frozen=True)
class Channel:
    """Entry `index` of the style of a layer.

    effect: the difference of its means with and without the attribute, in standard deviations (Cohen's d); or the
    change of a score for one standard deviation of the channel
    spread: its standard deviation
    """

    layer: int
    index: int
    effect: float
    spread: float


@torch.inference_mode()
def styles_of(G: Generator, batches: Iterable[Tensor]) -> list[Tensor]:
    """The styles [N,style_dim] of each layer, on the CPU, of batches of w [n,w_dim]."""
    parts = [[s.cpu() for s in G.styles(G.broadcast(w.to(G.device)))] for w in batches]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def channels_by_difference(styles: Sequence[Tensor], yes: np.ndarray, no: np.ndarray, count: int) -> list[Channel]:
    """The `count` channels that differ most between images with an attribute and images without.

    By the size of the effect (Wu et al. 2021, section 4, where it is measured against all images).
    styles: [N,style_dim] for each layer   yes, no: indices of the images with and without.
    Raises UserError for more channels than there are.
    """
    effects, spreads = [], []
    for layer in styles:
        a, b = layer[torch.from_numpy(yes.copy())].double(), layer[torch.from_numpy(no.copy())].double()
        pooled = ((a.var(dim=0) + b.var(dim=0)) / 2).sqrt()
        effects.append((a.mean(dim=0) - b.mean(dim=0)) / pooled.clamp(min=1e-12))
        spreads.append(layer.double().std(dim=0))
    return _largest(effects, spreads, count)


def channels_by_gradient(
    G: Generator, stage: Stage, batches: Iterable[Tensor], styles: Sequence[Tensor],
    score: Callable[[Tensor], Tensor], count: int, advance: Callable[[int], object],
) -> list[Channel]:  # fmt: skip
    """The `count` channels that change a score of the images most.

    The effect of a channel is the mean derivative of the score by it, times its standard deviation, which is the effect
    of a usual change. The mean over many images keeps what has the same sign for most of them (compare the gradients of
    Wu et al. 2021, section 4).
    batches: ws [n,L,w_dim]   styles: of random images, [N,style_dim] for each layer up to the stage
    score: images [n,C,H,W] on the CPU -> [n]   advance: takes the number of images done
    Raises UserError for more channels than there are.
    """
    total = 0
    sums = [torch.zeros(size, dtype=torch.float64) for size in G.config.style_dims()][: len(styles)]
    for ws in batches:
        edits = [torch.zeros(len(ws), size, device=G.device, requires_grad=True) for size in G.config.style_dims()]
        images = G.synthesis(ws.to(G.device), stage, edits=edits)
        slopes = torch.autograd.grad(score(images.cpu().clamp(-1, 1)).sum(), edits[: len(styles)])
        for own, slope in zip(sums, slopes, strict=True):
            own += slope.double().sum(dim=0).cpu()
        total += len(ws)
        advance(len(ws))
    spreads = [layer.double().std(dim=0) for layer in styles]
    return _largest([own / total * spread for own, spread in zip(sums, spreads, strict=True)], spreads, count)


def _largest(effects: Sequence[Tensor], spreads: Sequence[Tensor], count: int) -> list[Channel]:
    """The channels with the largest effects of either sign. effects, spreads: [style_dim] for each layer."""
    every = torch.cat(list(effects))
    if not 1 <= count <= len(every):
        raise UserError(f"there are {len(every)} channels, not {count}; use a smaller count")
    entries = [(layer, index) for layer, own in enumerate(effects) for index in range(len(own))]
    largest = [entries[place] for place in every.abs().argsort(descending=True, stable=True)[:count].tolist()]
    return [Channel(layer, i, float(effects[layer][i]), float(spreads[layer][i])) for layer, i in largest]


def channel_directions(channels: Sequence[Channel], config: NetworkConfig, method: str) -> Directions:
    """A direction for each channel, which has more of the attribute at positive strengths."""
    styles = [torch.zeros(len(channels), size) for size in config.style_dims()]
    for number, channel in enumerate(channels):
        styles[channel.layer][number, channel.index] = 1.0 if channel.effect >= 0 else -1.0
    return Directions(
        vectors=torch.zeros(len(channels), 1, config.ws_dim),
        names=tuple(config.style_channel_name(channel.layer, channel.index) for channel in channels),
        layers=tuple((channel.layer,) for channel in channels),
        scales=torch.tensor([channel.spread for channel in channels]),
        method=method,
        accuracies=torch.full((len(channels),), torch.nan),
        shares=torch.full((len(channels),), torch.nan),
        styles=tuple(styles),
    )
