"""Films: when each frame of a walk is, so that speed is as asked, and the images of the frames.

Also films along directions, there and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.editing.directions import Directions, moved_along
from stylegan.editing.settings import Ease, FilmSettings
from stylegan.editing.walk import Walk
from stylegan.latents.latents import Latents, joined
from stylegan.latents.render import View
from torch_utils.images import grid
from torch_utils.progress import Progress

# Times at even speed along the curve


EASINGS: dict[Ease, Callable[[float], float]] = {
    "none": lambda x: x,
    "sine": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "cubic": lambda x: x * x * (3 - 2 * x),
    "quintic": lambda x: x * x * x * (10 - 15 * x + 6 * x * x),
}


def frame_times(per_segment: Sequence[int], closed: bool, ease: Ease = "none") -> list[float]:
    """The time of every frame, for the number of frames of each segment, each of which begins at its keyframe.

    The last keyframe of an open walk has a frame of its own; a closed walk ends a step before its beginning.
    """
    eased = EASINGS[ease]
    times = [i + eased(j / count) for i, count in enumerate(per_segment) for j in range(count)]
    return times if closed else [*times, float(len(per_segment))]


# Times at which consecutive frames differ equally


MEASURED = (8, 48)  # images in a segment that measure its length, at least and at most


def image_distance(a: Tensor, b: Tensor) -> Tensor:
    """How much images [N,C,H,W] differ on all scales: root mean squares of the differences of a pyramid, summed. [N]

    Each level has half the size of the one before, down to 4 pixels. A shift by a pixel counts little, another colour
    much.
    """
    difference, total = a - b, torch.zeros(len(a))
    while True:
        total = total + difference.square().mean(dim=(1, 2, 3)).sqrt()
        if min(difference.shape[2:]) < 8:
            return total
        difference = F.avg_pool2d(difference, 2)


def even_times(steps: np.ndarray, frames: int, closed: bool, ease: Ease = "none") -> list[float]:
    """Times of frames that differ equally, about `frames` for each segment; each keyframe has a frame of its own.

    steps: the distance of each of evenly timed samples from the next, [segments, samples]. Segments get frames in
    proportion to their length, and at least one; within them times are spread by length (arc-length parametrisation),
    then eased.
    """
    counts = _proportional(steps.sum(axis=1), frames * len(steps))
    evenly = np.linspace(0, 1, steps.shape[1] + 1)
    times: list[float] = []
    for i, (own, count) in enumerate(zip(steps, counts, strict=True)):
        length = np.concatenate([[0.0], np.cumsum(own)])
        length = length / length[-1] if length[-1] > 0 else evenly
        parts = [EASINGS[ease](j / count) for j in range(1, count)]
        times += [float(i), *(i + float(phase) for phase in np.interp(parts, length, evenly))]
    return times if closed else [*times, float(len(steps))]


def _proportional(lengths: np.ndarray, total: int) -> Sequence[int]:
    """`total` frames, divided by length into whole numbers of at least one."""
    spare = total - len(lengths)
    exact = spare * (lengths / lengths.sum() if lengths.sum() > 0 else np.full(len(lengths), 1 / len(lengths)))
    counts = np.floor(exact).astype(int)
    largest_rest = np.argsort(counts - exact, kind="stable")[: spare - counts.sum()]
    counts[largest_rest] += 1
    return [int(count) + 1 for count in counts]


# The frames of walks


def times_of(
    walks: Sequence[Walk], view: View, film: FilmSettings, batch: int, advance: Callable[[int], None]
) -> list[float]:
    """The times of the frames of walks that are shown side by side.

    advance: takes the number of images that were rendered to measure speed.
    """
    segments = walks[0].segments
    if not film.even:
        return frame_times([film.frames] * segments, film.closed, film.ease)
    samples = samples_per_segment(film)
    evenly = [j / samples for j in range(segments * samples + 1)]
    steps = np.zeros(segments * samples)
    for walk in walks:
        before: Tensor | None = None
        for start in range(0, len(evenly), batch):
            images = view.draw(walk.at(evenly[start : start + batch]), batch)
            advance(len(images))
            row = images if before is None else torch.cat([before, images])
            distances = image_distance(row[1:], row[:-1]).numpy()
            first = start if before is None else start - 1
            steps[first : first + len(distances)] += distances
            before = images[-1:]
    return even_times(steps.reshape(segments, samples), film.frames, film.closed, film.ease)


def samples_per_segment(film: FilmSettings) -> int:
    """How many images in a segment measure its length."""
    return max(MEASURED[0], min(MEASURED[1], film.frames))


def draw_frames(walks: Sequence[Walk], times: Sequence[float], view: View, batch: int) -> Iterator[list[np.ndarray]]:
    """Yield the images uint8 [n,H,W,C] of each walk, for some frames at a time, all of which fill a batch."""
    frames = max(1, batch // len(walks))
    for start in range(0, len(times), frames):
        latents = joined([walk.at(times[start : start + frames]) for walk in walks])
        yield np.split(view.pixels(latents, batch), len(walks))


# Along a direction


def there_and_back(strengths: Sequence[float], frames: int) -> list[float]:
    """From the smallest of the strengths to the largest and back, slower at the ends, so that a film can repeat."""
    low, high = min(strengths), max(strengths)
    return [low + (high - low) * (1 - math.cos(2 * math.pi * i / frames)) / 2 for i in range(frames)]


def through(turns: Sequence[Sequence[float]], frames: int) -> list[tuple[float, ...]]:
    """From turn to turn and back to the first, slower at each, so that a film can repeat: strengths for each frame."""
    if len(turns) == 2 and len(turns[0]) == 1:
        return [(strength,) for strength in there_and_back([turn[0] for turn in turns], frames)]
    found = []
    for i in range(frames):
        number, part = divmod(i * len(turns), frames)
        here, there, eased = turns[number], turns[(number + 1) % len(turns)], EASINGS["sine"](part / frames)
        found.append(tuple(a + (b - a) * eased for a, b in zip(here, there, strict=True)))
    return found


def draw_moved(
    latents: Latents, found: Directions, strengths: Sequence[Sequence[float]], layers: Sequence[int] | None,
    view: View, batch: int, bar: Progress,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Yield a frame for each of the strengths along the directions, uint8 [H,W,C], all of the latents side by side."""
    frames = max(1, batch // len(latents))
    for start in range(0, len(strengths), frames):
        moves = [moved_along(latents, found, each, layers) for each in strengths[start : start + frames]]
        yield from map(grid, np.split(draw_each(joined(moves), view, batch, bar), len(moves)))


def draw_each(latents: Latents, view: View, batch: int, bar: Progress) -> np.ndarray:
    """The image of each of the latents, uint8 [N,H,W,C]."""
    parts = []
    for start in range(0, len(latents), batch):
        parts.append(view.pixels(latents[start : start + batch], batch))
        bar.advance(len(parts[-1]))
    return np.concatenate(parts)
