"""Pictures on the way along directions: tables of them, contact sheets, and films."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from stylegan.editing.directions import Directions, moved
from stylegan.latents.latents import Latents, distinct, joined
from stylegan.latents.render import View
from torch_utils.images import grid, to_uint8
from torch_utils.output import Progress


def along(
    latents: Latents, directions: Directions, strengths: Sequence[float], layers: Sequence[int] | None = None
) -> Latents:
    """Each of the latents moved along each of the directions by each of the strengths, which change fastest.

    Raises UserError as `moved` does.
    """
    ways = [
        moved(latents[i : i + 1], directions[k : k + 1], strength, layers)
        for i in range(len(latents)) for k in range(len(directions)) for strength in strengths
    ]  # fmt: skip
    every = joined(ways)
    return replace(every, names=tuple(distinct(every.names)))


def drawn(latents: Latents, view: View, batch: int, bar: Progress) -> np.ndarray:
    """A picture for each, uint8 [N,H,W,C]."""
    parts = []
    for start in range(0, len(latents), batch):
        parts.append(to_uint8(view.draw(latents[start : start + batch], batch)))
        bar.advance(len(parts[-1]))
    return np.concatenate(parts)


def there_and_back(strengths: Sequence[float], frames: int) -> list[float]:
    """From the least of the strengths to the greatest and back, slower at the ends, so that a film can go round."""
    low, high = min(strengths), max(strengths)
    return [low + (high - low) * (1 - math.cos(2 * math.pi * i / frames)) / 2 for i in range(frames)]


def film(
    latents: Latents, direction: Directions, strengths: Sequence[float], layers: Sequence[int] | None,
    view: View, batch: int, bar: Progress,
) -> Iterator[np.ndarray]:  # fmt: skip
    """A frame for each strength, uint8 [H,W,C], with all of the latents side by side."""
    for strength in strengths:
        yield grid(drawn(moved(latents, direction, strength, layers), view, batch, bar))
