"""Numbers and lists of numbers in text."""

import contextlib
import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from torch_utils.text import MAX_STEM, as_stem, counted, parse_classes, parse_seeds, require_each_once, say

ranges = st.tuples(st.integers(0, 10**6), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1]))


def test_seeds_in_the_order_written():
    assert parse_seeds("0-7,12") == [0, 1, 2, 3, 4, 5, 6, 7, 12]
    assert parse_seeds("5, 3 - 4 ,5") == [5, 3, 4, 5]


@given(st.lists(ranges, min_size=1))
def test_any_list_of_ranges_reads_as_its_members(spans):
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    assert parse_seeds(text) == [seed for a, b in spans for seed in range(a, b + 1)]


@pytest.mark.parametrize("text", ["", ",", "1,", "-1", "1-", "7-3", "1--3", "1.5", "a", "1 2", "1-2-3", "0x1"])
def test_what_is_no_list_of_seeds_is_refused(text):
    with pytest.raises(UserError):
        parse_seeds(text)


@given(st.text(max_size=8))
def test_any_text_is_seeds_or_a_user_error(text):
    with contextlib.suppress(UserError):
        assert all(seed >= 0 for seed in parse_seeds(text))


@given(st.text(max_size=8))
def test_classes_are_read_like_seeds(text):
    try:
        classes = parse_classes(text)
    except UserError as error:
        assert "class" in str(error)
        return
    assert classes == parse_seeds(text)


@given(st.lists(st.integers(0, 9)))
def test_a_seed_that_comes_twice_is_named(seeds):
    twice = {seed for seed in seeds if seeds.count(seed) > 1}
    try:
        require_each_once(seeds)
    except UserError as error:
        assert any(f"seed {seed} occurs {seeds.count(seed)} times" in str(error) for seed in twice)
        return
    assert not twice


def test_one_of_a_kind_and_several():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


@given(st.text(max_size=40))
def test_what_is_printed_can_control_no_terminal(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        say(text)
        printed = sys.stdout.getvalue()
    assert printed.endswith("\n") and printed.count("\n") == text.count("\n") + 1
    assert all(c.isprintable() for c in printed.replace("\n", ""))


@pytest.mark.parametrize("encoding, printed", [("utf-8", "Zoë \\udcff"), ("ascii", "Zo\\xeb \\udcff")])
def test_a_terminal_of_any_encoding_can_print_it(monkeypatch, encoding, printed):
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(stream, encoding))
    say("Zoë \udcff", err=True)
    assert stream.getvalue().decode() == printed + "\n"


@given(st.text(max_size=400))
def test_a_file_can_be_named_after_any_name(name):
    stem = as_stem(name)
    assert len(stem.encode()) <= MAX_STEM and name.encode("utf-8", "replace").decode().startswith(stem)
