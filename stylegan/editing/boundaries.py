"""Boundaries from labels: the plane that parts w with from w without (InterFaceGAN, Shen et al. 2020).

How to move across one says `direction.along`.
"""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError
from torch_utils.text import counted

Classifier = Literal["logistic", "svm"]
Scale = Literal["truth", "probability", "quantity"]
"""What labels mean: 0 and 1, the probability of 1, or a number, of which the upper half is told from the lower."""

# The share of the pictures that counts as having it, and as not: the surest, as a classifier is sure of another share
# of generated pictures than of real ones.
SUREST = 0.1
FEWEST, FEWEST_TO_JUDGE = 2, 10  # labels of each kind
HELD_OUT, FOLDS = 0.2, 3
PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # scikit-learn's C


@dataclass(frozen=True)
class Boundary:
    """normal: [w_dim], of unit length, towards the pictures with the attribute   yes, no: labels it was learnt from
    accuracy: balanced, on a fifth of the labels that was held out (guessing: 0.5); nan where they are too few
    """

    normal: Tensor
    yes: int
    no: int
    accuracy: float


def boundary(w: Tensor, labels: np.ndarray, scale: Scale, name: str, method: Classifier = "logistic") -> Boundary:
    """The boundary in w [N,w_dim] of an attribute. labels: float [N], see `Scale`; nan where not known.

    How strongly the classifier is regularised is chosen by cross-validation, away from what is held out. The normal
    is then learnt from all labels. Raises UserError if one kind is missing, and without scikit-learn.
    """
    require_sklearn()
    yes, no = told_apart(labels, scale)
    require_both(name, yes, no)
    rows = np.concatenate([yes, no])
    x = w[rows].double().numpy()
    x = (x - x.mean(axis=0)) / x.std()  # one number, so that the normal stays one in w
    truth = np.repeat([1, 0], [len(yes), len(no)])
    trained, judged = _split(truth)
    penalty = _chosen_penalty(x[trained], truth[trained], method)
    accuracy = float("nan")
    if len(judged):
        accuracy = _balanced(_fitted(x[trained], truth[trained], penalty, method).predict(x[judged]), truth[judged])
    normal = torch.from_numpy(_fitted(x, truth, penalty, method).coef_[0])
    return Boundary((normal / normal.norm()).float(), len(yes), len(no), accuracy)


def told_apart(labels: np.ndarray, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Which have the attribute and which have not: two arrays of places in `labels` [N].

    Of probabilities the surest tenth of each kind, if they are more likely so than not, and as many of one kind as of
    the other, the surest first (Shen et al. 2020, section 4.1, take the surest as well).
    """
    known = np.flatnonzero(~np.isnan(labels))
    found = labels[known]
    if scale == "truth":
        return known[found > 0.5], known[found <= 0.5]
    if scale == "quantity" and len(known):
        median = np.median(found)
        above = found > median if found.max() > median else found >= median
        return known[above], known[~above]
    order = known[np.argsort(found, kind="stable")]
    yes, no = int((found > 0.5).sum()), int((found < 0.5).sum())
    if yes and no:
        yes = no = min(math.ceil(len(order) * SUREST), yes, no)
    return order[::-1][:yes], order[:no]


def require_both(name: str, yes: np.ndarray, no: np.ndarray) -> None:
    """Raises UserError unless there are some of each kind."""
    if min(len(yes), len(no)) < FEWEST:
        raise UserError(f"'{name}' is a single class: {counted(len(yes), 'picture')} with it, {len(no)} without; each "
                        "needs a dozen or more")  # fmt: skip


def _split(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places to learn from, and those held out: every fifth of each kind, none where there are too few."""
    kinds = [np.flatnonzero(truth == kind) for kind in (0, 1)]
    if min(map(len, kinds)) < FEWEST_TO_JUDGE:
        return np.arange(len(truth)), np.arange(0)
    every = round(1 / HELD_OUT)
    held = np.concatenate([kind[every - 1 :: every] for kind in kinds])
    return np.setdiff1d(np.arange(len(truth)), held), held


def _chosen_penalty(x: np.ndarray, truth: np.ndarray, method: Classifier) -> float:
    """The one that does best in cross-validation; of equals the weakest, which bends the normal least. x: [N,D]."""
    fold = np.empty(len(truth), int)
    for kind in (0, 1):
        fold[truth == kind] = np.arange((truth == kind).sum()) % FOLDS
    if min((truth == kind).sum() for kind in (0, 1)) < FOLDS:
        return PENALTIES[len(PENALTIES) // 2]
    scores = [
        np.mean([
            _balanced(_fitted(x[fold != f], truth[fold != f], penalty, method).predict(x[fold == f]), truth[fold == f])
            for f in range(FOLDS)
        ])
        for penalty in PENALTIES
    ]  # fmt: skip
    return PENALTIES[int(np.argmax(scores))]


def require_sklearn() -> None:
    """Raises UserError without scikit-learn, which is loaded only where it is used: it takes a second."""
    try:
        importlib.import_module("sklearn.svm")
    except ImportError as error:
        raise UserError(f"boundaries need scikit-learn ({error}); pip install 'stylegan-engine[directions]'") from None


def _fitted(x: np.ndarray, truth: np.ndarray, penalty: float, method: Classifier) -> Any:
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


def _balanced(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([(found[truth == kind] == kind).mean() for kind in (0, 1)]))
