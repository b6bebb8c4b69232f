"""The class of every image: from the source itself, from sub-folders, or from a table."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch_utils.errors import UserError, in_words
from torch_utils.text import printable
from torch_utils.untrusted import parse_json, read_plain
from training.data.archive import MAX_CLASSES
from training.data.importers.source import Source


@dataclass(frozen=True)
class Labels:
    """classes: one number per image of the source, None for images without a class     origin: for messages

    class_names: the name of each number, or empty
    """

    classes: Sequence[int | None]
    class_names: tuple[str, ...]
    origin: str


def label(source: Source, rule: str) -> Labels | None:
    """Labels by the rule auto, folders, none, or FILE[:COLUMN]. Raises UserError if requested labels are missing."""
    if rule == "none":
        return None
    if rule == "folders":
        labels = from_folders(source)
        if labels is None:
            raise UserError(f"--labels folders needs at least two sub-folders with images, and {source.path} has fewer")
        return labels
    if rule != "auto":
        return from_table(source, *_table_and_column(source, rule))
    if source.labels is not None:
        return Labels(source.labels, source.class_names, f"the {source.kind} files")
    if source.manifest is not None:
        return from_manifest(source, *source.manifest)
    labels = from_folders(source)
    # Folders are not classes if their names are numbers, as in 00000/ 01000/ 02000/, or if images lie outside them.
    if labels is None or None in labels.classes or all(name.isdigit() for name in labels.class_names):
        return None
    return labels


def from_folders(source: Source) -> Labels | None:
    """Classes by the first sub-folder below the folder that all images share, sorted by name; None if under two."""
    parents = [PurePosixPath(name.lstrip("/")).parent for name in source.names]
    shared = len(PurePosixPath(posixpath.commonpath(parents)).parts)
    folders = [parent.parts[shared] if len(parent.parts) > shared else None for parent in parents]
    names = sorted({folder for folder in folders if folder is not None})
    if len(names) < 2:
        return None
    number = {name: index for index, name in enumerate(names)}
    return Labels([None if f is None else number[f] for f in folders], tuple(names), "sub-folders")


def from_manifest(source: Source, name: str, content: bytes) -> Labels | None:
    """From a `dataset.json` with {"labels": [[name, class], ...] or null}. Raises UserError if it is anything else."""
    root = name.rpartition("/")[0]
    try:
        manifest = parse_json(content)
        pairs = manifest.get("labels")
        if pairs is None:
            return None
        table = {f"{root}/{file}" if root else file: number for file, number in pairs}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{name} in {source.path} is damaged ({error}): repair it, or ignore it with --labels none"
        ) from error
    if not all(type(number) is int and 0 <= number < MAX_CLASSES for number in table.values()):
        raise UserError(
            f"Labels in {name} of {source.path} are not class numbers: repair them, or ignore them with --labels none"
        )
    names = manifest.get("class_names") or []
    if not isinstance(names, list) or len(names) > MAX_CLASSES or not all(isinstance(n, str) for n in names):
        raise UserError(
            f"class_names in {name} of {source.path} must be a list of words: repair it, or use --labels none"
        )
    class_names = tuple(map(printable, names))
    return Labels([table.get(file) for file in source.names], class_names, name)


def from_table(source: Source, path: Path, column: str) -> Labels:
    """From a table of file names and classes: comma, semicolon or tab separated, or CelebA's list of attributes.

    column: heading of the class, "" for the second column. Values that are all whole numbers are numbered in their
    order, others alphabetically. Images are found by relative name, by file name, or by file name without its suffix.
    Raises UserError.
    """
    header, rows = _read_table(path)
    if not column and len(header) < 2:
        raise UserError(f"{path} has a single column: expected a table of file names and classes")
    if column and column not in header:
        raise UserError(f"{path} has no column '{column}': choose one of {', '.join(header[1:])}")
    place = header.index(column) if column else 1
    known = set(source.names) | {PurePosixPath(name).name for name in source.names}
    if not column and header[0] in known:  # a table without headings
        rows = [header, *rows]
    values = {row[0].strip(): row[place].strip() for row in rows if len(row) > place and row[place].strip()}
    names = _ordered(set(values.values()), path, header[place])
    number = {name: index for index, name in enumerate(names)}
    classes = [number.get(_look_up(values, file)) for file in source.names]
    if all(found is None for found in classes):
        example = f", but for example '{next(iter(values))}'" if values else ""
        raise UserError(f"{path} names none of the images in {source.path}{example}: give the table of these images")
    return Labels(classes, tuple(map(printable, names)), f"{path.name}, column {header[place]}")


def _look_up(values: Mapping[str, str], name: str) -> str:
    file = PurePosixPath(name)
    return next((values[key] for key in (name, file.name, file.stem) if key in values), "")


def _ordered(values: set[str], path: Path, column: str) -> list[str]:
    try:
        return sorted(values, key=int)
    except ValueError:
        pass
    try:
        [float(value) for value in values]
    except ValueError:
        return sorted(values)
    raise UserError(f"Column '{column}' of {path} contains measurements, not classes: try --labels FILE:OTHER_COLUMN")


def _table_and_column(source: Source, rule: str) -> tuple[Path, str]:
    """FILE[:COLUMN]; FILE may also be in the source folder or beside it, as CelebA's lists are."""
    for text, column in ((rule, ""), tuple(rule.rpartition(":")[::2])):
        for path in (Path(text), source.path / text, source.path.parent / text):
            if text and path.is_file():
                return path, column
    raise UserError(f"--labels must be auto, folders, none or a table, got {rule}: there is no such file")


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The headings, and the rows, whose first cell is a file name."""
    try:
        lines = read_plain(path, "table_mib").decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"Cannot read the table {path}: {in_words(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"Cannot read the table {path}: {error}") from error
    if len(lines) < 2:
        raise UserError(f"The table {path} is empty: expected a heading and rows of file names and classes")
    if lines[0].strip().isdigit():  # CelebA: the number of rows, the names of the attributes, then the rows
        return ["file", *lines[1].split()], [line.split() for line in lines[2:] if line.strip()]
    separator = max(",;\t", key=lines[0].count)
    try:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error as error:
        raise UserError(f"Cannot read the table {path}: {error}") from error
    if not rows:
        raise UserError(f"The table {path} is empty: expected a heading and rows of file names and classes")
    return [cell.strip() for cell in rows[0]], rows[1:]
