"""The two sides of every comparison: the pictures of a network and those of a data set, each by its number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from torch_utils.errors import UserError
from torch_utils.images import to_uint8
from training.data.archive import Archive
from training.data.packed import CheckedPages
from training.inputs import draw
from training.metrics.images import shuffled

STREAM = "metrics"


class Pictures(Protocol):
    """Pictures that are counted. `key` tells them from all others."""

    @property
    def key(self) -> dict[str, str | int | float]: ...

    @property
    def limit(self) -> int | None:
        """How many there are; None for as many as are asked for."""

    def read(self, start: int, stop: int, batch: int) -> Tensor:
        """uint8 [N,C,H,W] on the CPU. batch: how many to work on at once; it does not change them."""


@dataclass(frozen=True)
class Fakes:
    """The pictures of a network, as far as it has grown. z, class and noise of picture i are drawn from (seed, i).

    psi: truncation   classes: the labels of the data, from which those of the fakes are drawn with their frequencies;
    for a conditional network of unlabelled data all classes are equally frequent
    """

    snapshot: Snapshot
    seed: int = 0
    psi: float = 1.0
    classes: np.ndarray | None = None

    limit = None

    @cached_property
    def key(self) -> dict[str, str | int | float]:
        stage = self.snapshot.stage
        found: dict[str, str | int | float] = {
            "fakes": self.snapshot.fingerprint, "resolution": stage.resolution, "alpha": stage.alpha, "seed": self.seed,
            "psi": self.psi, "device": self.snapshot.device.type,
        }  # fmt: skip
        if self.snapshot.config.num_classes:
            found["classes"] = " ".join(map(str, np.bincount(self._classes)))
        return found

    @property
    def _classes(self) -> np.ndarray:
        return np.arange(self.snapshot.config.num_classes) if self.classes is None else np.sort(self.classes)

    def read(self, start: int, stop: int, batch: int) -> Tensor:
        """See `Pictures`. Noise is random, as in the published metrics."""
        renderer, config = self.snapshot.renderer, self.snapshot.config
        classes = self._classes if config.num_classes else None
        inputs = draw(
            config, self.seed, STREAM, range(start, stop), renderer.stage.resolution, classes, torch.device("cpu")
        )
        ws = renderer.map(inputs.z, inputs.c, psi=self.psi)
        pixels = to_uint8(renderer.draw(ws, inputs.noise or "none", batch))
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Reals:
    """The pictures of an archive, in its order, reduced as in training.

    mirror: and then all of them mirrored   shuffled: the seed of another order, in which the first few stand for all
    """

    archive: Archive
    size: tuple[int, int]
    mirror: bool = False
    shuffled: int | None = None

    @cached_property
    def key(self) -> dict[str, str | int | float]:
        found: dict[str, str | int | float] = {
            "reals": self.archive.content_hash, "height": self.size[0], "width": self.size[1],
            "channels": self.archive.channels, "mirror": self.mirror,
        }  # fmt: skip
        return found if self.shuffled is None else {**found, "shuffled": self.shuffled}

    @property
    def limit(self) -> int:
        return len(self.archive) * (2 if self.mirror else 1)

    @cached_property
    def _order(self) -> np.ndarray:
        """Place by number, of the pictures and then of their mirror images: [limit]."""
        return np.arange(self.limit) if self.shuffled is None else shuffled(self.limit, self.shuffled)

    @cached_property
    def _pages(self) -> CheckedPages:
        return CheckedPages(self.archive, self.size)

    def read(self, start: int, stop: int, batch: int = 0) -> Tensor:
        """See `Pictures`."""
        numbers = self._order[start:stop]
        pixels = self._pages.read(numbers % len(self.archive))
        flipped = numbers >= len(self.archive)
        pixels[flipped] = pixels[flipped, :, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels))

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes, which open the archive themselves."""
        return _reopened, (str(self.archive.path), self.size, self.mirror, self.shuffled)

    def prepare(self) -> None:
        """Reduce the pictures now, where that has not been done. Raises UserError where it cannot be."""
        _ = self._pages


def _reopened(path: str, size: tuple[int, int], mirror: bool, seed: int | None) -> Reals:
    return Reals(Archive.open(path), size, mirror, seed)


def reals_for(snapshot: Snapshot, archive: Archive, mirror: bool = False) -> Reals:
    """The data at the size that a network draws. Raises UserError unless channels and size fit."""
    if archive.channels != snapshot.config.channels:
        raise UserError(
            f"{archive.path} has pictures of {archive.channels} channels, this network makes "
            f"{snapshot.config.channels}; give the data it was trained on, or convert them with dataset_tool.py"
        )
    reals = Reals(archive, snapshot.config.size(snapshot.stage.resolution), mirror)
    reals.prepare()
    return reals
