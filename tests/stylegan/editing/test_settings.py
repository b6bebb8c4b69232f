"""Strengths as they are typed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stylegan.editing.settings import Labels, Search, check_search, parse_strengths
from torch_utils.errors import UserError


def test_lists_and_ranges():
    assert parse_strengths("-2,0,1.5") == (-2, 0, 1.5)
    assert parse_strengths("-3:3:7") == (-3, -2, -1, 0, 1, 2, 3)
    assert parse_strengths("1:-1:2") == (1, -1)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1:2", "1:2:1", "1:2:x", "1:2:3:4", "nan", "inf,1", "0:1:5000"])
def test_what_is_none(text):
    with pytest.raises(UserError):
        parse_strengths(text)


@pytest.mark.parametrize(("search", "says"), [
    (Search(method="labels"), "--labels is missing"), (Search(count=0), "--count 0"),
    (Search(labels=Labels(labels=".")), "for --method labels, not pca"),
    (Search(method="labels", labels=Labels(labels="none.csv")), "no none.csv"),
    (replace(Search(), labels=Labels(samples=1)), "--samples 1"),
    (Search(count=5, labels=Labels(samples=5)), "--samples 5 are too few for 5"),
])  # fmt: skip
def test_what_no_network_could_serve(search, says):
    with pytest.raises(UserError, match=says):
        check_search(search)
