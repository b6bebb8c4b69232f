"""A cache that a disk has spoilt is noticed when it is read, and made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torch_utils.errors import UserError
from training.data import packed as checked
from training.data.archive import Archive
from training.data.packed import CheckedPages, packed


@pytest.fixture
def archive(new_pictures, monkeypatch) -> Archive:
    monkeypatch.delenv("STYLEGAN_CACHE", raising=False)
    return Archive.open(new_pictures(count=6))


def spoil(pages: np.memmap, place: int) -> None:
    """Change one byte of a picture on the disk."""
    with Path(str(pages.filename)).open("r+b") as file:
        file.seek(place * pages[0].size + 5)
        file.write(bytes([pages[place].flat[5] ^ 1]))


def test_what_is_read_is_what_was_packed_whatever_happened_to_the_file(archive, capsys):
    right = np.array(packed(archive, 8, 8))
    spoil(packed(archive, 8, 8), 4)
    pages = CheckedPages(archive, (8, 8))
    assert np.array_equal(pages.read(np.array([0, 1])), right[:2]) and capsys.readouterr().out == ""
    assert np.array_equal(pages.read(np.array([5, 4, 4])), right[[5, 4, 4]])
    assert np.array_equal(pages.read(np.arange(6)), right)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "is damaged: making it anew from" in said[0]
    assert np.array_equal(packed(archive, 8, 8), right)


def test_what_another_process_has_mended_is_only_opened_again(archive, monkeypatch, capsys):
    pages = CheckedPages(archive, (8, 8))
    right = np.array(packed(archive, 8, 8))
    spoil(packed(archive, 8, 8), 0)
    checked.mended(archive, (8, 8))
    monkeypatch.setattr(checked, "mended", lambda *_: pytest.fail("it was whole"))
    assert np.array_equal(pages.read(np.array([0])), right[:1]) and capsys.readouterr().out == ""


def test_damage_that_stays_is_an_error(archive, monkeypatch):
    spoil(packed(archive, 8, 8), 3)
    monkeypatch.setattr(checked, "mended", lambda *_: packed(archive, 8, 8))
    with pytest.raises(UserError, match="damaged again.*STYLEGAN_CACHE"):
        CheckedPages(archive, (8, 8)).read(np.array([3]))
