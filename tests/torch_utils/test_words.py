"""Numbers in sentences."""

from torch_utils.text import counted


def test_one_of_a_kind_and_several():
    assert [counted(n, "picture") for n in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]
