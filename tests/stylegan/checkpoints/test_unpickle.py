"""Plain data and arrays come out of a pickle as they went in; other files are named for what they are."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stylegan.checkpoints.unpickle import Array, Record, parse_pickle, read_pickle
from torch_utils.errors import UserError

DATA = Path(__file__).parents[2] / "data"
FILES = ["stylegan_r32.pkl", "progan_r32.pkl"]
NUMBERS = st.one_of(
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    st.just(np.dtype(bool)),
)


@pytest.mark.parametrize("name", FILES)
def test_network_files_open(name: str) -> None:
    networks = read_pickle(DATA / name)
    assert [n.state["name"] for n in networks] == ["G", "D", "Gs"]
    assert all(isinstance(n, Record) for n in networks)
    assert all(isinstance(value, (Array, np.float32)) for n in networks for _, value in n.state["variables"])


@pytest.mark.parametrize("protocol", [2, 3, 4])
@given(array=hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)), fortran=st.booleans())
def test_arrays_survive(array: np.ndarray, fortran: bool, protocol: int) -> None:
    assume(array.size or protocol > 2)  # where Python writes a call of bytes()
    array = np.asarray(array, order="F" if fortran else "C")
    found = parse_pickle(pickle.dumps(array, protocol)).data
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@given(number=hnp.arrays(NUMBERS, ()))
def test_numpy_numbers_survive(number: np.ndarray, protocol: int) -> None:
    found = parse_pickle(pickle.dumps(number[()], protocol))
    assert found.dtype == number[()].dtype
    np.testing.assert_array_equal(found, number)


KEYS = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.binary())
NAMES = st.one_of(st.text(), st.integers(-(2**31), 2**31 - 1), st.floats(allow_nan=False), st.binary())
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), KEYS),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(NAMES, inner),
        st.dictionaries(st.text(), inner).map(collections.OrderedDict),
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("protocol", [3, 4])
@given(value=PLAIN)
def test_plain_data_survive(value: Any, protocol: int) -> None:
    assert parse_pickle(pickle.dumps([value, value], protocol)) == [value, value]


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "web page"),
        (b"PK\x03\x04rest", "a zip file; this project opens"),
        (b"", "download it again"),
        (b"version https://git-lfs", "git lfs pull"),
        (None, "check the path"),
    ],
)
def test_other_files_are_named_for_what_they_are(content: bytes | None, advice: str, tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=advice):
        read_pickle(path)


def test_a_directory_is_no_network_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="check the path"):
        read_pickle(tmp_path)
