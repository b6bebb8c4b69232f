"""What is asked of pictures, as it is typed: smile>0.5,gender=male,yaw. `attribute_table.py` reads the answers.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch_utils.errors import UserError


@dataclass(frozen=True)
class Attribute:
    """A question about a picture. relation: "=", "!=", ">" or "<" to `value`; "" takes the column as it is."""

    column: str
    relation: str = ""
    value: str = ""

    def __str__(self) -> str:
        return self.column + self.relation + self.value


def parse_attributes(text: str) -> tuple[Attribute, ...]:
    """ "smile>0.5,yaw" -> questions about two columns. Raises UserError for what is none, and for a column twice."""
    attributes: list[Attribute] = []
    for part in (part.strip() for part in text.split(",")):
        match = re.fullmatch(r"([^=!<>]+?)\s*(?:(=|!=|>|<)\s*([^=!<>]+))?", part)
        if not match:
            raise UserError(f"'{part}' is no attribute; write a column's name, or as in smile>0.5, gender=male, "
                            "glasses!=None")  # fmt: skip
        attributes.append(Attribute(match[1], match[2] or "", match[3] or ""))
        if attributes[-1].relation in (">", "<"):
            _number(attributes[-1])
    names = [attribute.column for attribute in attributes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"'{name}' is asked for {names.count(name)} times; once is enough")
    return tuple(attributes)


def answer(attribute: Attribute, cell: str) -> float:
    """1 or 0, the number of a column that is taken as it is, or nan where the cell is empty or holds no number.

    Raises UserError for a text in a column of numbers.
    """
    cell = cell.strip()
    if not cell:
        return float("nan")
    if attribute.relation in ("=", "!="):
        return float((cell == attribute.value) == (attribute.relation == "="))
    try:
        number = float(cell)
    except ValueError:
        raise UserError(f"'{cell}' in the column '{attribute.column}' is no number; ask for one of its words, as in "
                        f"--attributes {attribute.column}={cell}") from None  # fmt: skip
    if not attribute.relation or number != number:
        return number
    return float(number > _number(attribute) if attribute.relation == ">" else number < _number(attribute))


def _number(attribute: Attribute) -> float:
    try:
        return float(attribute.value)
    except ValueError:
        raise UserError(f"'{attribute}' compares with '{attribute.value}', which is no number") from None
