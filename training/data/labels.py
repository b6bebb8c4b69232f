"""Which class belongs to which image: what `dataset.json` files and tables say, matched with the names of images.

The only reader of labels, for archives, `dataset_tool.py` and `directions.py`, so that all find the same ones.
"""

from __future__ import annotations

import posixpath
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from torch_utils.text import has_image_suffix, plain_path, printable
from torch_utils.untrusted import parse_json

MANIFEST = "dataset.json"
MAX_CLASSES = 1 << 20
NAMES_SHOWN = 8

V = TypeVar("V")


@dataclass(frozen=True)
class Labels:
    """classes: one number per image, None for images without a class     origin: for messages

    class_names: the name of each number, or empty
    """

    classes: Sequence[int | None]
    class_names: tuple[str, ...]
    origin: str


# dataset.json


@dataclass(frozen=True)
class Manifest:
    """What a `dataset.json` says. labels: {file name as written: label}, or None     meta: everything else"""

    labels: Mapping[str, Any] | None
    class_names: tuple[str, ...]
    meta: Mapping[str, Any]


def find_manifest(names: Iterable[str]) -> str | None:
    """The `dataset.json` nearest to the root, of plain paths."""
    found = [name for name in names if PurePosixPath(name).name == MANIFEST]
    return min(found, key=lambda name: (name.count("/"), name), default=None)


def parse_manifest(content: bytes) -> Manifest:
    """Read {"labels": [[name, label], ...]}, {"labels": {name: label}}, or either of the two without "labels" around.

    Raises ValueError if it is anything else, or names two labels for one file.
    """
    found = parse_json(content)
    if isinstance(found, dict) and ("labels" in found or not any(map(has_image_suffix, found))):
        meta = dict(found)
        pairs = meta.pop("labels", None)
    else:
        meta, pairs = {}, found
    names = meta.get("class_names") or []
    if not isinstance(names, list) or len(names) > MAX_CLASSES or not all(isinstance(name, str) for name in names):
        raise ValueError('"class_names" must be a list of words')
    return Manifest(_by_name(pairs), tuple(map(printable, names)), meta)


def _by_name(pairs: Any) -> dict[str, Any] | None:
    if pairs is None:
        return None
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        raise ValueError('"labels" must be a list of [name, class] pairs')
    found: dict[str, Any] = {}
    for name, label in pairs:
        if found.setdefault(name, label) != label:
            raise ValueError(f"it has two labels for {printable(name)}")
    return None if all(label is None for label in found.values()) else found


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)


def manifest_labels(manifest: Manifest, name: str, images: Sequence[str], own: str = "") -> Labels | None:
    """The labels of images, by their plain paths. name: of the `dataset.json`, in whose folder its paths may begin.

    own: as for `matched`
    Raises ValueError for labels that are not classes, and if none belongs to an image.
    """
    if manifest.labels is None:
        return None
    root = name.rpartition("/")[0]
    found = matched({f"{root}/{file}": (label,) for file, label in manifest.labels.items()}, images, own)
    if root and not any(found):
        found = matched({file: (label,) for file, label in manifest.labels.items()}, images, own)
    if not any(found):
        raise ValueError(f"it names none of the images, {names_of_both(manifest.labels, images)}")
    numbers, class_names = numbered([label[0] if label else None for label in found], manifest.class_names)
    return Labels(numbers, class_names, name)


def numbered(labels: Sequence[Any], class_names: Sequence[str] = ()) -> tuple[list[int | None], tuple[str, ...]]:
    """Labels as class numbers, and the names of the classes. None stays None.

    labels: class numbers, one-hot lists, or names. Names that are all whole numbers are class numbers; others are those
    in `class_names`, or else are numbered alphabetically.
    Raises ValueError, naming the label, for anything else.
    """
    known = [_unwrapped(label) for label in labels if label is not None]
    words = sorted({label for label in known if isinstance(label, str)})
    if not words:
        return [None if label is None else _number(label) for label in labels], tuple(class_names)
    if not all(isinstance(label, str) for label in known):
        raise ValueError("some of its labels are words and some are numbers")
    if all(word.isascii() and word.isdigit() for word in words) and not set(words) & set(class_names):
        return [None if label is None else _number(int(_unwrapped(label))) for label in labels], tuple(class_names)
    names = [*class_names, *(word for word in words if word not in set(class_names))]
    numbers = {name: number for number, name in enumerate(names)}
    shown = tuple(map(printable, names))
    return [None if label is None else numbers[_unwrapped(label)] for label in labels], shown


def _unwrapped(label: Any) -> Any:
    """[3] -> 3: labels of one number or word."""
    return label[0] if isinstance(label, list) and len(label) == 1 else label


def _number(label: Any) -> int:
    label = _unwrapped(label)
    if isinstance(label, list) and label and all(type(value) in (int, float) for value in label):
        if sorted(label)[-2:] != [0, 1] or sum(map(abs, label)) != 1:
            raise ValueError(f"its label {reprlib.repr(label)} is a list of measurements, not a class")
        return label.index(1)
    if type(label) is float and label.is_integer():
        label = int(label)
    if type(label) is not int or not 0 <= label < MAX_CLASSES:
        raise ValueError(f"its label {reprlib.repr(label)} is not a class number (0, 1, ... 2^20 - 1)")
    return label


# Folders


