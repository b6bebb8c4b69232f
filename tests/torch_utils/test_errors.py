"""Errors of the operating system in plain words, with a cure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from torch_utils.errors import _REASONS, explained, in_words


@pytest.mark.parametrize("number", _REASONS, ids=lambda number: errno.errorcode[number])
def test_each_says_what_is_wrong_and_what_to_do(number):
    words = in_words(OSError(number, os.strerror(number), "secret.txt"))
    cause, _, cure = words.partition("; ")
    assert cause and cure and "secret" not in words


def test_the_files_are_named():
    assert explained(OSError(errno.ENOSPC, "full", "a.zip")).startswith("a.zip: the disk is full; ")
    assert explained(OSError(errno.EACCES, "no", b"a\xff", None, "b")).startswith("a\udcff -> b: permission is denied")
    assert explained(OSError(errno.ENOSPC, "full", 3)).startswith("the disk is full")  # a number of an open file


@pytest.mark.parametrize("error", [OSError("it is not a regular file"), OSError(errno.ENOTSUP, "not supported")])
def test_others_keep_their_own_words(error):
    assert in_words(error) == (error.strerror or str(error))


@pytest.mark.parametrize("name, says", [
    ("x" * 300, "too long"), ("missing", "no such file"), (".", "a folder is where"), ("file/a", "file is where"),
    ("circle", "circle"),
])  # fmt: skip
def test_what_this_machine_says(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError) as raised:
        (tmp_path / name).read_bytes()
    assert explained(raised.value).startswith(str(tmp_path / name)) and says in explained(raised.value)
