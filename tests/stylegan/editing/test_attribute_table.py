"""Tables of attributes from CSVs and sorted folders."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from stylegan.editing.attribute_table import read_csv, read_seeds, value_of
from stylegan.editing.settings import Attribute, parse_attributes
from torch_utils.errors import UserError


@pytest.fixture
def table(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "table.csv"
        path.write_text(text)
        return path

    return write


def test_a_csv_of_seeds(table):
    path = table("seed,smile,yaw,happy\n3,0.7,-5,1\nseed0017,0.2,,0\n4,,2.5,\n")
    seeds, found = read_seeds(path, parse_attributes("smile>0.5,yaw,happy"))
    assert seeds == [3, 17, 4] and found.names == ("smile", "yaw", "happy")
    assert found.quantities == (False, True, False)
    np.testing.assert_array_equal(found.values, [[1, -5, 1], [0, np.nan, 0], [np.nan, 2.5, np.nan]])
    assert read_seeds(path, ())[1].names == ("smile", "yaw", "happy")


def test_a_list_of_celeba(table):
    found = read_csv(table("2\nBald Smiling\n1.jpg -1  1\n2.jpg -1 -1\n"), "file", parse_attributes("Smiling,Bald=1"))
    assert found.keys == ("1.jpg", "2.jpg") and found.quantities == (False, False)
    np.testing.assert_array_equal(found.values, [[1, 0], [0, 0]])


def test_a_sorted_folder(tmp_path):
    for folder, seeds in (("yes", (1, 17)), ("no", (2,))):
        (tmp_path / "smile" / folder).mkdir(parents=True)
        for seed in seeds:
            (tmp_path / f"smile/{folder}/seed{seed:04d}.png").touch()
    (tmp_path / "smile/yes/notes.txt").touch()
    seeds, found = read_seeds(tmp_path / "smile", ())
    assert dict(zip(seeds, found.values[:, 0])) == {2: 0, 1: 1, 17: 1} and found.names == ("smile",)
    (tmp_path / "smile/no/seed0017.png").touch()
    with pytest.raises(UserError, match="seed 17 is in both"):
        read_seeds(tmp_path / "smile", ())


@pytest.mark.parametrize(("text", "says"), [
    ("seed,smile\nabc,1\n", "'abc' in .* is not a seed"), ("seed,smile\n-4,1\n", "'-4' in .* is not a seed"),
    ("seed,smile\n4294967296,1\n", "is not a seed"),
    ("seed,smile\n1,1\n2,0\n1,0\n", "two rows for seed 1, in lines 2 and 4"),
    ("name,smile\n1,1\n", "not a CSV with a column 'seed'.*'name,smile'"), ("seed,yaw\n1,1\n", "no column 'smile'"),
    ("seed,smile\n1,1\n2,often\n", "line 3 of .*'often'"), ("seed,smile\n", "it is empty"), ("", "it is empty"),
])  # fmt: skip
def test_a_csv_that_cannot_be_used_is_one_clear_line(table, text, says):
    with pytest.raises(UserError, match=says) as caught:
        read_seeds(table(text), parse_attributes("smile"))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_tables(tmp_path):
    with pytest.raises(UserError, match="cannot read the table"):
        read_csv(tmp_path / "none.csv", "seed", ())
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read the table"):
        read_csv(tmp_path / "a.csv", "seed", ())


def test_folders_that_are_not_sorted(tmp_path):
    with pytest.raises(UserError, match="two folders yes and no"):
        read_seeds(tmp_path, ())
    (tmp_path / "yes").mkdir()
    (tmp_path / "no").mkdir()
    with pytest.raises(UserError, match="no images"):
        read_seeds(tmp_path, ())
    (tmp_path / "yes/eva.png").touch()
    with pytest.raises(UserError, match="'eva' in .*yes is not a seed"):
        read_seeds(tmp_path, ())
    with pytest.raises(UserError, match="leave out --attributes"):
        read_seeds(tmp_path, parse_attributes("smile"))


@pytest.mark.parametrize(("text", "cell", "value"), [
    ("smile>0.5", "0.6", 1), ("smile>0.5", "0.5", 0), ("yaw<-3", "-4", 1), ("gender=male", "male", 1),
    ("gender=male", " female", 0), ("gender!=male", "female", 1), ("yaw", "-1.5", -1.5),
])  # fmt: skip
def test_values_of_cells(text, cell, value):
    assert value_of(parse_attributes(text)[0], cell) == value


@pytest.mark.parametrize("text", ["smile>0.5", "gender=male", "gender!=male", "yaw"])
@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_cell_is_not_known(text, cell):
    assert math.isnan(value_of(parse_attributes(text)[0], cell))


def test_nan_in_a_cell_is_not_known():
    assert math.isnan(value_of(parse_attributes("smile>0.5")[0], "nan"))


def test_words_in_place_of_numbers_name_the_cure():
    with pytest.raises(UserError, match="'male' in the column 'gender' is not a number.*gender=male"):
        value_of(Attribute("gender"), "male")
