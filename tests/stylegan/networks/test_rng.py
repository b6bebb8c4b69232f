"""Random numbers depend on seed, stream and position, and on nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stylegan.networks.sampling import generator

keys = st.tuples(st.integers(0, 2**63), st.sampled_from(["z", "noise", "order"]), st.integers(0, 2**40))


def draw(seed: int, stream: str, position: int, n: int = 16) -> np.ndarray:
    return generator(seed, stream, position).integers(0, 2**63, n)


@given(keys)
def test_the_same_key_gives_the_same_numbers(key):
    np.testing.assert_array_equal(draw(*key), draw(*key))


@given(keys, keys)
def test_other_keys_give_other_numbers(a, b):
    assert (a == b) == np.array_equal(draw(*a), draw(*b))


def test_neighbouring_positions_do_not_overlap_however_much_is_drawn():
    first, second = (set(draw(0, "z", position, 10_000).tolist()) for position in (0, 1))
    assert len(first) == len(second) == 10_000
    assert not first & second


def test_numbers_look_normal_across_positions():
    values = np.array([generator(3, "z", position).standard_normal() for position in range(4000)])
    assert abs(values.mean()) < 0.06
    assert abs(values.std() - 1) < 0.05
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06


def test_negative_seeds_are_seeds():
    assert not np.array_equal(draw(-1, "z", 0), draw(1, "z", 0))
