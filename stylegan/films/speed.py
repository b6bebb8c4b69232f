"""Even speed to the eye: a film's times, so that each frame differs as much from the one before as any other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.films.course import Ease
from stylegan.films.paths import EASINGS


def picture_distance(a: Tensor, b: Tensor) -> Tensor:
    """How much pictures [N,C,H,W] differ, on all scales: root mean squares of the differences of a pyramid, summed. [N]

    Each level has half the size of the one before, down to 4 pixels: what moved by a pixel is little, what became of
    another colour is much.
    """
    difference, total = a - b, torch.zeros(len(a))
    while True:
        total = total + difference.square().mean(dim=(1, 2, 3)).sqrt()
        if min(difference.shape[2:]) < 8:
            return total
        difference = F.avg_pool2d(difference, 2)


def even_times(steps: np.ndarray, frames: int, closed: bool, ease: Ease = "none") -> list[float]:
    """Times of frames that are equally far from each other, about `frames` to a segment; keyframes keep a frame each.

    steps: the distance from each of evenly timed samples to the next, [segments, samples]. Segments get frames by
    their length, and at least one; within them times are spread by length (arc-length parametrisation), then eased.
    """
    counts = _shares(steps.sum(axis=1), frames * len(steps))
    grid = np.linspace(0, 1, steps.shape[1] + 1)
    times: list[float] = []
    for i, (own, count) in enumerate(zip(steps, counts, strict=True)):
        gone = np.concatenate([[0.0], np.cumsum(own)])
        gone = gone / gone[-1] if gone[-1] > 0 else grid
        parts = [EASINGS[ease](j / count) for j in range(1, count)]
        times += [float(i), *(i + float(phase) for phase in np.interp(parts, gone, grid))]
    return times if closed else [*times, float(len(steps))]


def _shares(lengths: np.ndarray, total: int) -> Sequence[int]:
    """`total` whole frames, by length, at least one each."""
    spare = total - len(lengths)
    wished = spare * (lengths / lengths.sum() if lengths.sum() > 0 else np.full(len(lengths), 1 / len(lengths)))
    shares = np.floor(wished).astype(int)
    largest_rest = np.argsort(shares - wished, kind="stable")[: spare - shares.sum()]
    shares[largest_rest] += 1
    return [int(share) + 1 for share in shares]
