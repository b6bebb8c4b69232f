"""Tables of attributes: read from a CSV with a row for each image, or from folders of images sorted by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from stylegan.editing.settings import Attribute
from stylegan.latents.notation import is_photograph
from torch_utils.errors import UserError, in_words
from torch_utils.text import MAX_SEEDS
from torch_utils.untrusted import read_table

YES, NO = "yes", "no"


@dataclass(frozen=True)
class Table:
    """keys: of the images, each once   names: of the attributes
    values: float64 [images,attributes], nan if unknown   quantities: which are numbers, not yes (1) or no (0)
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    values: np.ndarray
    quantities: tuple[bool, ...]


# A CSV


def read_csv(path: Path, key: str, attributes: Sequence[Attribute]) -> Table:
    """Read a table with a header. The column `key` identifies the images. Without attributes: all other columns.

    Raises UserError if it cannot be read, lacks a column, has two rows for an image or words in place of numbers.
    """
    try:
        columns, found = read_table(path)
    except OSError as error:
        raise UserError(f"cannot read the table {path}: {in_words(error)}") from None
    except ValueError as error:
        raise UserError(f"cannot read the table {path}: {error}") from None
    if key not in columns:
        raise UserError(f"{path} is not a CSV with a column '{key}' in its first line, which identifies the images; it "
                        f"begins with '{','.join(columns)[:60]}'")  # fmt: skip
    rows = [dict(zip_longest(columns, row[: len(columns)], fillvalue="")) for row in found]
    attributes = attributes or [Attribute(column) for column in columns if column != key]
    for attribute in attributes:
        if attribute.column not in columns:
            raise UserError(f"{path} has no column '{attribute.column}'; it has {', '.join(columns)}")
    keys: dict[str, int] = {}
    values = np.empty((len(rows), len(attributes)))
    for number, row in enumerate(rows):
        name = row[key]
        if name in keys:
            raise UserError(f"{path} has two rows for {key} {name}, in lines {keys[name] + 2} and {number + 2}; "
                            "delete one")  # fmt: skip
        keys[name] = number
        try:
            values[number] = [value_of(attribute, row[attribute.column]) for attribute in attributes]
        except UserError as error:
            raise UserError(f"line {number + 2} of {path}: {error}") from error
    for attribute, column in zip(attributes, values.T, strict=True):
        if not attribute.relation and np.isin(column[~np.isnan(column)], (-1, 1)).all():
            column[column == -1] = 0  # as CelebA writes no
    quantities = tuple(
        # Without a comparison, a column of only 0 and 1, or -1 and 1, is yes and no as well.
        not attribute.relation and not np.isin(column[~np.isnan(column)], (0, 1)).all()
        for attribute, column in zip(attributes, values.T, strict=True)
    )
    return Table(tuple(keys), tuple(a.column for a in attributes), values, quantities)


def value_of(attribute: Attribute, cell: str) -> float:
    """The value of an attribute in a cell of its column: 1 or 0 for a comparison, else the number in the cell.

    It is nan if the cell is empty or holds nan. Raises UserError for text in place of a number.
    """
    cell = cell.strip()
    if not cell:
        return float("nan")
    if attribute.relation in ("=", "!="):
        return float((cell == attribute.value) == (attribute.relation == "="))
    try:
        number = float(cell)
    except ValueError:
        raise UserError(f"'{cell}' in the column '{attribute.column}' is not a number; compare with one of its words, "
                        f"for example --attributes {attribute.column}={cell}") from None  # fmt: skip
    if not attribute.relation or number != number:
        return number
    return float(number > attribute.threshold if attribute.relation == ">" else number < attribute.threshold)


# Labels of seeds


def read_seeds(path: Path, attributes: Sequence[Attribute]) -> tuple[list[int], Table]:
    """Read a CSV with a column "seed", or a folder with sub-folders yes and no of images named seed0017.png.

    Raises UserError if it is neither, or if an image is not named by its seed.
    """
    if not path.is_dir():
        table = read_csv(path, "seed", attributes)
        return [_seed(key, path) for key in table.keys], table
    if attributes and [str(attribute) for attribute in attributes] != [path.name]:
        raise UserError(f"{path} is a sorted folder, whose attribute is '{path.name}'; leave out --attributes")
    if not (path / YES).is_dir() or not (path / NO).is_dir():
        raise UserError(f"{path} does not hold the two folders {YES} and {NO}; make them, and sort the images into "
                        "them")  # fmt: skip
    found: dict[int, float] = {}
    for folder, value in ((NO, 0.0), (YES, 1.0)):
        for file in sorted((path / folder).iterdir()):
            if not is_photograph(file):
                continue
            seed = _seed(file.stem, path / folder)
            if found.setdefault(seed, value) != value:
                raise UserError(f"seed {seed} is in both folders of {path}; leave it in one")
    if not found:
        raise UserError(f"there are no images in {path / YES} and {path / NO}; sort some into them")
    values = np.array(list(found.values()))[:, None]
    return list(found), Table(tuple(map(str, found)), (path.resolve().name,), values, (False,))


def _seed(text: str, where: Path) -> int:
    """The number of "17" or "seed0017"."""
    match = re.fullmatch(r"(?:seed)?(\d{1,10})", text)
    if not match or int(match[1]) >= MAX_SEEDS:
        raise UserError(f"'{text}' in {where} is not a seed: seeds are whole numbers from 0 to {MAX_SEEDS - 1}, and "
                        "files have names as generate.py gives them, such as seed0017.png")  # fmt: skip
    return int(match[1])
