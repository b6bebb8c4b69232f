"""What the discriminator makes of images: has it memorised its data, and which images does it find real?

(On memorising: Karras et al. 2020, "Training generative adversarial networks with limited data", section 3.)
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.render import View, classes_for_seeds
from stylegan.networks.base import Discriminator
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.inference import folded
from torch_utils.errors import UserError
from torch_utils.images import TEXT, grid, to_uint8
from torch_utils.progress import Progress
from torch_utils.text import counted, shortened
from training.data.archive import Archive
from training.metrics.images import AS_PUBLISHED, Sampling, chosen, pages, real_batches, samples_of, shuffled
from training.metrics.memorisation import worded

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

    Raises UserError without a discriminator, for a count that `require_groups` refuses, and for archives that are too
    small or do not fit the network.
    """
    D = discriminator_of(snapshot)
    require_groups(count, snapshot.config)
    size = GROUPS * group_of(snapshot.config)
    lacking = -count % group_of(
        snapshot.config
    )  # to complete the last group: the statistics of a smaller one are others
    total = (count + lacking) * (2 if validation is None else 3)

    def logits(batches: Iterable[tuple[Tensor, Tensor | None]]) -> np.ndarray:
        found = []
        for images, c in batches:
            found.append(logits_of(D, images.to(snapshot.device), c, snapshot.stage))
            bar.advance(len(images))
        return np.concatenate(found)

    def of_reals(archive: Archive) -> np.ndarray:
        places = np.random.default_rng(0).permutation(chosen(archive, count, sampling.seed))  # neighbours may be alike
        places = np.concatenate([places, places[:lacking]])
        return logits(real_batches(archive, snapshot, places, size))[:count]

    with Progress("Asking the discriminator", total, quiet=sampling.quiet) as bar:
        reals, held_out = of_reals(train), np.zeros(0) if validation is None else of_reals(validation)
        drawn = samples_of(snapshot, sampling, count + lacking, size=size)
        fakes = logits((part.images, part.c) for part in drawn)[:count]
    return Overfitting(reals, fakes, held_out)


def discriminator_of(snapshot: Snapshot) -> Discriminator:
    """The discriminator, ready for use. Raises UserError if the file has none."""
    require_discriminator(snapshot.D is not None)
    assert snapshot.D is not None
    return folded(snapshot.D)


def require_discriminator(there: bool) -> None:
    """Raises UserError if the file of the network has no discriminator."""
    if not there:
        raise UserError("this file of a network has no discriminator; give a snapshot of a run, which has one")


def group_of(config: NetworkConfig) -> int:
    """How many images the discriminator compares with each other."""
    return max(config.minibatch_group, 1)


def require_groups(count: int, config: NetworkConfig) -> None:
    """Raises UserError for fewer images than two groups of the discriminator."""
    group = group_of(config)
    if count < 2 * group:
        raise UserError(f"this discriminator sees groups of {counted(group, 'image')}, two or more of them; ask for "
                        f"overfit{max(500, 2 * group)}")  # fmt: skip


@torch.inference_mode()
def logits_of(D: Discriminator, images: Tensor, c: Tensor | None, stage: Stage) -> np.ndarray:
    """Logits, float64 [N], with the minibatch statistics of each run of `minibatch_group` images by itself.

    So they do not depend on how many are seen at once. D puts image i with i + N / group, and so on.
    """
    group = group_of(D.config)
    order = torch.arange(len(images)).view(-1, group).T.flatten()
    classes = None if c is None else c.to(images.device)[order]
    scores = D(images[order], classes, stage).double().cpu()
    found = torch.empty_like(scores)
    found[order] = scores
    return found.numpy()


# Which images it finds real: all of them ranked by their scores


ROUNDS = 4  # in which each image is seen among others
SHOWN, COLUMNS, LINE = 24, 8, 4  # of the best and of the worst on the sheet; pixels between them
CLASSES = 50  # on the sheet of classes