def folder_labels(names: Sequence[str]) -> Labels | None:
    """Classes by the first sub-folder below the folder that all images share; None if there are fewer than two.

    names: plain paths     Classes are in the order of their names, whole numbers in that of their values.
    """
    parents = [PurePosixPath(name).parent for name in names]
    shared = len(PurePosixPath(posixpath.commonpath(parents)).parts)
    folders = [parent.parts[shared] if len(parent.parts) > shared else None for parent in parents]
    found = ordered({folder for folder in folders if folder is not None})
    if len(found) < 2:
        return None
    number = {name: index for index, name in enumerate(found)}
    shown = tuple(map(printable, found))
    return Labels([None if f is None else number[f] for f in folders], shown, "sub-folders")


def ordered(words: Iterable[str]) -> list[str]:
    """By value if all are whole numbers, otherwise alphabetically."""
    found = sorted(words)
    return sorted(found, key=int) if all(word.isascii() and word.isdigit() for word in found) else found


def why_not_classes(labels: Labels) -> str:
    """Why nobody would take these sub-folders for classes; "" if they are.

    Sub-folders named by numbers are parts of a large set, such as 00000/ 01000/, unless they count 0, 1, 2 or 1, 2, 3.
    """
    names = labels.class_names
    if None in labels.classes:
        return "some images lie outside them"
    if all(name.isascii() and name.isdigit() for name in names):
        first = int(names[0])
        if first > 1 or list(names) != [str(first + index) for index in range(len(names))]:
            return "they are named by numbers that do not count 0, 1, 2 or 1, 2, 3"
    return ""


# Images and the names by which they are called elsewhere


def matched(values: Mapping[str, V], images: Sequence[str], own: str = "") -> list[V | None]:
    """The value of each image, None where there is none.

    values: by a path as it is written anywhere. The folders it begins with may be missing, and its suffix; and where
    no image is found, all paths may begin with folders that the images do not have.
    own: the name of the folder or archive with the images, in which paths may begin; then all others lie elsewhere
    Raises ValueError if a path has several values, or could mean several images.
    """
    table: dict[str, V] = {}
    for name, value in values.items():
        if table.setdefault(plain_path(name), value) != value:
            raise ValueError(f"it has two different rows for {printable(plain_path(name))}")
    for reading in _readings(table, own):
        keys = _keys(reading, images)
        if any(keys):
            return [None if key is None else reading[key] for key in keys]
    return [None] * len(images)


def _readings(table: dict[str, V], own: str) -> Iterator[dict[str, V]]:
    """The table as it is, then from the folder `own` on, then without the first folder of all paths, and so on."""
    yield table
    if own:
        paths = {name: f"/{name}".partition(f"/{plain_path(own)}/")[2] for name in table}
        yield {path: table[name] for name, path in paths.items() if path}
    while table:
        shorter = {name.partition("/")[2]: value for name, value in table.items() if "/" in name}
        if len(shorter) != len(table):  # not all lie in a folder, or two would be confused
            return
        table = shorter
        yield table


def own_name(path: Path) -> str:
    """The name of a folder or archive with images, without the suffix of an archive."""
    name = path.resolve().name
    return name if path.is_dir() else re.sub(r"\.(zip|tgz|tar(\.\w+)?)$", "", name, flags=re.IGNORECASE)


def names_of_both(table: Iterable[str], images: Sequence[str]) -> str:
    """A name of either side, for messages that they do not fit."""
    other = next(iter(table), "")
    return f"which are named as in '{printable(images[0])}', but for example '{printable(other)}'"


def _keys(table: Mapping[str, object], images: Sequence[str]) -> list[str | None]:
    """Which entry of `table` each image is meant by: the longest."""
    whole = set(images)
    meant: dict[str, str] = {}
    found: list[str | None] = []
    for image in images:
        parts = image.split("/")
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        stems = [str(PurePosixPath(tail).with_suffix("")) for tail in tails if tail not in ("", ".", "..")]
        key = next((tail for tail in [*tails, *stems] if tail in table), None)
        if key is not None and key != image:
            if key in whole:
                key = None  # it is another image's own name
            elif meant.setdefault(key, image) != image:
                both = f"{printable(meant[key])} or {printable(image)}"
                raise ValueError(f"{printable(key)} could be {both}; write their whole names")
        found.append(key)
    return found


# Classes without images


def without_gaps(numbers: Sequence[int], class_names: Sequence[str]) -> tuple[dict[int, int], tuple[str, ...]]:
    """{number: new number} so that every class has images, and the names of the classes.

    A class without a name is called by its number, unless all keep theirs and none has a name.
    """
    used = sorted(set(numbers))
    if used == list(range(len(used))):
        return {number: number for number in used}, tuple(class_names[: len(used)])
    names = tuple(class_names[number] if number < len(class_names) else str(number) for number in used)
    return {number: index for index, number in enumerate(used)}, names


def renamed(before: Sequence[str], now: Sequence[str]) -> str:
    """The classes that were called otherwise before, in words, if both have names: "0 was cat and is dog"; or ""."""
    if not before or not now:
        return ""
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b]
    each = [f"{i} was {printable(a)} and is {printable(b)}" for i, a, b in pairs[:NAMES_SHOWN]]
    each += [f"{len(pairs) - NAMES_SHOWN} more"] * (len(pairs) > NAMES_SHOWN)
    each += [f"there were {len(before)} names and are {len(now)}"] * (len(before) != len(now))
    return ", ".join(each)


def tally(numbers: Sequence[int], class_names: Sequence[str]) -> str:
    """[1, 1, 0], ["cat", "dog"] -> "2: dog (2), cat (1)", the most frequent first, and not too many."""
    counts = Counter(numbers).most_common()
    each = [f"{class_names[k] if k < len(class_names) else k} ({count})" for k, count in counts[:NAMES_SHOWN]]
    more = [f"{len(counts) - NAMES_SHOWN} more"] if len(counts) > NAMES_SHOWN else []
    return f"{len(counts)}: {', '.join(each + more)}"
