"""An archive at any resolution, as an endless shuffled stream of images.

Every batch is a pure function of its position in the stream, so a run that resumes at any position, on any number of
processes, sees the same images. Nothing is counted or stored.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ops.resample import downsample_box
from torch_utils.errors import UserError
from training.data.archive import Archive
from training.data.packed import CheckedPages, HeightWidth, pack_pyramid

_ORDER, _MIRROR, _SUBSET = 1, 2, 3  # independent streams of random numbers


@dataclass(frozen=True)
class Dataset:
    """An archive, and how its images are shown.

    mirror: flip each image left to right with probability 1/2     seed: of the order, the flips and the subset
    subset: how many of the images to use, chosen at random; None for all
    """

    archive: Archive
    mirror: bool = False
    seed: int = 0
    subset: int | None = None
    _pages: dict[HeightWidth, CheckedPages] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.subset is not None and not 1 <= self.subset <= len(self.archive):
            raise UserError(
                f"A subset of {self.subset} images was requested, but {self.archive.path} has {len(self.archive)}"
                " images: the subset must have at least 1 image, and at most all"
            )

    def __len__(self) -> int:
        return self.subset or len(self.archive)

    @functools.cached_property
    def _chosen(self) -> np.ndarray | None:
        """Indices of the subset in the archive, int64 [len(self)]; None for all."""
        if self.subset is None:
            return None
        return subset_of(len(self.archive), self.subset, self.seed)

    def prepare(self, sizes: Iterable[HeightWidth], progress: bool = True) -> None:
        """Pack the (height, width) pairs that a run will need, decoding each image once. Raises UserError."""
        for size, pages in pack_pyramid(self.archive, sizes, progress).items():
            self._pages[size] = CheckedPages(self.archive, size, pages)

    def batch(self, position: int, count: int, height: int, width: int, step: int = 1) -> tuple[Tensor, Tensor | None]:
        """`count` images of the stream from `position` on, all of them or every `step`-th.

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


def fade(images: Tensor, alpha: float) -> Tensor:
    """Real images during a fade-in: blended with themselves at half the resolution, as generated ones are. [N,C,H,W]"""
    if alpha >= 1:
        return images
    half = F.interpolate(downsample_box(images), scale_factor=2, mode="nearest")
    return torch.lerp(half, images, alpha)


# Order and flips as functions of the position


def subset_of(length: int, count: int, seed: int) -> np.ndarray:
    """Which `count` of `length` images a subset has: int64 [count], sorted."""
    return np.sort(np.argsort(random_bits(seed, _SUBSET, 0, np.arange(length)), kind="stable")[:count])


def indices_at(positions: np.ndarray, length: int, seed: int) -> np.ndarray:
    """Which of `length` images the endless, reshuffled stream shows at `positions`: int64 [n] -> int64 [n]."""
    epochs, offsets = np.divmod(positions, length)
    indices = np.empty_like(offsets)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _order(length, seed, int(epoch))[offsets[here]]
    return indices


@functools.lru_cache(maxsize=2)  # a batch may straddle two epochs
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.argsort(random_bits(seed, _ORDER, epoch, np.arange(length)), kind="stable")


def mirrored_at(positions: np.ndarray, seed: int) -> np.ndarray:
    """A fair coin per position: bool [n]."""
    return random_bits(seed, _MIRROR, 0, positions) >> np.uint64(63) == 1


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
