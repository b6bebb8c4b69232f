"""Disentanglement, completeness and informativeness of codes whose factors are known (Eastwood and Williams 2018).

A model predicts each factor from the codes, and says how important each entry of the code is for it. A code is
disentangled where each entry matters for one factor only, complete where each factor needs one entry only, and
informative where factors can be predicted at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.boundaries import require_sklearn
from stylegan.editing.directions import Directions, moved
from stylegan.latents.latents import Latents
from stylegan.networks.sampling import noise_at
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.attributes import AttributeClassifier
from training.metrics.images import AS_PUBLISHED, MICRO_BATCH, Sampling, inputs_at

HELD_OUT, FEWEST = 0.25, 40


@dataclass(frozen=True)
class DCI:
    """All from 0 to 1, 1 at best. importance: of each entry of the code for each factor, [D,K]

    disentanglement: a mean over entries, each counting as much as it matters (section 2, there D)
    completeness: a mean over factors, alike (there C)   informativeness: see `predictability`, [K]
    """

    importance: np.ndarray
    disentanglement: float
    completeness: float
    informativeness: np.ndarray


def dci(codes: np.ndarray, factors: np.ndarray, quiet: bool = False) -> DCI:
    """codes: [N,D]   factors: quantities, [N,K], or kinds as numbers where they have an order.

    Factors are predicted by boosted trees, which see any dependence, also those that are not linear.
    Raises UserError without scikit-learn, for fewer than 40 samples, and for factors that are constant or no numbers.
    """
    require_sklearn()
    from sklearn.ensemble import GradientBoostingRegressor

    _check(codes, factors)
    order = np.random.default_rng(0).permutation(len(codes))
    held = int(len(codes) * HELD_OUT)
    asked, rest = order[:held], order[held:]
    centre, spread = codes[rest].mean(axis=0), codes[rest].std(axis=0)
    x = (codes - centre) / np.where(spread > 0, spread, 1)
    importance, scores = [], []
    with Progress("Predicting factors", factors.shape[1], "factor", quiet) as bar:
        for column in factors.T:
            y = (column - column[rest].mean()) / column[rest].std()
            model = GradientBoostingRegressor(random_state=0).fit(x[rest], y[rest])
            importance.append(model.feature_importances_)
            scores.append(predictability(model.predict(x[asked]), y[asked]))
            bar.advance()
    matrix = np.stack(importance, axis=1)
    return DCI(matrix, disentanglement(matrix), completeness(matrix), np.array(scores))


def disentanglement(importance: np.ndarray) -> float:
    """From the importance [D,K] of entries for factors: 1 - H of the factors that an entry matters for, to base K."""
    return _sharpness(importance)


def completeness(importance: np.ndarray) -> float:
    """From the importance [D,K]: 1 - H of the entries that matter for a factor, to base D."""
    return _sharpness(importance.T)


def predictability(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the variance of a factor [N] that is predicted, R^2, at least 0."""
    return max(0.0, 1 - float(np.square(found - truth).sum() / np.square(truth - truth.mean()).sum()))


def _sharpness(rows: np.ndarray) -> float:
    """1 - the entropy of each row to the base of its length, weighted by the row's sum. nan where all is 0."""
    total = rows.sum(axis=1)
    if not total.sum() > 0:
        return float("nan")
    if rows.shape[1] == 1:
        return 1.0
    shares = rows / np.where(total > 0, total, 1)[:, None]
    bits = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1) / np.log(rows.shape[1])
    return float(((1 - bits) * total).sum() / total.sum())


def _check(codes: np.ndarray, factors: np.ndarray) -> None:
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or len(codes) < FEWEST:
        raise UserError(f"DCI takes codes [N,D] and factors [N,K] of {FEWEST} samples or more, not "
                        f"{list(codes.shape)} and {list(factors.shape)}")  # fmt: skip
    if not np.isfinite(codes).all() or not np.isfinite(factors).all():
        raise UserError("DCI: there are codes or factors that are not known; leave those samples out")
    constant = np.flatnonzero(factors.std(axis=0) == 0)
    if len(constant):
        raise UserError(f"DCI: factor {constant[0]} is the same in all samples; leave it out")


# How pure directions are: how much each other attribute moves when images are moved along one of them


LEAST = 0.05  # standard deviations: what moves all attributes by less than this is no direction for any of them


@dataclass(frozen=True)
class Purity:
    """changes: of each attribute along each direction, in its standard deviations among random images, [K,A]

    errors: their standard errors, [K,A]   directions: names, [K]   attributes: names, [A]
    own: which attribute each direction is for, [K]   count: of images
    """

    changes: np.ndarray
    errors: np.ndarray
    directions: tuple[str, ...]
    attributes: tuple[str, ...]
    own: tuple[int, ...]
    count: int

    @property
    def scores(self) -> np.ndarray:
        """For each direction the share of its own attribute in all that changes, 1 if nothing else does: [K].

        nan where next to nothing changes.
        """
        sizes = np.abs(self.changes)
        own = sizes[np.arange(len(sizes)), list(self.own)]
        total = sizes.sum(axis=1)
        return np.where(sizes.max(axis=1) < LEAST, np.nan, own / np.where(total > 0, total, 1))


