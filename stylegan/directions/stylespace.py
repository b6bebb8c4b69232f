"""Single channels of the styles that go with an attribute (StyleSpace, Wu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.directions.file import Directions
from stylegan.generator import Generator
from torch_utils.errors import UserError


@dataclass(frozen=True)
class Channel:
    """Number `index` of a layer's style: one of C scales, or of C shifts after them.

    effect: difference of its means with and without the attribute, in standard deviations (Cohen's d)
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
    parts = [[s.cpu() for s in G.synthesis.styles(G.broadcast(w.to(device)))] for w in batches]
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
    every = torch.cat(effects)
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
        styles=tuple(styles),
    )
