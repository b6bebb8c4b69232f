"""Disentanglement, completeness and informativeness of codes whose factors are known (Eastwood and Williams 2018).

A model predicts each factor from the codes, and says how important each entry of the code is for it. A code is
disentangled where each entry matters for one factor only, complete where each factor needs one entry only, and
informative where factors can be predicted at all.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stylegan.directions.boundaries import require_sklearn
from torch_utils.errors import UserError
from torch_utils.progress import Progress

Method = Literal["lasso", "boosting"]
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


def dci(
    codes: np.ndarray, factors: np.ndarray, method: Method = "boosting", seed: int = 0, quiet: bool = False
) -> DCI:  # fmt: skip
    """codes: [N,D]   factors: quantities, [N,K] (kinds as numbers do with boosting where they have an order).

    "lasso" sees what depends on an entry in a straight line, and is quick; "boosting" sees any dependence.
    Raises UserError without scikit-learn, for fewer than 40 samples, and for factors that are constant or no numbers.
    """
    require_sklearn()
    _check(codes, factors)
    order = np.random.default_rng(seed).permutation(len(codes))
    held = int(len(codes) * HELD_OUT)
    asked, rest = order[:held], order[held:]
    centre, spread = codes[rest].mean(axis=0), codes[rest].std(axis=0)
    x = (codes - centre) / np.where(spread > 0, spread, 1)
    importance, scores = [], []
    with Progress("Predicting factors", factors.shape[1], "factor", quiet) as bar:
        for column in factors.T:
            y = (column - column[rest].mean()) / column[rest].std()
            model = _fitted(x[rest], y[rest], method, seed)
            importance.append(np.abs(model.coef_) if method == "lasso" else model.feature_importances_)
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


def _fitted(x: np.ndarray, y: np.ndarray, method: Method, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LassoCV

    if method == "boosting":
        return GradientBoostingRegressor(random_state=seed).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at penalties that are not chosen
        return LassoCV(cv=3, random_state=seed).fit(x, y)


def _check(codes: np.ndarray, factors: np.ndarray) -> None:
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or len(codes) < FEWEST:
        raise UserError(f"DCI takes codes [N,D] and factors [N,K] of {FEWEST} samples or more, not "
                        f"{list(codes.shape)} and {list(factors.shape)}")  # fmt: skip
    if not np.isfinite(codes).all() or not np.isfinite(factors).all():
        raise UserError("DCI: there are codes or factors that are not known; leave those samples out")
    constant = np.flatnonzero(factors.std(axis=0) == 0)
    if len(constant):
        raise UserError(f"DCI: factor {constant[0]} is the same in all samples; leave it out")