def purity(
    snapshot: Snapshot, directions: Directions, classifier: AttributeClassifier, count: int = 200,
    sampling: Sampling = AS_PUBLISHED,
) -> Purity:  # fmt: skip
    """Of each direction, on `count` random images, moved by one standard deviation forth and back.

    A change is half the difference between forth and back. A direction is for the attribute whose name it bears ("smile
    without gender" is for smile), and where there is none for the one that it changes most.
    Raises UserError for directions that do not fit the network, and images that all look alike.
    """
    if count < 2:
        raise UserError("purity needs 2 images or more")
    before: list[Tensor] = []
    forth_back: list[list[Tensor]] = [[] for _ in directions.names]
    with Progress("Moving images", count * (1 + 2 * len(directions)), quiet=sampling.quiet) as bar:
        size = max(MICRO_BATCH, sampling.batch)
        for start in range(0, count, size):
            latents = _latents(snapshot, sampling, range(start, min(start + size, count)))
            before.append(_values(snapshot, classifier, latents, sampling.batch))
            bar.advance(len(latents))
            for number, changes in enumerate(forth_back):
                one = directions[number : number + 1]
                ways = (moved(latents, one, way) for way in (1.0, -1.0))
                forth, back = (_values(snapshot, classifier, way, sampling.batch) for way in ways)
                changes.append((forth - back) / 2)
                bar.advance(2 * len(latents))
    still = torch.cat(before).numpy()
    found = np.stack([torch.cat(changes).numpy() for changes in forth_back])
    return summarised(still, found, directions.names, classifier.scope.names)


def summarised(still: np.ndarray, changes: np.ndarray, directions: Sequence[str], attributes: Sequence[str]) -> Purity:
    """From the values of images as they are [N,A], and their changes along each direction [K,N,A].

    Raises UserError for an attribute that no image differs in.
    """
    spread = still.std(axis=0, ddof=1)
    flat = [name for name, s in zip(attributes, spread, strict=True) if not s > 0]
    if flat:
        raise UserError(f"'{flat[0]}' is the same in all {len(still)} images, so there is no unit to measure it in")
    mean = changes.mean(axis=1) / spread
    errors = changes.std(axis=1, ddof=1) / spread / len(still) ** 0.5
    own = tuple(_own(name, attributes, row) for name, row in zip(directions, mean, strict=True))
    return Purity(mean, errors, tuple(directions), tuple(attributes), own, len(still))


def purity_table(found: Purity) -> list[str]:
    """A table: a line per direction, a column per attribute, the own one starred, and the score."""
    wide = max(16, *(len(name) + 1 for name in found.directions))
    cell = max(9, *(len(name) + 2 for name in found.attributes))
    lines = [f"{'':{wide}}" + "".join(f"{name:>{cell}}" for name in found.attributes) + f"{'purity':>9}"]
    for name, row, own, score in zip(found.directions, found.changes, found.own, found.scores, strict=True):
        cells = "".join(f"{f'{value:+.2f}' + ('*' if k == own else ' '):>{cell}}" for k, value in enumerate(row))
        lines.append(f"{name:{wide}}{cells}{score:9.3f}")
    largest = float(found.errors.max())
    lines.append(f"moved by 1 standard deviations of w; changes in those of the attribute "
                 f"among {found.count} images, +-{largest:.2g}")  # fmt: skip
    return lines


def _own(direction: str, attributes: Sequence[str], changes: np.ndarray) -> int:
    named = [k for k, name in enumerate(attributes) if direction == name or direction.startswith(f"{name} ")]
    return named[0] if named else int(np.abs(changes).argmax())


def _latents(snapshot: Snapshot, sampling: Sampling, positions: range) -> Latents:
    inputs = inputs_at(snapshot, sampling, positions)
    names = tuple(f"image {position}" for position in positions)
    sizes = snapshot.config.noise_shapes(snapshot.stage.resolution)
    ws = snapshot.renderer.map(inputs.z, inputs.c, psi=sampling.psi)
    return Latents(ws, names, names, c=inputs.c, noise=tuple(noise_at(inputs.places, sizes)))


def _values(snapshot: Snapshot, classifier: AttributeClassifier, latents: Latents, batch: int) -> Tensor:
    images = snapshot.renderer.draw_there(latents.ws, latents.noise or "const", batch, latents.styles)
    device = next(classifier.network.parameters()).device
    return classifier.values(images.clamp(-1, 1).to(device)).double().cpu()
