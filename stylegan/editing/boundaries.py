"""Directions from labels: the plane between w with an attribute and w without (InterFaceGAN, Shen et al. 2020).

A linear classifier finds the plane, `across` the direction that crosses it, and `conditional` takes out of a direction
what it shares with others.
"""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stylegan.editing.directions import Directions, scales_of
from stylegan.editing.settings import BoundaryMethod
from torch_utils.errors import UserError
from torch_utils.text import counted

LabelKind = Literal["truth", "probability", "quantity"]
"""What labels are: 0 and 1, the probability of 1, or a number, whose upper half counts as with the attribute."""

# The share of the images that counts as with the attribute, and as without: those with the most certain labels, because
# a classifier is certain of another share of generated images than of real ones.
MOST_CERTAIN = 0.1
FEWEST, FEWEST_TO_HOLD_OUT = 2, 10  # labels of each kind
HELD_OUT, FOLDS = 0.2, 3
PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # scikit-learn's C
MIDDLE_PENALTY = PENALTIES[len(PENALTIES) // 2]
FEW = 50  # labels of a kind, below which each of them is held out once
FOLDS_OF_FEW = 5
SHUFFLES = 1000  # of the labels, for the level of chance


# With and without


def split_by_label(labels: np.ndarray, kind: LabelKind) -> tuple[np.ndarray, np.ndarray]:
    """The indices of labels [N] that count as with the attribute, and of those that count as without.

    Probabilities: the most certain tenth of either side of 0.5, as many of one as of the other, the most certain first
    (Shen et al. 2020, section 4.1, use the most certain ones as well).
    """
    known = np.flatnonzero(~np.isnan(labels))
    found = labels[known]
    if kind == "truth":
        return known[found > 0.5], known[found <= 0.5]
    if kind == "quantity" and len(known):
        median = np.median(found)
        above = found > median if found.max() > median else found >= median
        return known[above], known[~above]
    order = known[np.argsort(found, kind="stable")]
    yes, no = int((found > 0.5).sum()), int((found < 0.5).sum())
    if yes and no:
        yes = no = min(math.ceil(len(order) * MOST_CERTAIN), yes, no)
    return order[::-1][:yes], order[:no]


def require_both(name: str, yes: np.ndarray, no: np.ndarray) -> None:
    """Raises UserError unless there are some with and some without the attribute `name`."""
    if min(len(yes), len(no)) < FEWEST:
        raise UserError(f"'{name}' is a single class: {counted(len(yes), 'image')} with it, {len(no)} without; label a "
                        "dozen or more of each")  # fmt: skip


# The boundary


@dataclass(frozen=True)
class Boundary:
    """normal: [w_dim], of unit length, towards the images with the attribute   yes, no: how many labels it comes from
    accuracy: balanced, on labels that were held out (guessing: 0.5); nan if they are too few
    chance: the accuracy that the same labels in random order exceed in one of twenty cases; nan without accuracy
    """

    normal: Tensor
    yes: int
    no: int
    accuracy: float
    chance: float = float("nan")


def fit_boundary(
    w: Tensor, labels: np.ndarray, kind: LabelKind, name: str, method: BoundaryMethod = "logistic"
) -> Boundary:
    """The boundary in w [N,w_dim] of the attribute `name`. labels: float [N], see `LabelKind`; nan if unknown.

    Cross-validation, without the labels that are held out, chooses how strongly the classifier is regularised. The
    normal then comes from all labels. Raises UserError if one side has too few labels, and without scikit-learn.
    """
    require_sklearn()
    yes, no = split_by_label(labels, kind)
    require_both(name, yes, no)
    rows = np.concatenate([yes, no])
    x = w[rows].double().numpy()
    x = (x - x.mean(axis=0)) / x.std()  # a single number, so that the normal stays one in w
    truth = np.repeat([1, 0], [len(yes), len(no)])
    used, held_out = _held_out(truth)
    penalty = _best_penalty(x[used], truth[used], method)
    accuracy = chance = float("nan")
    if len(held_out) and min(len(yes), len(no)) < FEW:
        accuracy, chance = accuracy_of_few(x, truth)
    elif len(held_out):
        found = _fitted(x[used], truth[used], penalty, method).predict(x[held_out])
        accuracy, chance = _balanced_accuracy(found, truth[held_out]), accuracy_by_chance(found, truth[held_out])
    normal = torch.from_numpy(_fitted(x, truth, penalty, method).coef_[0])
    return Boundary((normal / normal.norm()).float(), len(yes), len(no), accuracy, chance)


def require_sklearn() -> None:
    """Raises UserError without scikit-learn, which is loaded only when it is used, because that takes a second."""
    try:
        importlib.import_module("sklearn.svm")
    except ImportError as error:
        raise UserError(f"boundaries need scikit-learn ({error}); pip install 'stylegan-engine[directions]'") from None


def _held_out(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices to learn from, and those held out: every fifth of each kind, or none if there are too few."""
    kinds = [np.flatnonzero(truth == kind) for kind in (0, 1)]
    if min(map(len, kinds)) < FEWEST_TO_HOLD_OUT:
        return np.arange(len(truth)), np.arange(0)
    every = round(1 / HELD_OUT)
    held_out = np.concatenate([kind[every - 1 :: every] for kind in kinds])
    return np.setdiff1d(np.arange(len(truth)), held_out), held_out


def accuracy_by_chance(found: np.ndarray, truth: np.ndarray) -> float:
    """What random labels reach where nothing is fitted to them: the labels held out [N], in other orders."""
    rng = np.random.default_rng(0)
    return _one_of_twenty([_balanced_accuracy(found, rng.permutation(truth)) for _ in range(SHUFFLES)])


def accuracy_of_few(x: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The accuracy of few labels, each of which is held out once, and what random labels reach in the same way.

    A fifth of some dozens tells nothing. By least squares (Fisher's discriminant, shrunk), whose solution is linear in
    the labels, so that those in hundreds of other orders cost no more. x: [N,D]
    """
    rng, count = np.random.default_rng(0), len(truth)
    fold = np.empty(count, int)
    for kind in (0, 1):
        fold[truth == kind] = np.arange((truth == kind).sum()) % FOLDS_OF_FEW
    labels = np.repeat(truth[:, None], 1 + SHUFFLES, axis=1)  # in order, and each fold shuffled
    found = np.empty_like(labels)
    for f in range(FOLDS_OF_FEW):
        labels[fold == f, 1:] = rng.permuted(labels[fold == f, 1:], axis=0)
    for f in range(FOLDS_OF_FEW):
        seen, asked = x[fold != f], x[fold == f]
        asked, seen = asked - seen.mean(axis=0), seen - seen.mean(axis=0)
        yes = labels[fold != f] == 1
        inner = seen @ seen.T
        shares = np.where(yes, 1 / yes.sum(axis=0), -1 / (~yes).sum(axis=0))
        weights = np.linalg.solve(inner + np.trace(inner) / len(seen) * np.eye(len(seen)), shares)
        scores = inner @ weights
        middle = (np.where(yes, scores, 0).sum(axis=0) / yes.sum(axis=0)
                  + np.where(yes, 0, scores).sum(axis=0) / (~yes).sum(axis=0)) / 2  # fmt: skip
        found[fold == f] = asked @ seen.T @ weights > middle
    accuracies = [_balanced_accuracy(*pair) for pair in zip(found.T, labels.T, strict=True)]
    return accuracies[0], _one_of_twenty(accuracies[1:])


def _one_of_twenty(accuracies: list[float]) -> float:
    return float(np.quantile(accuracies, 0.95, method="higher"))


def _best_penalty(x: np.ndarray, truth: np.ndarray, method: BoundaryMethod) -> float:
    """The best one in cross-validation; among equals the weakest, which bends the normal least. x: [N,D]."""
    if np.bincount(truth, minlength=2).min() < FOLDS:
        return MIDDLE_PENALTY
    fold = np.empty(len(truth), int)
    for kind in (0, 1):
        fold[truth == kind] = np.arange((truth == kind).sum()) % FOLDS

    def accuracy(penalty: float, f: int) -> float:
        model = _fitted(x[fold != f], truth[fold != f], penalty, method)
        return _balanced_accuracy(model.predict(x[fold == f]), truth[fold == f])

    return max(PENALTIES, key=lambda penalty: np.mean([accuracy(penalty, f) for f in range(FOLDS)]))


def _fitted(x: np.ndarray, truth: np.ndarray, penalty: float, method: BoundaryMethod) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if method == "svm":
        model = LinearSVC(C=penalty, class_weight="balanced", dual=len(x) < x.shape[1], random_state=0, max_iter=5000)
    else:
        model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough: the accuracy is printed
        return model.fit(x, truth)


def _balanced_accuracy(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([(found[truth == kind] == kind).mean() for kind in (0, 1)]))


# From boundaries to directions


def across(normals: Tensor, cov: Tensor) -> Tensor:
    """The directions [K,w_dim] that cross planes fastest. normals: of the planes, [K,w_dim]; cov: as in `scales_of`.

    Among all steps of the same length in standard deviations of w, cov n changes n.w most. The normal itself points
    where w varies least, because there a small difference is enough to separate, and images moved along it hardly
    change.
    """
    return normals.double() @ cov


def conditional(direction: Directions, others: Directions, cov: Tensor) -> Directions:
    """The one direction without what it shares with `others`, so that they stay as they are (Shen et al. 2020, 3.3).

    Projected out in whitened w, which varies equally in every direction. A move then keeps the side of a boundary whose
    direction (see `across`) is among `others`. cov: covariance of the w of random images. Raises UserError if nothing
    is left of the direction.
    """
    if direction.styles or others.styles:
        raise UserError("directions that edit styles are already independent; choose directions in w")
    rows = max(direction.vectors.shape[1], others.vectors.shape[1])
    axes, deviations = _principal_axes(cov)
    whitened, shared = (
        (part.expand(-1, rows, -1).double() @ axes / deviations).flatten(1)
        for part in (direction.vectors[:1], others.vectors)
    )
    basis, _ = torch.linalg.qr(shared.T)
    left = whitened[0] - basis @ (basis.T @ whitened[0])
    # Twice: if little is left, rounding leaves a part of what was projected out.
    left = left - basis @ (basis.T @ left)
    if left.norm() < 1e-3 * whitened[0].norm():
        raise UserError(f"nothing is left of '{direction.names[0]}' without {', '.join(others.names)}; leave out those "
                        "that mean the same")  # fmt: skip
    in_w = left.view(1, rows, -1) * deviations @ axes.T
    vectors = (in_w / in_w.norm() * rows**0.5).float()
    name = f"{direction.names[0]} without {', '.join(others.names)}"
    unknown = torch.full((1,), torch.nan)
    return replace(direction, vectors=vectors, names=(name,), scales=scales_of(vectors, cov), accuracies=unknown,
                   shares=unknown, chances=None)  # fmt: skip


def _principal_axes(cov: Tensor) -> tuple[Tensor, Tensor]:
    """The principal axes [w_dim,w_dim] of w, in columns, and its deviations along them [w_dim], never quite 0."""
    values, axes = torch.linalg.eigh(cov)
    return axes, values.clamp(min=1e-8 * float(values.max())).sqrt()
