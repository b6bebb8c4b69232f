"""Attributes, strengths and sweeps as they are typed, and settings that cannot work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stylegan.editing.settings import (
    Attribute,
    ClassifierSettings,
    FilmSettings,
    Labels,
    Search,
    check_classifier,
    check_film_settings,
    check_search,
    parse_attributes,
    parse_strengths,
    parse_sweep,
)
from torch_utils.errors import UserError


def test_attributes_come_back_as_they_were_written():
    text = "smile>0.5,gender=male,glasses!=NoGlasses,yaw,roll<-3,eye colour"
    assert ",".join(map(str, parse_attributes(text))) == text
    assert parse_attributes(" a = b ")[0] == Attribute("a", "=", "b")


@pytest.mark.parametrize("text", ["", "a,,b", "a=b=c", ">3", "a>", "a>much", "smile,smile>0.5"])
def test_text_that_is_not_an_attribute(text):
    with pytest.raises(UserError):
        parse_attributes(text)


def test_lists_and_ranges():
    assert parse_strengths("-2,0,1.5") == (-2, 0, 1.5)
    assert parse_strengths("-3:3:7") == (-3, -2, -1, 0, 1, 2, 3)
    assert parse_strengths("1:-1:2") == (1, -1)
    assert parse_strengths("-1:1:3,5") == (-1, 0, 1, 5)


@pytest.mark.parametrize(
    "text", ["", "a", "1,,2", "1:2", "1:2:1", "1:2:x", "1:2:3:4", "nan", "inf,1", "0:1:5000", "1e30", "0:1e30:3"]
)
def test_text_that_is_not_strengths(text):
    with pytest.raises(UserError):
        parse_strengths(text)


@pytest.mark.parametrize(("search", "says"), [
    (Search(method="labels"), "--labels is missing"), (Search(count=0), "--count must be at least 1, got 0"),
    (Search(labels=Labels(source=".")), "for --method labels, not pca"),
    (Search(method="labels", labels=Labels(source="none.csv")), "no file or folder none.csv"),
    (replace(Search(), labels=Labels(samples=1)), "--samples must be at least 2, got 1"),
    (Search(count=5, labels=Labels(samples=5)), "--samples 5 is too few for 5 directions"),
])  # fmt: skip
def test_settings_that_cannot_work_with_any_network(search, says):
    with pytest.raises(UserError, match=says):
        check_search(search)


@pytest.mark.parametrize(("name", "value"), [
    ("lr", 0.0), ("lr", float("nan")), ("lr", float("inf")), ("epochs", 0), ("batch", 0), ("resolution", -1),
])  # fmt: skip
def test_numbers_with_which_a_classifier_learns_nothing(name, value):
    with pytest.raises(UserError, match=f"--{name} must be more than 0, got {value:g}"):
        check_classifier(replace(ClassifierSettings(), **{name: value}))
    with pytest.raises(UserError, match="--batch 1e\\+12 is too large; give at most 1,048,576"):
        check_classifier(ClassifierSettings(batch=10**12))


def test_settings_that_make_no_film():
    for film, count, says in (
        (FilmSettings(frames=0), 2, "--frames must be at least 1, got 0"), (FilmSettings(), 1, "two keyframes"),
        (FilmSettings(path="circular"), 4, "2 or 3"),
        (FilmSettings(path="cubic", psi_sweep=(0, 1)), 1, "--path cubic"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            check_film_settings(film, count)
    assert parse_sweep("-0.5:1") == (-0.5, 1)
    for text in ("nan:1", "0:11", "-1e30:0"):
        with pytest.raises(UserError, match="from -10 to 10"):
            parse_sweep(text)
    for text in ("1", "a:b", "0:1:2", ""):
        with pytest.raises(UserError, match="FROM:TO"):
            parse_sweep(text)
