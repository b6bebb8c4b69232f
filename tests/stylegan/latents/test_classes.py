"""Classes go with seeds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.latents.render import class_numbers, classes_for_seeds, in_each_class
from torch_utils.errors import UserError

numbers = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(numbers, numbers)
def test_a_seed_has_its_class_in_any_company(asked, seeds):
    c = classes_for_seeds(asked, seeds, 10)
    assert c is not None
    single = [classes_for_seeds(asked, [seed], 10) for seed in seeds]
    assert c.tolist() == [one.item() for one in single if one is not None]
    assert set(c.tolist()) <= set(asked)


def test_a_network_without_classes_is_given_none():
    assert classes_for_seeds([], [1, 2], 0) is None


NAMES = ("cat", "Dog", "tench, Tinca tinca", "dog", "1")


def test_classes_have_numbers_and_names():
    assert class_numbers(["cat", 4, "Dog", "dog", "tench", "TENCH, tinca TINCA"], 6, NAMES) == [0, 4, 1, 3, 2, 2]
    c = classes_for_seeds(["cat", "tench"], [0, 1, 2], 6, NAMES)
    assert c is not None and c.tolist() == [0, 2, 0]


@pytest.mark.parametrize("asked, names, says", [
    (["bird"], NAMES, "--class bird: no class has that name; there are 0 cat, 1 Dog, 2 tench, Tinca tinca, 3 dog, 4 1"),
    (["DOG"], NAMES, "--class DOG: classes 1, 3 have that name; give the number of one"),
    (["dog"], (), "--class dog: the classes of this network have no names; give numbers, as in --class 0"),
    ([6], NAMES, "this network has 6 classes; choose with --class, 0 cat, 1 Dog, .*, 5"), ([], NAMES, "0 cat, 1 Dog"),
])  # fmt: skip
def test_what_is_no_name_of_a_class_is_refused_with_those_there_are(asked, names, says):
    with pytest.raises(UserError, match=says):
        class_numbers(asked, 6, names)


@pytest.mark.parametrize("asked, num_classes, says", [([1], 0, "unconditional"), ([], 3, "0 to 2"), ([3], 3, "0 to 2")])
def test_what_the_network_has_not_is_refused(asked, num_classes, says):
    with pytest.raises(UserError, match=says):
        classes_for_seeds(asked, [0], num_classes)


def test_a_class_named_by_a_number_is_typed_by_its_name():
    """Files are called after it, and folders 1, 2, 3 would all be off by one. From Python, a number is a number."""
    names = ("1", "2", "3", "cat")
    assert class_numbers([1, 3], 4, names) == [0, 2] and class_numbers([0], 4, names) == [0]
    assert class_numbers([1, "1"], 4, names, "c") == [1, 0]
    assert in_each_class([7], [], 4, names) == [(7, 0), (7, 1), (7, 2), (7, 3)]
