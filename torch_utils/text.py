"""Text for messages and the function that prints them, what users type (seeds and classes such as 0-7,12, levels such
as 0:4095), and names of images."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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


Class = int | str
"""The number of a class, or its name."""


def parse_classes(text: str) -> list[Class]:
    """Read "0-2,7,dog" as [0, 1, 2, 7, "dog"]. Raises UserError for numbers that are none.

    What is neither a number nor a range is taken for a name, which only the network knows.
    """
    classes: list[Class] = []
    require_no_gaps(text)
    for part in map(str.strip, text.split(",")):
        if not re.fullmatch(r"[\d\s.+-]+", part):
            classes.append(part)
            continue
        try:
            classes.extend(parse_seeds(part))
        except UserError:
            says = "expected classes, ranges or names, for example 3, 0-9 or dog"
            raise UserError(f"Invalid class '{part}': {says}") from None
    return classes


def listed_classes(numbers: Iterable[int], names: Sequence[str], most: int = 20) -> str:
    """[0, 1, 2], ["cat", "dog"] -> "0 cat, 1 dog, 2", at most so many of them, and dots for the others.

    A class that is called by its number is a number only.
    """
    named = ((number, names[number] if number < len(names) else "") for number in islice(numbers, most + 1))
    each = [f"{number}" if name in ("", f"{number}") else f"{number} {name}" for number, name in named]
    return ", ".join(each[:most] + ["..."] * (len(each) > most))


def require_each_once(seeds: Sequence[int]) -> None:
    """Raises UserError if a seed occurs twice, for commands that name a file after each seed."""
    for seed, times in Counter(seeds).most_common(1):
        if times > 1:
            raise UserError(f"seed {seed} occurs {times} times; give each seed once")


# Lists of files, whose names may contain commas


LONGEST_NAME = 16  # parts between commas that are tried as one name


def list_items(text: str) -> list[str]:
    """Read "0-2,eva.jpg" as ["0-2", "eva.jpg"], and "a,b.jpg" as ["a,b.jpg"] if there is such a file, and no "b.jpg".

    A backslash before a comma also says that it belongs to a name. Raises UserError for an empty item.
    """
    parts = [part.replace("\0", ",") for part in text.replace("\0", "").replace("\\,", "\0").split(",")]
    items: list[str] = []
    for end, part in enumerate(parts):
        items.append(part)
        if "." not in part or _exists(part):
            continue
        for length in range(min(LONGEST_NAME, len(items), end + 1), 1, -1):
            whole = ",".join(items[-length:])
            if _exists(whole):
                items[-length:] = [whole]
                break
    if not all(item.strip() for item in items):
        raise UserError(f"'{text}' has an empty item at a comma; write a list such as 0-7,12")
    return [item.strip() for item in items]


def _exists(name: str) -> bool:
    try:
        return Path(os.path.expanduser(name.strip())).exists()
    except (OSError, RuntimeError, ValueError):  # too long, of an unknown user, or no name at all
        return False


# Levels: which values become black and white, in images with more than 8 bits


class Range(NamedTuple):
    """The values that become black and white."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}" if isinstance(self.low, float) else f"{self.low}:{self.high}"


class LevelsRule(NamedTuple):
    """How the levels of a source are found. name: auto or full, or "" for a range that was given."""

    name: str = "auto"
    range: Range | None = None

    def __str__(self) -> str:
        return self.name or str(self.range)


AUTO_LEVELS = LevelsRule()


def parse_levels(text: str) -> LevelsRule:
    """ "auto", "full" or "0:4095" -> a rule. Raises UserError."""
    if text in ("auto", "full"):
        return LevelsRule(text)
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?"
    match = re.fullmatch(rf"\s*({number})\s*:\s*({number})\s*", text)
    if not match or len(text) > 60:
        raise UserError(f"Invalid levels '{text[:60]}': expected auto, full or MIN:MAX, for example 0:4095")
    low, high = (int(part) if part.lstrip("+-").isdigit() else float(part) for part in match.groups())
    if not low < high:
        raise UserError(f"Invalid levels {text}: the first number, black, must be below the second, white")
    return LevelsRule("", Range(low, high))


# Names of image files; `images.py` decodes them


KINDS_SHOWN = 6
IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".icb", ".ico", ".j2c", ".j2k"}
    | {".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pfm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp"}
)


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends like that of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def plain_path(name: str) -> str:
    r"""The relative path of a file in a folder, an archive or a table, as it is compared: ".\cat\1.png" -> "cat/1.png".

    Windows writes backslashes and tar a leading "./"; macOS writes an accent as a character of its own.
    """
    parts: list[str] = []
    for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def plain_paths(names: Iterable[str]) -> dict[str, str]:
    """{plain path: name as written}. A name whose plain path another one has keeps its own form."""
    every = sorted(names)
    plain, found = {name for name in every if plain_path(name) == name}, {}
    for name in every:
        path = plain_path(name)
        free = path not in found and path not in plain
        found[path if path == name or free else name] = name
    return found


def other_files(names: Iterable[str]) -> str:
    """What files are that count as no images, in a few words: "12 other files (10 .txt, 2 without suffix)"; or ""."""
    kinds = Counter(_kind_of(name) for name in names if not is_image(name))
    if not kinds:
        return ""
    shown = [f"{count} {printable(kind)}" for kind, count in kinds.most_common(KINDS_SHOWN)]
    more = [f"{len(kinds) - KINDS_SHOWN} more kinds"] if len(kinds) > KINDS_SHOWN else []
    return f"{counted(kinds.total(), 'other file')} ({', '.join(shown + more)})"


def no_images(where: object, names: Iterable[str], cure: str) -> str:
    """The message that none of some files is an image, and the cure; or that there is no file."""
    others = other_files(names)
    if not others:
        return f"There are no images in {where}, which has no files: give the folder or archive that holds them"
    return f"There are no images in {where}, only {others}: {cure}"


def _kind_of(name: str) -> str:
    if has_image_suffix(name):
        return "hidden"
    return PurePosixPath(name).suffix.lower()[:12] or "without suffix"


def is_image(name: str) -> bool:
    """Whether a file in a folder or an archive counts as an image: by its suffix, and unless it is hidden.

    name: relative. macOS adds hidden files with image suffixes to folders and archives.
    """
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in plain_path(name).split("/"))
    return not hidden and has_image_suffix(name)
