"""Has the discriminator memorised its data?

(Karras et al. 2020, "Training generative adversarial networks with limited data", section 3.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.base import Discriminator
from stylegan.networks.config import Stage
from stylegan.networks.inference import folded
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.data.archive import Archive
from training.metrics.images import AS_PUBLISHED, Sampling, chosen, real_batches, samples_of

GROUPS = 8  # of minibatch statistics in a batch


@dataclass(frozen=True)
class Overfitting:
    """The discriminator's logits: of images trained on, of generated ones, and of real ones held out (or none)."""

    train: np.ndarray
    fake: np.ndarray
    validation: np.ndarray

    @property
    def r_t(self) -> float:
        """E[sign D(train)] (equation 1): 0 where it guesses, 1 where it is sure of all that it was trained on.

        It means something for losses that draw the border at 0, not for those that compare reals with fakes.
        """
        return float(np.sign(self.train).mean())

    @property
    def r_pairs(self) -> float:
        """E[sign (D(train) - D(fake))] over all pairs: the same for a discriminator that is trained to compare."""
        ordered = np.sort(self.fake)
        below, up_to = (np.searchsorted(ordered, self.train, side=side) for side in ("left", "right"))
        return float((below + up_to - len(ordered)).mean() / len(ordered))

    @property
    def r_v(self) -> float:
        """(E[D(train)] - E[D(validation)]) / (E[D(train)] - E[D(fake)]) (equation 1), nan without validation.

        0: what is held out looks as real as what was trained on. 1: it looks like a fake.
        """
        gap = self.train.mean() - self.fake.mean()
        return float((self.train.mean() - self.validation.mean()) / gap) if len(self.validation) and gap else math.nan

    @property
    def r_v_error(self) -> float:
        """The standard error of r_v, from the spread of the logits."""
        if not len(self.validation):
            return math.nan
        gap, ratio = self.train.mean() - self.fake.mean(), self.r_v
        variances = [x.var(ddof=1) / len(x) for x in (self.train, self.validation, self.fake)]
        weights = ((1 - ratio) ** 2, 1.0, ratio**2)
        return float(math.sqrt(sum(w * v for w, v in zip(weights, variances, strict=True))) / abs(gap))


def overfitting(
    snapshot: Snapshot, train: Archive, validation: Archive | None = None, count: int = 500,
    sampling: Sampling = AS_PUBLISHED,
) -> Overfitting:  # fmt: skip
    """From `count` images of each kind. The fakes are those of the averaged generator.

    Raises UserError without a discriminator, and for archives that are too small or do not fit the network.
    """
    if snapshot.D is None:
        raise UserError("this snapshot has no discriminator, so there is no telling what it has learnt")
    D = folded(snapshot.D)
    group = max(snapshot.config.minibatch_group, 1)
    if count < group * 2:
        raise UserError(f"{count} images are too few; use 500 or so")
    count -= count % group  # as the statistics of a smaller group are others
    size = GROUPS * group
    total = count * (2 if validation is None else 3)

    def logits(batches: Iterable[tuple[Tensor, Tensor | None]]) -> np.ndarray:
        found = []
        for images, c in batches:
            found.append(logits_of(D, images.to(snapshot.device), c, snapshot.stage))
            bar.advance(len(images))
        return np.concatenate(found)

    def of_reals(archive: Archive) -> np.ndarray:
        places = np.random.default_rng(0).permutation(chosen(archive, count, sampling.seed))  # neighbours may be alike
        return logits(real_batches(archive, snapshot, places, size))

    with Progress("Asking the discriminator", total, quiet=sampling.quiet) as bar:
        reals, held_out = of_reals(train), np.zeros(0) if validation is None else of_reals(validation)
        fakes = logits((part.images, part.c) for part in samples_of(snapshot, sampling, count, size=size))
    return Overfitting(reals, fakes, held_out)


@torch.inference_mode()
def logits_of(D: Discriminator, images: Tensor, c: Tensor | None, stage: Stage) -> np.ndarray:
    """Logits, float64 [N], with the minibatch statistics of each run of `minibatch_group` images by itself.

    So they do not depend on how many are seen at once. D puts image i with i + N / group, and so on.
    """
    group = max(D.config.minibatch_group, 1)
    order = torch.arange(len(images)).view(-1, group).T.flatten()
    classes = None if c is None else c.to(images.device)[order]
    scores = D(images[order], classes, stage).double().cpu()
    found = torch.empty_like(scores)
    found[order] = scores
    return found.numpy()
