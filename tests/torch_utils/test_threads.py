"""How many threads."""

import os

from torch_utils.threads import cpu_threads


def test_as_many_as_asked_or_as_there_are_cores():
    assert cpu_threads(3) == 3
    assert 1 <= cpu_threads() <= (os.cpu_count() or 1)
