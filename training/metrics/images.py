"""Random latents and images of a network, each a function of (seed, its number) and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.sampling import generator
from torch_utils.errors import UserError
from torch_utils.images import to_float
from torch_utils.progress import Progress
from training.data.archive import Archive
from training.data.dataset import fade
from training.data.packed import CheckedPages, packed
from training.inputs import NUMBERS, Inputs, draw

MICRO_BATCH = 16
STREAM = "metrics"  # of random numbers


@dataclass(frozen=True)
class Sampling:
    """How a network is sampled; with other noise for each image, as published.

    seed: of all that is random   psi: truncation (metrics are published without any, 1)   batch: images at a time
    labels: classes of the training images, [M], among which classes are drawn; None for all classes alike
    quiet: without a progress bar
    """

    seed: int = 0
    psi: float = 1.0
    batch: int = MICRO_BATCH
    labels: np.ndarray | None = None
    quiet: bool = False


AS_PUBLISHED = Sampling()


def inputs_at(snapshot: Snapshot, sampling: Sampling, positions: range) -> Inputs:
    """What the images numbered `positions` are drawn from. A second z and a uniform number are there for paths.

    Raises UserError where the training images have classes that the network has not.
    """
    config, classes = snapshot.config, None
    if config.num_classes:
        classes = np.arange(config.num_classes) if sampling.labels is None else np.sort(sampling.labels)
        if classes[-1] >= config.num_classes:
            raise UserError(
                f"the data has class {classes[-1]}, and the network 0 to {config.num_classes - 1}; measure with the "
                "data that it was trained on"
            )
    labels = None if classes is None else torch.from_numpy(classes)
    return draw(config, sampling.seed, STREAM, positions, snapshot.stage.resolution, labels, torch.device("cpu"))


@dataclass(frozen=True)
class Samples:
    """z: [N,z_dim]   w: [N,w_dim], without truncation   c: classes [N], or None   images: [N,channels,H,W]"""

    z: Tensor
    w: Tensor
    c: Tensor | None
    images: Tensor


def samples_at(snapshot: Snapshot, sampling: Sampling, positions: range) -> Samples:
    """The images numbered `positions`, with values from -1 to 1, and what they were drawn from.

    Of ProGAN, which has no w, `w` is what the network is fed with. Raises UserError, see `inputs_at`.
    """
    renderer, inputs = snapshot.renderer, inputs_at(snapshot, sampling, positions)
    w = renderer.map(inputs.z, inputs.c, psi=1.0)[:, 0]
    ws = renderer.map(inputs.z, inputs.c, psi=sampling.psi) if sampling.psi != 1 else snapshot.G.broadcast(w)
    images = renderer.draw_there(ws, inputs.places, sampling.batch)
    return Samples(inputs.z, w, inputs.c, images.clamp(-1, 1))


def samples_of(
    snapshot: Snapshot, sampling: Sampling, count: int, label: str = "", size: int | None = None
) -> Iterator[Samples]:
    """Images 0 to `count`, `size` at a time; by default whole batches. label: of the progress bar, if there is one."""
    size = size or sampling.batch * math.ceil(MICRO_BATCH / sampling.batch)
    sampling = replace(sampling, batch=min(sampling.batch, size))  # as a smaller batch would be filled up
    with Progress(label, count, quiet=sampling.quiet or not label) as bar:
        for start in range(0, count, size):
            found = samples_at(snapshot, sampling, range(start, min(start + size, count)))
            yield found
            bar.advance(len(found.z))


# Real images as a network is compared with them: at its size, faded as it fades, chosen by a seed


def pages(archive: Archive, snapshot: Snapshot) -> np.ndarray:
    """All images of the archive at the size that the network draws at: uint8 [M,C,H,W], mapped from disk.

    Raises UserError for an archive of other channels, and of images that no halving brings to that size.
    """
    config = snapshot.config
    if archive.channels != config.channels:
        raise UserError(f"{archive.path} has images of {archive.channels} channels, this network draws "
                        f"{config.channels}; give the data that it was trained on")  # fmt: skip
    return packed(archive, *config.size(snapshot.stage.resolution))


def shuffled(count: int, seed: int) -> np.ndarray:
    """The numbers 0 to `count` in an order that belongs to the seed: int64."""
    return generator(seed, "reals", 0).permutation(count)


def chosen(archive: Archive, count: int, seed: int) -> np.ndarray:
    """`count` places in the archive, all different, in order: int64. Raises UserError if it has not so many."""
    if count > len(archive):
        raise UserError(f"{archive.path} has {len(archive)} images, {count} are asked for; ask for fewer")
    return np.sort(shuffled(len(archive), seed)[:count])


def real_images(stored: np.ndarray, places: Sequence[int] | np.ndarray, snapshot: Snapshot) -> Tensor:
    """Some of `pages`, float [N,C,H,W] in [-1, 1], where the network is, blended as its own are where it is fading."""
    images = to_float(torch.from_numpy(np.array(stored[np.asarray(places)])))
    return fade(images.to(snapshot.device), snapshot.stage.alpha)


def classes_of(archive: Archive, places: np.ndarray, snapshot: Snapshot) -> Tensor | None:
    """The classes int64 [N] of real images, None for a network without. Raises UserError if they have none."""
    if not snapshot.config.num_classes:
        return None
    if archive.labels is None:
        raise UserError(f"this network knows classes and {archive.path} has no labels; give the data that it was "
                        "trained on")  # fmt: skip
    return torch.from_numpy(archive.labels[places])


def real_batches(
    archive: Archive, snapshot: Snapshot, places: np.ndarray, size: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The real images at some places in the archive and their classes, `size` at a time."""
    stored = pages(archive, snapshot)
    for start in range(0, len(places), size):
        at = places[start : start + size]
        yield real_images(stored, at, snapshot), classes_of(archive, at, snapshot)


