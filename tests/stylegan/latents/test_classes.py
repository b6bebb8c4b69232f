"""Classes go with seeds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.latents.render import classes_for_seeds
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


@pytest.mark.parametrize("asked, num_classes, says", [([1], 0, "unconditional"), ([], 3, "0 to 2"), ([3], 3, "0 to 2")])
def test_what_the_network_has_not_is_refused(asked, num_classes, says):
    with pytest.raises(UserError, match=says):
        classes_for_seeds(asked, [0], num_classes)
