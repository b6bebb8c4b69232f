"""Pictures become files. The formats themselves are in test_images.py, a full disk and Ctrl-C in test_generate.py."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from torch_utils.images import encode
from torch_utils.output import Output
from torch_utils.writing import write_pictures

PICTURES = np.random.RandomState(0).randint(0, 256, (12, 4, 6, 3), np.uint8)
NAMES = [f"{i}.png" for i in range(12)]


@given(st.lists(st.integers(0, 4), max_size=6).filter(lambda sizes: 0 < sum(sizes) <= 12))
def test_every_name_gets_its_picture_however_they_come(tmp_path_factory, sizes):
    folder, count = tmp_path_factory.mktemp("out"), sum(sizes)
    starts = np.cumsum([0, *sizes])
    batches = [PICTURES[start : start + size] for start, size in zip(starts, sizes)]
    write_pictures(Output(str(folder)), NAMES[:count], batches)
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert written == {name: encode(picture, "png") for name, picture in zip(NAMES[:count], PICTURES)}


def test_a_zip_holds_the_same_files_and_the_grid_stands_beside_it(tmp_path: Path):
    write_pictures(Output(str(tmp_path), "zip", "auto"), NAMES, [PICTURES])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "images.zip"]
    with ZipFile(tmp_path / "images.zip") as archive:
        assert [archive.read(name) for name in NAMES] == [encode(picture, "png") for picture in PICTURES]


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to .*file"):
        write_pictures(Output(str(tmp_path / "file")), NAMES, [PICTURES])
