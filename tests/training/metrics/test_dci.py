"""1 where each entry of a code is one factor, clearly less where factors are spread over entries."""

from __future__ import annotations

import numpy as np
import pytest

from torch_utils.errors import UserError
from training.metrics.latent_structure import completeness, dci, disentanglement


def uniform(count: int = 400, factors: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, factors))


def turned(x: np.ndarray) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((x.shape[1],) * 2))
    return x @ q


def test_a_permuted_identity_scores_one_and_a_rotation_clearly_less():
    factors = uniform()
    codes = factors[:, [2, 0, 1]] * [1, 20, -3]
    found, other = dci(codes, factors), dci(turned(codes / [1, 20, -3]), factors)
    assert found.importance.argmax(axis=0).tolist() == [1, 2, 0]
    assert min(found.disentanglement, found.completeness, *found.informativeness) > 0.9
    assert max(other.disentanglement, other.completeness) < 0.7
    assert min(other.informativeness) > 0.8  # nothing is lost by a rotation


def test_a_factor_held_twice_is_disentangled_and_not_complete():
    importance = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert disentanglement(importance) == pytest.approx(1)
    assert completeness(importance) == pytest.approx((2 * (1 - np.log(2) / np.log(3)) + 1) / 3)
    assert completeness(importance.T) == pytest.approx(1)  # and a code for two factors the other way round


def test_entries_that_matter_for_nothing_do_not_count():
    importance = np.eye(3)
    padded = np.concatenate([importance, np.zeros((4, 3))])
    assert disentanglement(padded) == disentanglement(importance) == 1 and completeness(padded) == 1
    assert disentanglement(np.ones((3, 3))) == pytest.approx(0) and np.isnan(disentanglement(np.zeros((2, 2))))
    assert disentanglement(np.ones((3, 1))) == 1  # one factor cannot be mixed up


def test_noise_informs_of_nothing_and_what_is_bent_is_seen():
    factors = uniform(300, 2)
    noise = np.random.default_rng(5).standard_normal((300, 2))
    assert max(dci(noise, factors).informativeness) < 0.1
    bent = np.abs(factors) * 3
    assert min(dci(factors, bent).informativeness) > 0.9


@pytest.mark.parametrize(("codes", "factors", "says"), [
    (np.ones((10, 2)), np.ones((10, 2)), "40 samples or more"), (uniform(), uniform()[:, 0], "codes"),
    (uniform(), uniform() * [1, 0, 1], "factor 1 is the same"), (uniform() * np.nan, uniform(), "not known"),
])  # fmt: skip
def test_what_has_no_dci(codes, factors, says):
    with pytest.raises(UserError, match=says):
        dci(codes, factors)
