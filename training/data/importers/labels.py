"""The class of every image: from the source itself, from sub-folders, or from a table."""

from __future__ import annotations

from pathlib import Path

from torch_utils.errors import UserError
from torch_utils.text import plain_path, printable
from torch_utils.untrusted import read_table
from training.data.importers.source import Source
from training.data.labels import (
    Labels,
    folder_labels,
    manifest_labels,
    matched,
    names_of_both,
    ordered,
    own_name,
    parse_manifest,
    why_not_classes,
)

FIRST_ROWS = 1000  # rows by which the column of the file names is found


def label(source: Source, rule: str) -> Labels | None:
    """Labels by the rule auto, folders, none, or FILE[:COLUMN]. Raises UserError if requested labels are missing."""
    if rule == "none":
        return None
    if rule == "folders":
        labels = folder_labels(source.names)
        if labels is None:
            raise UserError(f"--labels folders needs at least two sub-folders with images, and {source.path} has fewer")
        return labels
    if rule != "auto":
        return from_table(source, *_table_and_column(source, rule))
    if source.label_fault:
        raise UserError(f"The labels of {source.path} are not classes ({source.label_fault}): add --labels none")
    if source.labels is not None:
        return Labels(source.labels, source.class_names, f"the {source.kind} files")
    if source.manifest is not None:
        return from_manifest(source, *source.manifest)
    labels = folder_labels(source.names)
    return None if labels is None or why_not_classes(labels) else labels


def unused(source: Source, rule: str) -> str:
    """Which labels the source has that a rule without classes leaves out, and what uses them; "" if it has none."""
    known = source.labels is not None or _has_labels(source)
    folders = folder_labels(source.names)
    if known and rule == "none":
        return f"the {source.kind} has labels, which --labels auto uses"
    if folders is None or known:
        return ""
    reason = why_not_classes(folders) if rule == "auto" and source.manifest is None else ""
    if rule == "auto" and source.manifest is not None:
        reason = f"{printable(source.manifest[0])} says that there are none"
    names = ", ".join(folders.class_names[:3]) + (", ..." if len(folders.class_names) > 3 else "")
    return f"the sub-folders {names} are not used{f', as {reason}' if reason else ''}; --labels folders uses them"


def _has_labels(source: Source) -> bool:
    try:
        return source.manifest is not None and parse_manifest(source.manifest[1]).labels is not None
    except ValueError:
        return True


def from_manifest(source: Source, name: str, content: bytes) -> Labels | None:
    """From a `dataset.json`, see `parse_manifest`. Raises UserError if it is anything else."""
    try:
        return manifest_labels(parse_manifest(content), name, source.names, own_name(source.path))
    except ValueError as error:
        raise UserError(
            f"{printable(name)} in {source.path} cannot be used ({error}): repair it, or ignore it with --labels none"
        ) from error


def from_table(source: Source, path: Path, column: str) -> Labels:
    """From a table of file names and classes: comma, semicolon or tab separated, or one of CelebA's lists.

    column: heading of the class, "" for the first column after that of the file names. Values that are all whole
    numbers are numbered in their order, others alphabetically. `matched` says how images are found.
    Raises UserError.
    """
    try:
        header, rows = read_table(path)
        files = _files_column(header, rows, source)
        if not column and len(header) < 2:
            raise ValueError("it has a single column; expected file names and classes")
        if column and column not in header:
            others = [name for index, name in enumerate(header) if index != files]
            raise ValueError(f"it has no column '{printable(column)}'; choose one of {printable(', '.join(others))}")
        place = header.index(column) if column else files + 1 if files + 1 < len(header) else 0
        if not column and _known(header[files], _names(source)):  # a table without headings
            rows = [header, *rows]
        filled = [row for row in rows if len(row) > max(place, files) and row[place]]
        names = _ordered({row[place] for row in filled}, header[place])
        number = {name: index for index, name in enumerate(names)}
        table: dict[str, tuple[int]] = {}
        for row in filled:
            if table.setdefault(row[files], (number[row[place]],)) != (number[row[place]],):
                raise ValueError(f"it has two classes for {printable(row[files])}")
        found = matched(table, source.names, own_name(source.path))
        if not any(found):
            both = f", {names_of_both(table, source.names)}" if table else ""
            raise ValueError(f"it names none of the images in {source.path}{both}; give the table of these images")
    except OSError as error:
        raise UserError(f"Cannot read the table {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"Cannot use the table {path}: {error}") from error
    classes = [row[0] if row else None for row in found]
    return Labels(classes, tuple(map(printable, names)), printable(f"{path.name}, column {header[place]}"))


def _files_column(header: list[str], rows: list[list[str]], source: Source) -> int:
    """The column that names most images of the source in its first rows; the first of these."""
    names = _names(source)
    some = [header, *rows[:FIRST_ROWS]]
    hits = [sum(_known(row[index], names) for row in some if index < len(row)) for index in range(len(header))]
    return hits.index(max(hits))


def _names(source: Source) -> set[str]:
    """What images can be called: by their file names, with and without suffix."""
    files = {name.rpartition("/")[2] for name in source.names}
    return files | {name.rpartition(".")[0] for name in files}


def _known(cell: str, names: set[str]) -> bool:
    return plain_path(cell).rpartition("/")[2] in names


def _ordered(values: set[str], column: str) -> list[str]:
    try:
        return sorted(sorted(values), key=int)
    except ValueError:
        pass
    try:
        [float(value) for value in values]
    except ValueError:
        return ordered(values)
    raise ValueError(f"column '{printable(column)}' has measurements, not classes; try --labels FILE:OTHER_COLUMN")


def _table_and_column(source: Source, rule: str) -> tuple[Path, str]:
    """FILE[:COLUMN]; FILE may also be in the source folder or beside it, as CelebA's lists are."""
    for text, column in ((rule, ""), tuple(rule.rpartition(":")[::2])):
        for path in (Path(text), source.path / text, source.path.parent / text):
            if text and path.is_file():
                return path, column
    raise UserError(f"--labels must be auto, folders, none or a table, got {rule}: there is no such file")
