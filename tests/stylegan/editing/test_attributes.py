"""Questions about pictures are read as typed and answered from cells."""

from __future__ import annotations

import math

import pytest

from stylegan.editing.settings import Attribute, answer, parse_attributes
from torch_utils.errors import UserError


def test_questions_come_back_as_they_were_written():
    text = "smile>0.5,gender=male,glasses!=NoGlasses,yaw,roll<-3,eye colour"
    assert ",".join(map(str, parse_attributes(text))) == text
    assert parse_attributes(" a = b ")[0] == Attribute("a", "=", "b")


@pytest.mark.parametrize(("question", "cell", "value"), [
    ("smile>0.5", "0.6", 1), ("smile>0.5", "0.5", 0), ("yaw<-3", "-4", 1), ("gender=male", "male", 1),
    ("gender=male", " female", 0), ("gender!=male", "female", 1), ("yaw", "-1.5", -1.5),
])  # fmt: skip
def test_answers(question, cell, value):
    assert answer(parse_attributes(question)[0], cell) == value


@pytest.mark.parametrize("question", ["smile>0.5", "gender=male", "gender!=male", "yaw"])
@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_cell_is_not_known(question, cell):
    assert math.isnan(answer(parse_attributes(question)[0], cell))


def test_nan_in_a_cell_is_not_known():
    assert math.isnan(answer(parse_attributes("smile>0.5")[0], "nan"))


@pytest.mark.parametrize("text", ["", "a,,b", "a=b=c", ">3", "a>", "a>much", "smile,smile>0.5"])
def test_what_is_no_question(text):
    with pytest.raises(UserError):
        parse_attributes(text)


def test_words_where_numbers_are_due_name_the_cure():
    with pytest.raises(UserError, match="'male' in the column 'gender' is no number.*gender=male"):
        answer(Attribute("gender"), "male")