@dataclass(frozen=True)
class Ranking:
    """keys: names of files, or seeds   scores: of the discriminator, high means real, float64 [N]
    classes: int64 [N], or None   images: some of them by their places, uint8 [n,C,H,W]
    """

    keys: Sequence[str] | Sequence[int]
    scores: np.ndarray
    classes: np.ndarray | None
    images: Callable[[np.ndarray], np.ndarray]

    @cached_property
    def order(self) -> np.ndarray:
        """The places of the images, the one with the highest score first: [N]."""
        return np.argsort(-self.scores, kind="stable")

    @cached_property
    def by_class(self) -> dict[int, np.ndarray]:
        """The same for each class, those with the lowest mean score first: their numbers, and the places [n]."""
        assert self.classes is not None, "see `require_classes`"
        found = {int(c): self.order[self.classes[self.order] == c] for c in np.unique(self.classes)}
        return dict(sorted(found.items(), key=lambda item: float(self.scores[item[1]].mean())))


def require_classes(source: Snapshot | Archive) -> None:
    """Raises UserError if images have no classes to rank them in."""
    if source.labels is None if isinstance(source, Archive) else not source.config.num_classes:
        what = f"{source.path} has no labels" if isinstance(source, Archive) else "this network is unconditional"
        raise UserError(f"--per-class: {what}; give images of classes, or leave the option out")


def rank_files(
    snapshot: Snapshot, archive: Archive, batch: int = 8, quiet: bool = False, labelled: bool = False
) -> Ranking:  # fmt: skip
    """labelled: with the classes of the archive also where the network has none

    Raises UserError without a discriminator, for fewer images than one of its groups, and for images or classes that
    do not fit the network.
    """
    stored, num_classes = pages(archive, snapshot), snapshot.config.num_classes
    if num_classes and archive.num_classes > num_classes:
        raise UserError(f"{archive.path} has {archive.num_classes} classes, this network knows {num_classes}; give the "
                        "data that it was trained on")  # fmt: skip
    order = shuffled(len(archive), 0)  # neighbours may be alike
    batches = real_batches(archive, snapshot, order, GROUPS * group_of(snapshot.config))
    scores = np.empty(len(archive))
    scores[order] = _scores(snapshot, batches, len(archive), batch, quiet)
    return Ranking(
        archive.names, scores, archive.labels if num_classes or labelled else None, lambda places: stored[places]
    )


def rank_seeds(view: View, seeds: Sequence[int], batch: int = 8, quiet: bool = False) -> Ranking:
    """The images that `generate.py` generates from seeds, of all classes in turn: seed S is of class S, and so on.

    Raises UserError without a discriminator, and for fewer images than one of its groups.
    """
    snapshot, num_classes = view.snapshot, view.snapshot.config.num_classes
    c, size = classes_for_seeds(range(num_classes), seeds, num_classes), GROUPS * group_of(snapshot.config)

    def some(places: Sequence[int]) -> Tensor:
        chosen = [seeds[place] for place in places]
        return view.render(chosen, None if c is None else c[list(places)], min(batch, size)).clamp(-1, 1)

    def batches() -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, len(seeds), size):
            places = range(start, min(start + size, len(seeds)))
            yield some(places).to(snapshot.device), None if c is None else c[list(places)]

    scores = _scores(snapshot, batches(), len(seeds), batch, quiet)
    classes = None if c is None else c.numpy()
    return Ranking(seeds, scores, classes, lambda places: to_uint8(some(places.tolist())).transpose(0, 3, 1, 2))


