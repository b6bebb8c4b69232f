"""Do the images of a network differ? Their mean distance in pairs, beside that of real images.

LPIPS is an eye for photographs. Of line drawings, such as digits, it sees faint patterns in the paper as much as the
lines, and may miss that these are all alike; the distances of the discriminator and of pixels do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.projection.distance import Distance
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.data.archive import Archive
from training.metrics.images import AS_PUBLISHED, Sampling, chosen, real_batches, samples_of

BLOCK = 16
ALARM = 0.6  # of the diversity of real images. A good network has 0.9; K images and no others would have 1 - 1 / K

Images = Iterable[tuple[Tensor, Tensor | None]]
"""Some at a time: [n,C,H,W] in [-1, 1], and their classes [n] if only images of one class are to be compared."""


@dataclass(frozen=True)
class Spread:
    """value: the mean distance of two images (of one class, where there are classes)   error: its standard error"""

    value: float
    error: float
    count: int


@dataclass(frozen=True)
class Diversity:
    """fakes, reals: as many of one as of the other; reals are None where there is no data to compare with."""

    fakes: Spread
    reals: Spread | None

    @property
    def ratio(self) -> float:
        """Of fakes to reals; nan without reals."""
        return self.fakes.value / self.reals.value if self.reals and self.reals.value else math.nan

    @property
    def collapsed(self) -> bool:
        """Are the fakes far too much alike? Never said without reals."""
        return self.ratio < ALARM


def diversity(
    snapshot: Snapshot, distance: Distance, archive: Archive | None = None, count: int = 128,
    sampling: Sampling = AS_PUBLISHED,
) -> Diversity:  # fmt: skip
    """Of images 0 to `count` of the sampling, always the same, so that snapshots of a run compare.

    Raises UserError for fewer than 2 images, and for an archive that has fewer or does not fit the network.
    """
    reals = None
    if archive is not None:
        images = real_batches(archive, snapshot, chosen(archive, count, sampling.seed), BLOCK)
        reals = spread(images, distance, "Comparing reals", sampling.quiet)
    drawn = ((part.images.to(snapshot.device), part.c) for part in samples_of(snapshot, sampling, count, size=BLOCK))
    fakes = spread(drawn, distance, "Comparing fakes", sampling.quiet)
    return Diversity(fakes, reals)


@torch.inference_mode()
def spread(images: Images, distance: Distance, label: str = "Comparing", quiet: bool = False) -> Spread:
    """The mean distance of all pairs, in memory for one block at a time.

    As the distance is a squared Euclidean one, the sum over the pairs of n images is n * sum |x|^2 - |sum x|^2.
    The error is that of the pairs within blocks, so rather too large. Raises UserError where there are no pairs.
    """
    totals: dict[int, _Total] = {}
    within: list[tuple[float, float]] = []  # sum and number of the pairs of a block
    count = 0
    with Progress(label, quiet=quiet) as bar:
        for batch, classes in images:
            embedded = _flat(distance, batch)
            kinds = np.zeros(len(batch), int) if classes is None else classes.numpy()
            block = [0.0, 0.0]
            for kind in np.unique(kinds):
                rows = embedded[torch.from_numpy(kinds == kind).to(embedded.device)]
                part = _Total(len(rows), float(rows.square().sum()), rows.sum(dim=0))
                totals[int(kind)] = totals[int(kind)] + part if int(kind) in totals else part
                block = [block[0] + part.pairs[0], block[1] + part.pairs[1]]
            within.append((block[0], block[1]))
            count += len(batch)
            bar.advance(len(batch))
    distances, pairs = np.array([total.pairs for total in totals.values()]).reshape(-1, 2).sum(axis=0)
    if not pairs:
        raise UserError(f"of {count} images no two are of one class; compare more of them")
    return Spread(float(distances / pairs), _error(np.array(within)), count)


@dataclass(frozen=True)
class _Total:
    """Of n embedded images x: their number, sum |x|^2, and sum x."""

    count: int
    squares: float
    sum: Tensor

    def __add__(self, other: _Total) -> _Total:
        return _Total(self.count + other.count, self.squares + other.squares, self.sum + other.sum)

    @property
    def pairs(self) -> tuple[float, float]:
        """Sum of the distances of all pairs, and the number of pairs."""
        gap = max(0.0, self.count * self.squares - float(self.sum.square().sum()))
        return gap, self.count * (self.count - 1) / 2


def _flat(distance: Distance, images: Tensor) -> Tensor:
    """Vectors [n,D] in float64, whose squared differences are the distance."""
    parts = [x.double() / math.sqrt(x.shape[2] * x.shape[3]) for x in distance.embed(images)]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def _error(within: np.ndarray) -> float:
    """The standard error of a ratio of sums over blocks [B,2]."""
    if len(within) < 2 or not within[:, 1].sum():
        return math.nan
    ratio = within[:, 0].sum() / within[:, 1].sum()
    residuals = within[:, 0] - ratio * within[:, 1]
    return float(residuals.std(ddof=1) / math.sqrt(len(within)) / within[:, 1].mean())
