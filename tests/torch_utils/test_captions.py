"""Tables with words: the pictures stand where they should, and the words beside them."""

from __future__ import annotations

import numpy as np
import pytest

from torch_utils.images import captioned, enlarge


def pictures(size: int, channels: int = 3, count: int = 6) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8))


@pytest.mark.parametrize(("size", "factor"), [(16, 6), (64, 2), (128, 1)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_enlarged_and_unchanged(size, factor, channels):
    cells = pictures(size, channels)
    table = captioned(cells, ["one", "two"], ["a", "b", "c"])
    side = size * factor
    top, left = table.shape[0] - 2 * side, table.shape[1] - 3 * side
    assert top > 10 and left > 10 and table.shape[2] == max(3, channels)
    for row in range(2):
        for column in range(3):
            found = table[top + row * side : top + (row + 1) * side, left + column * side : left + (column + 1) * side]
            expected = enlarge(cells[row * 3 + column][None], factor)[0]
            np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_words_are_written_beside_their_row_and_above_their_column():
    table = captioned(pictures(128), ["here", ""], ["", "there", ""])
    top, left = table.shape[0] - 256, table.shape[1] - 384
    dark = table[..., :3].min(axis=2) < 128
    assert dark[top : top + 128, :left].any() and not dark[top + 128 :, :left].any()
    assert dark[:top, left + 128 : left + 256].any() and not dark[:top, left : left + 128].any()


def test_long_words_do_not_reach_into_the_next_column():
    table = captioned(pictures(128), ["", ""], ["", "a very long name of a column indeed", ""])
    top, left = table.shape[0] - 256, table.shape[1] - 384
    dark = table[..., :3].min(axis=2) < 128
    assert not dark[:top, left : left + 127].any() and not dark[:top, left + 257 :].any()