# The two sides of every comparison: the images of a network and those of a data set, each by its number


class ImageSource(Protocol):
    """Images that are counted. `key` tells them from all others, whatever the batch."""

    @property
    def key(self) -> dict[str, str | int | float]: ...

    @property
    def limit(self) -> int | None:
        """How many there are; None for as many as are asked for."""

    def read(self, start: int, stop: int, batch: int) -> Tensor:
        """uint8 [N,C,H,W] on the CPU. batch: how many to compute at a time, see `Renderer`."""


@dataclass(frozen=True)
class Fakes:
    """The images of a network, as far as it has grown. z, class and noise of image i are drawn from (seed, i)."""

    snapshot: Snapshot
    sampling: Sampling = AS_PUBLISHED

    limit = None

    @cached_property
    def key(self) -> dict[str, str | int | float]:
        stage = self.snapshot.stage
        found: dict[str, str | int | float] = {
            "fakes": self.snapshot.fingerprint, "resolution": stage.resolution, "alpha": stage.alpha,
            "seed": self.sampling.seed, "psi": self.sampling.psi, "device": self.snapshot.device.type,
            "numbers": NUMBERS,
        }  # fmt: skip
        if self.snapshot.execution.precision != "fp32":
            found["precision"] = self.snapshot.execution.precision
        if self.snapshot.config.num_classes:
            labels = self.sampling.labels
            classes = np.arange(self.snapshot.config.num_classes) if labels is None else labels
            found["classes"] = " ".join(map(str, np.bincount(classes)))
        return found

    def read(self, start: int, stop: int, batch: int) -> Tensor:
        """See `ImageSource`. Noise is random, as in the published metrics."""
        renderer = self.snapshot.renderer
        inputs = inputs_at(self.snapshot, self.sampling, range(start, stop))
        ws = renderer.map(inputs.z, inputs.c, psi=self.sampling.psi)
        pixels = renderer.pixels(ws, inputs.places, batch)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Stored:
    """The images of an archive, in its order, reduced as in training.

    mirror: and then all of them mirrored   shuffled: the seed of another order, in which the first few stand for all
    only: of this class only
    """

    archive: Archive
    size: tuple[int, int]
    mirror: bool = False
    shuffled: int | None = None
    only: int | None = None

    @cached_property
    def key(self) -> dict[str, str | int | float]:
        found: dict[str, str | int | float] = {
            "reals": self.archive.content_hash, "height": self.size[0], "width": self.size[1],
            "channels": self.archive.channels, "mirror": self.mirror,
        }  # fmt: skip
        if self.shuffled is not None:
            found["shuffled"] = self.shuffled
        return found if self.only is None else {**found, "only": self.only}

    @cached_property
    def _places(self) -> np.ndarray:
        """Which images of the archive these are."""
        labels = self.archive.labels
        every = self.only is None or labels is None
        return np.arange(len(self.archive)) if every else np.flatnonzero(labels == self.only)

    @property
    def limit(self) -> int:
        return len(self._places) * (2 if self.mirror else 1)

    @cached_property
    def _order(self) -> np.ndarray:
        """Place by number, of the images and then of their mirror images: [limit]."""
        return np.arange(self.limit) if self.shuffled is None else shuffled(self.limit, self.shuffled)

    @cached_property
    def _pages(self) -> CheckedPages:
        return CheckedPages(self.archive, self.size)

    def read(self, start: int, stop: int, batch: int = 0) -> Tensor:
        """See `ImageSource`."""
        numbers = self._order[start:stop]
        pixels = self._pages.read(self._places[numbers % len(self._places)])
        flipped = numbers >= len(self._places)
        pixels[flipped] = pixels[flipped, :, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels))

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes, which open the archive themselves."""
        where = str(self.archive.path), self.archive.cache
        return _reopened, (*where, self.size, self.mirror, self.shuffled, self.only)


def _reopened(
    path: str, cache: Path | None, size: tuple[int, int], mirror: bool, seed: int | None, only: int | None
) -> Stored:
    return Stored(Archive.open(path, cache), size, mirror, seed, only)


def require_channels(archive: Archive, channels: int) -> None:
    """Raises UserError for data of other channels than a network makes, or than the images that are measured have."""
    if archive.channels != channels:
        raise UserError(
            f"{archive.path} has images of {archive.channels} channels, this network makes {channels}; give the data "
            "it was trained on, or convert them with dataset_tool.py"
        )


def stored_at(archive: Archive, size: tuple[int, int], channels: int, mirror: bool = False) -> Stored:
    """The images of an archive at a size (height, width). Raises UserError unless channels and size fit."""
    require_channels(archive, channels)
    packed(archive, *size)  # reduces them now, where that has not been done
    return Stored(archive, size, mirror)


def reals_for(snapshot: Snapshot, archive: Archive, mirror: bool = False) -> Stored:
    """The data at the size that a network draws. Raises UserError unless channels and size fit."""
    return stored_at(archive, snapshot.config.size(snapshot.stage.resolution), snapshot.config.channels, mirror)