def _scores(
    snapshot: Snapshot, batches: Iterable[tuple[Tensor, Tensor | None]], count: int, batch: int, quiet: bool
) -> np.ndarray:  # fmt: skip
    """The scores of `count` images, float64 [count], by how far each is above the mean of its groups.

    Which images are in its group changes the score of an image more than its rank should bear: of the included faces64
    two rankings by plain scores correlate with 0.74, by these with 0.98. batch: images that D looks at at once
    """
    D, group = discriminator_of(snapshot), group_of(snapshot.config)
    if count < 2 * group:
        raise UserError(f"this discriminator sees groups of {counted(group, 'image')} and ranks two of them or more; "
                        f"there are {counted(count, 'image')}, give more")  # fmt: skip
    rng, found, means = np.random.default_rng(0), list[np.ndarray](), list[float]()
    side_by_side, rounds = group * max(1, batch // group), ROUNDS if group > 1 else 1
    before: tuple[Tensor, Tensor | None] | None = None
    with Progress("Asking the discriminator", count, quiet=quiet) as bar:
        for new, new_c in batches:
            images, c = _whole_groups(new, new_c, before or (new, new_c), group)
            total = np.zeros(len(images))
            for _ in range(rounds):
                order = torch.from_numpy(rng.permutation(len(images)))
                parts = [
                    logits_of(D, images[some], None if c is None else c[some], snapshot.stage)
                    for some in order.split(side_by_side)
                ]
                scores = np.concatenate(parts).reshape(-1, group)
                means.append(float(scores.mean()))
                total[order] += (scores - scores.mean(axis=1, keepdims=True) * (group > 1)).flatten() / rounds
            found.append(total[: len(new)])
            bar.advance(len(new))
            before = images, c
    return np.concatenate(found) + (float(np.mean(means)) if group > 1 else 0.0)


def _whole_groups(
    images: Tensor, c: Tensor | None, others: tuple[Tensor, Tensor | None], group: int
) -> tuple[Tensor, Tensor | None]:
    """A last batch with some of the images before it, so that all its groups are complete."""
    lacking = -len(images) % group
    classes = None if c is None or others[1] is None else torch.cat([c, others[1][:lacking]])
    return torch.cat([images, others[0][:lacking]]), classes


def listed(ranking: Ranking, per_class: bool = False) -> str:
    """A CSV with a row for each image, the best first. per_class: class by class, each with ranks of its own"""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seeds = isinstance(ranking.keys[0], int)
    classes = [] if ranking.classes is None else ["class"]
    writer.writerow(["rank", "seed" if seeds else "file", "score", *classes])
    for places in ranking.by_class.values() if per_class else [ranking.order]:
        for number, place in enumerate(places, 1):
            row = [number, ranking.keys[place], f"{ranking.scores[place]:.6g}"]
            writer.writerow(row if ranking.classes is None else [*row, ranking.classes[place]])
    return text.getvalue()


def table_of_classes(ranking: Ranking, names: Sequence[str]) -> str:
    """For the terminal: classes, the one with the lowest mean score first; of many, the first CLASSES."""
    lines = ["Classes, the worst first: how many images, their mean score, the worst image"]
    for c, places in islice(ranking.by_class.items(), CLASSES):
        name = " ".join(dict.fromkeys([str(c), *names[c : c + 1]]))
        worst = shortened(str(ranking.keys[places[-1]]), 60)
        lines.append(f"  {name:<16}  {len(places):>6}  {ranking.scores[places].mean():+8.3f}  {worst}")
    rest = len(ranking.by_class) - CLASSES
    return "\n".join([*lines, *[f"  and {rest} more"] * (rest > 0)])


def contact_sheet(ranking: Ranking) -> np.ndarray:
    """uint8 [H,W,3 or 4]: the best, and below a line the worst, each with its rank, its name and its score."""
    half = min(SHOWN, len(ranking.order) // 2)
    best, worst = (grid(cells, min(COLUMNS, half)) for cells in _ends(ranking, ranking.order, half, half))
    return np.concatenate([best, np.full_like(best[:LINE], TEXT), worst])


def class_sheet(ranking: Ranking) -> np.ndarray:
    """The same with a row for each of the first CLASSES of `by_class`: its best and, to the right, its worst."""
    half = COLUMNS // 2
    rows = [
        _ends(ranking, places, min(half, (len(places) + 1) // 2), min(half, len(places) // 2))
        for places in islice(ranking.by_class.values(), CLASSES)
    ]
    blank = np.zeros_like(rows[0][0][0])
    best, worst = (
        grid([cell for ends in rows for cell in [*ends[side], *[blank] * (half - len(ends[side]))]], half, len(rows))
        for side in (0, 1)
    )
    return np.concatenate([best, np.full_like(best[:, :LINE], TEXT), worst], axis=1)


def _ends(
    ranking: Ranking, places: np.ndarray, first: int, last: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:  # fmt: skip
    """The images at the first and at the last of some ranked places, with captions."""
    ranks = np.array([*range(first), *range(len(places) - last, len(places))])
    cells = [
        worded(image, f"{rank + 1}. {PurePosixPath(str(ranking.keys[place])).stem[-12:]} {ranking.scores[place]:+.2f}")
        for rank, place, image in zip(ranks, places[ranks], ranking.images(places[ranks]), strict=True)
    ]
    return cells[:first], cells[first:]
