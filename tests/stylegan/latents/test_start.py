"""The notation for the images that a tool starts from."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.latents.notation import is_photograph, parse_points
from torch_utils.errors import UserError
from torch_utils.text import parse_seeds


def test_seeds_and_files_in_the_order_written():
    text = "0-2, a/me.latent.safetensors,12,Eva.JPG,3-4.png"
    assert parse_points(text) == (0, 1, 2, Path("a/me.latent.safetensors"), 12, Path("Eva.JPG"), Path("3-4.png"))
    assert parse_points("~/a.png") == (Path("~/a.png").expanduser(),)
    assert [is_photograph(p) for p in parse_points("a.png,b.latent.safetensors") if isinstance(p, Path)] == [
        True,
        False,
    ]


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_without_files_it_is_a_list_of_seeds(seeds):
    text = ",".join(map(str, seeds))
    assert list(parse_points(text)) == parse_seeds(text)


@pytest.mark.parametrize("text", ["me.safetensors", "a/b", "x.txt"])
def test_other_files_are_refused_with_the_kinds_that_are_taken(text):
    with pytest.raises(UserError, match=r"latent file .*photograph"):
        parse_points(text)


@given(st.text(max_size=12))
def test_any_text_is_points_or_a_user_error(text):
    with contextlib.suppress(UserError):
        assert parse_points(text)
