"""What report.json tells of each photograph: of which file its results are, and with which settings they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylegan.projection.photos import Photo
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.untrusted import read_json

REPORT = "report.json"
PIXELS = "picture"  # what reports call the hash of the pixels of a photograph
START = "--start"
OLDER = "it was made with other settings, or by an older version"

Record = dict[str, Any]
"""What report.json tells of a photograph."""


def hash_of(*parts: Any) -> str:
    """A hash of plain data and arrays, to recognise whether a result is still what is asked for."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part, sort_keys=True).encode())
    return found.hexdigest()[:16]


def read_report(outdir: Path) -> dict[str, Record]:
    """The record of each photograph by name; none where there is no report. Raises UserError for another report."""
    try:
        photos = read_json(outdir / REPORT)["photos"]
        return {photo["name"]: photo for photo in photos}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{outdir / REPORT} is not a report of this tool, and would be replaced; move it away, or "
                        "choose another --outdir") from error  # fmt: skip


def write_report(outdir: Path, records: Mapping[str, Record]) -> None:
    text = json.dumps({"photos": list(records.values())}, indent=1) + "\n"
    write_atomically(outdir / REPORT, text.encode())


# Whose results they are


def is_of(record: Record | None, photo: Photo) -> bool:
    """Whether results are of this photograph, and of the same face in it: by its pixels, or by where its file lies."""
    if record is None:
        return False
    parts = record.get("parts")
    if isinstance(parts, Mapping) and parts.get(PIXELS) == hash_of(photo.pixels):
        return True
    return source_of(record) == (photo.path.resolve(), photo.face)


def source_of(record: Record) -> tuple[Path, int | None]:
    """The file of a photograph, and which of its faces."""
    return Path(str(record.get("file", ""))).resolve(), record.get("face")


def names_in(records: Mapping[str, Record]) -> dict[tuple[Path, int | None], str]:
    """The name that each photograph has, by its source."""
    return {source_of(record): name for name, record in records.items()}


# Why something is done again


def reason_to_repeat(record: Record | None, parts: Mapping[str, Any], files: Sequence[Path]) -> str | None:
    """Why a photograph is projected or tuned again; "" where it never was, None where it is done.

    files: what is written when it is done
    """
    if record is None:
        return ""
    missing = next((path.name for path in files if not path.is_file()), None)
    return f"{missing} is missing" if missing else changes(record, parts)


def changes(record: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    """What has changed since `record` was written, for people; None if nothing has."""
    if record.get("key") == hash_of(parts):
        return None
    if "parts" not in record:
        return OLDER
    before, names = record["parts"], {
        PIXELS: "the photograph", "network": "the network", "pivot": "its projection", START: "where it starts",
    }  # fmt: skip
    found = [
        f"{names[name]} has changed" if name in names else f"{name} was {before.get(name)} and is now {value}"
        for name, value in parts.items() if before.get(name) != value
    ]  # fmt: skip
    return ", ".join(found) or OLDER
