"""Numbers and lists of numbers in text."""

import contextlib
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from torch_utils.text import (
    MAX_STEM,
    as_stem,
    counted,
    list_items,
    listed_classes,
    no_images,
    other_files,
    parse_classes,
    parse_seeds,
    plain_paths,
    require_each_once,
    say,
)

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
def test_classes_are_read_like_seeds_or_are_names(text):
    try:
        classes = parse_classes(text)
    except UserError as error:
        assert "class" in str(error) or "empty item" in str(error)
        return
    names = [c for c in classes if isinstance(c, str)]
    if not names:
        assert classes == parse_seeds(text)
    assert all(name == name.strip() and name in text for name in names)


def test_classes_by_number_range_and_name_in_the_order_written():
    assert parse_classes("0-2, sea lion,7,t-shirt") == [0, 1, 2, "sea lion", 7, "t-shirt"]
    for wrong in ("1-", "-3", "2.5", "3-1"):
        with pytest.raises(UserError, match=f"Invalid class '{wrong}': expected classes, ranges or names"):
            parse_classes(f"dog,{wrong}")


def test_classes_are_listed_with_their_names():
    assert listed_classes([1, 0, 2], ["cat", "dog"]) == "1 dog, 0 cat, 2"
    assert listed_classes([0, 1, 2], ["0", "1", "7"]) == "0, 1, 2 7"  # a number is not said twice
    assert (
        listed_classes(range(10**9), [], most=3) == "0, 1, 2, ..." and listed_classes(range(3), [], most=3)[-1] == "2"
    )


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


def test_names_with_commas_are_one_item_if_there_is_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.png", "c, d,e.png", "3,me.png", "me.png", "7,8.png"):
        (tmp_path / name).touch()
    assert list_items("a,b.png") == ["a,b.png"]
    assert list_items("0-2,a,b.png,c, d,e.png ,9") == ["0-2", "a,b.png", "c, d,e.png", "9"]
    assert list_items("3,me.png") == ["3", "me.png"]  # as before: both are there
    assert list_items("3\\,me.png") == ["3,me.png"]
    assert list_items("7,8.png,7,9.png") == ["7,8.png", "7", "9.png"]
    assert list_items(f"{tmp_path}/a,b.png,5") == [f"{tmp_path}/a,b.png", "5"]
    for text in ("", ",", "a.png,", "a.png,,5"):
        with pytest.raises(UserError, match="empty item"):
            list_items(text)


@given(st.text("0123456789,.-\\\0 \n~/ab", max_size=30))
def test_any_text_is_a_list_or_refused(text: str):
    with contextlib.suppress(UserError):
        assert all(item == item.strip() != "" for item in list_items(text))


def test_a_place_without_images_is_described():
    assert (
        no_images("in", ["a.txt"], "convert it") == "There are no images in in, only 1 other file (1 .txt): convert it"
    )
    assert "in, which has no files: give" in no_images("in", [], "convert it")


def test_other_files_are_counted_by_kind():
    assert (
        other_files(["a.png", "b.txt", "c.TXT", "d", ".e.png"]) == "4 other files (2 .txt, 1 without suffix, 1 hidden)"
    )
    assert other_files(["a.png"]) == other_files([]) == ""
    assert other_files(f"x.{n}" for n in range(9)).endswith(", 3 more kinds)")
    assert other_files(["x.\x1b[2J"]).isprintable()


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


@given(st.lists(st.sampled_from(["a", "./a", "x/../a", ".\\a", "b/c", "b\\c", "b//c"]), unique=True))
def test_no_name_is_lost_to_another_of_the_same_place(names):
    assert sorted(plain_paths(names).values()) == sorted(names)
