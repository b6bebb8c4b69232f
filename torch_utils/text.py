"""Text for messages, the function that prints them, and numbers that users type: seeds and classes such as 0-7,12."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from torch_utils.errors import UserError


def counted(count: int, what: str) -> str:
    """1, "image" -> "1 image"; 3, "image" -> "3 images"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def printable(text: str) -> str:
    """Text from elsewhere on one line: unprintable characters, which could control a terminal, become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_lines(text: str) -> str:
    """Several lines, each made `printable`. A name from elsewhere that may hold line breaks needs that first."""
    return "\n".join(map(printable, text.split("\n")))


def say(text: str, err: bool = False) -> None:
    """Print lines for the user. All tools print with this function, because text may quote names from elsewhere.

    err: to stderr. Characters that the terminal's encoding lacks become escapes too.
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(safe_lines(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def shortened(text: str, most: int) -> str:
    """The first characters of a text, at most `most`, with dots for the rest."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


MAX_STEM = 150  # bytes; file systems allow 255 for a name, of which suffixes and scratch files take some


def as_stem(name: str) -> str:
    """A name from elsewhere, cut so that a file can be named after it."""
    return name.encode("utf-8", "replace")[:MAX_STEM].decode("utf-8", "ignore")


# Seeds and classes


MAX_SEEDS = 2**32  # limit of numpy's RandomState
MAX_COUNT = 10_000_000


def parse_seeds(text: str) -> list[int]:
    """Read "0-7,12" as [0, 1, ..., 7, 12], in the order written. Raises UserError for other text."""
    seeds: list[int] = []
    require_no_gaps(text)
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})\s*(?:-\s*(\d{1,20})\s*)?", part)
        if not match:
            raise UserError(f"Invalid seed '{part.strip()}': expected seeds or ranges, for example 0-7,12")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= MAX_SEEDS:
            raise UserError(f"Invalid seed {last}: seeds range from 0 to {MAX_SEEDS - 1}")
        if last < first:
            raise UserError(f"Invalid range {first}-{last}: the first number is larger; write {last}-{first}")
        if len(seeds) + last - first >= MAX_COUNT:
            raise UserError(f"'{text}' has more than {MAX_COUNT:,} seeds; use fewer at a time")
        seeds.extend(range(first, last + 1))
    return seeds


def require_no_gaps(text: str) -> None:
    """Raises UserError for a list with an empty item: two commas in a row, or a comma at either end."""
    if not all(part.strip() for part in text.split(",")):
        raise UserError(f"'{text}' has an empty item at a comma; write a list such as 0-7,12")


def parse_classes(text: str) -> list[int]:
    """Read "0-9,3" as [0, 1, ... 9, 3]. Raises UserError for other text."""
    try:
        return parse_seeds(text)
    except UserError:
        raise UserError(f"Invalid class '{text}': expected classes or ranges, for example 3 or 0-9") from None


def require_each_once(seeds: Sequence[int]) -> None:
    """Raises UserError if a seed occurs twice, for commands that name a file after each seed."""
    for seed, times in Counter(seeds).most_common(1):
        if times > 1:
            raise UserError(f"seed {seed} occurs {times} times; give each seed once")


# Names of image files; `images.py` decodes them


IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends like that of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_image(name: str) -> bool:
    """Whether a file in a folder or an archive counts as an image: by its suffix, and unless it is hidden.

    name: relative, with forward slashes. macOS adds hidden files with image suffixes to folders and archives.
    """
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
    return not hidden and has_image_suffix(name)
