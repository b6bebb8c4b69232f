"""Numbers in sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from torch_utils.errors import UserError


def counted(count: int, what: str) -> str:
    """1, "picture" -> "1 picture"; 3, "picture" -> "3 pictures"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def printable(text: str) -> str:
    """Text from elsewhere on one line: what could drive a terminal, or cannot be written, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int) -> str:
    """At most `most` characters of it, with dots for the rest."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


# Lists of whole numbers as they are typed: seeds and classes, as in 0-7,12


MAX_SEEDS = 2**32  # what numpy's RandomState takes
MAX_COUNT = 10_000_000


def parse_seeds(text: str) -> list[int]:
    """Read "0-7,12" as [0, 1, ..., 7, 12], in the order written. Raises UserError if it is anything else."""
    seeds: list[int] = []
    require_no_gaps(text)
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})\s*(?:-\s*(\d{1,20})\s*)?", part)
        if not match:
            raise UserError(f"'{part.strip()}' is not a seed or a range of seeds; write them as in 0-7,12")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= MAX_SEEDS:
            raise UserError(f"{last} is no seed; they go from 0 to {MAX_SEEDS - 1}")
        if last < first:
            raise UserError(f"the range {first}-{last} runs backwards; write {last}-{first}")
        if len(seeds) + last - first >= MAX_COUNT:
            raise UserError(f"'{text}' is more than {MAX_COUNT:,} seeds; ask for fewer at a time")
        seeds.extend(range(first, last + 1))
    return seeds


def require_no_gaps(text: str) -> None:
    """Raises UserError for a list with nothing between two commas, before the first or behind the last."""
    if not all(part.strip() for part in text.split(",")):
        raise UserError(f"'{text}' lacks something at a comma; write it as in 0-7,12")


def parse_classes(text: str) -> list[int]:
    """ "0-9,3" -> [0, 1, ... 9, 3]. Raises UserError if it is anything else."""
    try:
        return parse_seeds(text)
    except UserError:
        raise UserError(f"'{text}' is not a class or a list of classes; write it as in 3 or 0-9") from None


def require_each_once(seeds: Sequence[int]) -> None:
    """For tools that name a file after each seed. Raises UserError if one is there twice."""
    for seed, times in Counter(seeds).most_common(1):
        if times > 1:
            raise UserError(f"seed {seed} is named {times} times; name each seed once")
