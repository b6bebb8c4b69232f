"""The base: the few pixels from which a network grows by doubling; the one rule on which sizes can be trained."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from torch_utils.errors import UserError
from training.data.archive import Archive
from training.data.packed import CheckedPages, Size, pack_pyramid

# On the shorter side. Down to 4, as the networks begin there. Up to 15, so that 9x16 and its like are possible; a
# larger start would be no start: what a network makes first should be tiny, and its weights grow with the base's area.
SMALLEST, LARGEST = 4, 15


def base_for(height: int, width: int) -> tuple[int, int]:
    """The smallest picture, at least 4 pixels in each direction, that doubles up to height x width: 128x192 -> (4, 6).

    Raises UserError, naming the nearest size that would do, unless it is at most 15 pixels on the shorter side and is
    doubled once at least.
    """
    base = _halved(height, width)
    if base == (height, width) or not SMALLEST <= min(base) <= LARGEST:
        near_height, near_width = nearest_size(height, width)
        typed = near_width if near_width == near_height else f"{near_width}x{near_height}"
        raise UserError(
            f"pictures of {width}x{height} do not grow from a base of {SMALLEST} to {LARGEST} pixels on the shorter "
            f"side by doubling; the nearest size that does is dataset_tool.py --resolution {typed}"
        )
    return base


def nearest_size(height: int, width: int) -> tuple[int, int]:
    """The size closest to height x width with a base of 4 to 7 on the shorter side. Ties go to the larger.

    Smaller bases than are allowed, because presets count doublings: 96x96 is 6x6 doubled four times, and trains as 64
    would, while 88x88 is 11x11 doubled three times, and trains as 32 would.
    """
    doublings = range(1, max(2, min(height, width).bit_length()))
    candidates = [tuple(max(SMALLEST, round(side / 2**k)) << k for side in (height, width)) for k in doublings]
    small = [(h, w) for h, w in candidates if min(_halved(h, w)) < 2 * SMALLEST]
    return min(small, key=lambda size: (abs(size[0] - height) + abs(size[1] - width), -size[0] * size[1]))


def _halved(height: int, width: int) -> tuple[int, int]:
    """height x width, halved while both stay whole and at least 4."""
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= SMALLEST:
        height, width = height // 2, width // 2
    return height, width


# An archive at any resolution, as an endless shuffled stream of which every batch is a pure function of its position


_ORDER, _MIRROR, _SUBSET = 1, 2, 3  # streams of random numbers


def random_bits(seed: int, stream: int, key: int, numbers: np.ndarray) -> np.ndarray:
    """uint64 [n] from integers [n]: the splitmix64 generator started at a hash of (seed, stream, key), entry `numbers`.

    Random access without state, the same on every machine and in every version of the libraries.
    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    start = np.zeros(1, np.uint64)
    for part in (seed, stream, key):
        start = splitmix64(start + np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return splitmix64(start + numbers.astype(np.uint64))


def splitmix64(numbers: np.ndarray) -> np.ndarray:
    """Entry `numbers` of the generator started at 0: uint64 [n] -> uint64 [n]."""
    x = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as intended
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.lru_cache(maxsize=2)  # a batch may straddle two epochs
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(random_bits(seed, _ORDER, epoch, np.arange(length)), kind="stable")


def indices_at(positions: np.ndarray, length: int, seed: int) -> np.ndarray:
    """Which of `length` examples the endless, reshuffled stream shows at `positions`: int64 [n] -> int64 [n]."""
    epochs, offsets = np.divmod(positions, length)
    indices = np.empty_like(offsets)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _order(length, seed, int(epoch))[offsets[here]]
    return indices


def mirrored_at(positions: np.ndarray, seed: int) -> np.ndarray:
    """A fair coin per position: bool [n]."""
    return random_bits(seed, _MIRROR, 0, positions) >> np.uint64(63) == 1


@dataclass(frozen=True)
class Dataset:
    """An archive with how to show it.

    mirror: flip every other picture or so left to right     seed: of the order, the flips and the choice of a subset
    subset: how many of the pictures to use, chosen at random; None for all
    """

    archive: Archive
    mirror: bool = False
    seed: int = 0
    subset: int | None = None
    _pages: dict[Size, CheckedPages] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.subset is not None and not 1 <= self.subset <= len(self.archive):
            raise UserError(
                f"a subset of {self.subset} was asked for: {self.archive.path} has {len(self.archive)} pictures"
            )

    def __len__(self) -> int:
        return self.subset or len(self.archive)

    @functools.cached_property
    def _chosen(self) -> np.ndarray | None:
        """Picture numbers of the subset, int64 [len(self)]; None for all."""
        if self.subset is None:
            return None
        bits = random_bits(self.seed, _SUBSET, 0, np.arange(len(self.archive)))
        return np.sort(np.argsort(bits, kind="stable")[: self.subset])

    def prepare(self, sizes: Iterable[Size], progress: bool = True) -> None:
        """Packs the (height, width) pairs that a run will need, decoding each picture once. Raises UserError."""
        for size, pages in pack_pyramid(self.archive, sizes, progress).items():
            self._pages[size] = CheckedPages(self.archive, size, pages)

    def batch(
        self, position: int, count: int, height: int, width: int, step: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`count` pictures of the stream from `position` on, all of them or every `step`-th.

        Returns uint8 [count,C,height,width], and classes int64 [count] or None if the archive has no labels.
        """
        if (height, width) not in self._pages:
            self.prepare([(height, width)])
        positions = np.arange(position, position + count * step, step)
        indices = indices_at(positions, len(self), self.seed)
        if self._chosen is not None:
            indices = self._chosen[indices]
        images = self._pages[height, width].read(indices)
        if self.mirror:
            flipped = mirrored_at(positions, self.seed)
            images[flipped] = images[flipped, :, :, ::-1]
        labels = self.archive.labels
        return torch.from_numpy(images), None if labels is None else torch.from_numpy(labels[indices])
