"""Single channels of the styles that go with an attribute (StyleSpace, Wu et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.editing.directions import Directions
from stylegan.networks.base import Generator
from stylegan.networks.config import Stage
from torch_utils.errors import UserError


@dataclass(frozen=True)
class Channel:
    """Number `index` of a layer's style: one of C scales, or of C shifts after them.

    effect: difference of its means with and without the attribute, in standard deviations (Cohen's d); or what one
    standard deviation of it does to a score
    spread: its standard deviation
    """

    layer: int
    index: int
    width: int
    effect: float
    spread: float

    @property
    def name(self) -> str:
        maps = self.width // 2
        return f"layer {self.layer} {'scale' if self.index < maps else 'shift'} {self.index % maps}"


@torch.inference_mode()
def styles_of(G: Generator, batches: Iterable[Tensor]) -> list[Tensor]:
    """The styles [N,2C] of each layer of w [n,w_dim] at a time, on the CPU."""
    device = next(G.parameters()).device
    parts = [[s.cpu() for s in G.styles(G.broadcast(w.to(device)))] for w in batches]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def responding(styles: Sequence[Tensor], yes: np.ndarray, no: np.ndarray, count: int) -> list[Channel]:
    """The `count` channels of `styles` ([N,2C] for each layer) that differ most between the pictures yes and no.

    By the size of the effect (Wu et al. 2021, section 4, where it is measured against all pictures).
    Raises UserError for more channels than there are.
    """
    effects, spreads = [], []
    for layer in styles:
        a, b = layer[torch.from_numpy(yes.copy())].double(), layer[torch.from_numpy(no.copy())].double()
        pooled = ((a.var(dim=0) + b.var(dim=0)) / 2).sqrt()
        effects.append((a.mean(dim=0) - b.mean(dim=0)) / pooled.clamp(min=1e-12))
        spreads.append(layer.double().std(dim=0))
    return _largest(effects, spreads, count)


def steering(
    G: Generator, stage: Stage, batches: Iterable[Tensor], styles: Sequence[Tensor],
    score: Callable[[Tensor], Tensor], count: int, advance: Callable[[int], object],
) -> list[Channel]:  # fmt: skip
    """The `count` channels that change a score of the pictures most: its mean derivative by each channel, times the
    channel's standard deviation, so that the effect is that of a usual change.

    The mean over many pictures keeps what has the same sign for most of them (compare the gradients of Wu et al. 2021,
    section 4). batches: ws [n,L,w_dim]; styles: of random pictures [N,2C] for each layer that is drawn;
    score: pictures [n,C,H,W] on the CPU -> [n]; advance hears how many are done.
    Raises UserError for more channels than there are.
    """
    device, total = next(G.parameters()).device, 0
    sums = [torch.zeros(size, dtype=torch.float64) for size in G.config.style_dims()][: len(styles)]
    for ws in batches:
        edits = [torch.zeros(len(ws), size, device=device, requires_grad=True) for size in G.config.style_dims()]
        pictures = G.synthesis(ws.to(device), stage, edits=edits)
        slopes = torch.autograd.grad(score(pictures.cpu().clamp(-1, 1)).sum(), edits[: len(styles)])
        for own, slope in zip(sums, slopes, strict=True):
            own += slope.double().sum(dim=0).cpu()
        total += len(ws)
        advance(len(ws))
    spreads = [layer.double().std(dim=0) for layer in styles]
    return _largest([own / total * spread for own, spread in zip(sums, spreads, strict=True)], spreads, count)


def _largest(effects: Sequence[Tensor], spreads: Sequence[Tensor], count: int) -> list[Channel]:
    """Those of the largest effects, either way; both [2C] for each layer."""
    every = torch.cat(list(effects))
    if not 1 <= count <= len(every):
        raise UserError(f"there are {len(every)} channels, not {count}")
    starts = np.cumsum([0, *(len(e) for e in effects)])
    found = []
    for place in every.abs().argsort(descending=True, stable=True)[:count].tolist():
        row = int(np.searchsorted(starts, place, side="right")) - 1
        index = place - int(starts[row])
        found.append(Channel(row, index, len(effects[row]), float(every[place]), float(spreads[row][index])))
    return found


def as_directions(channels: Sequence[Channel], sizes: Sequence[int], w_dim: int, method: str) -> Directions:
    """Each channel as a direction of its own that has more of the attribute at positive strengths."""
    styles = [torch.zeros(len(channels), size) for size in sizes]
    for number, channel in enumerate(channels):
        styles[channel.layer][number, channel.index] = 1.0 if channel.effect >= 0 else -1.0
    return Directions(
        vectors=torch.zeros(len(channels), 1, w_dim),
        names=tuple(channel.name for channel in channels),
        layers=tuple((channel.layer,) for channel in channels),
        scales=torch.tensor([channel.spread for channel in channels]),
        method=method,
        accuracies=torch.full((len(channels),), torch.nan),
        shares=torch.full((len(channels),), torch.nan),
        styles=tuple(styles),
    )
