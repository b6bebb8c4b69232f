"""What some metrics need besides a network and its data, and are refused without."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stylegan.checkpoints.locate import cache
from stylegan.editing.attribute_table import read_csv
from stylegan.editing.settings import ATTRIBUTES, Attribute, ClassifierSettings
from torch_utils.errors import UserError
from training.attributes import Judge, learn, load_judge, save_judge
from training.data.archive import Archive


def _silent(text: str) -> None:
    """Where nobody reads."""


@dataclass(frozen=True)
class Aids:
    """classifier: a file of `directions.py learn`   table: or a CSV of what the data's pictures show, to learn from
    attributes: which of its columns (all, if none)   directions: a file of `directions.py find`
    validation: pictures that were not trained on   sheets: the folder for pictures   crop: of faces, see `Paths`
    say: takes tables, to be read
    """

    classifier: Path | None = None
    table: Path | None = None
    attributes: Sequence[Attribute] = ()
    directions: Path | None = None
    validation: Archive | None = None
    sheets: Path | None = None
    crop: bool = False
    say: Callable[[str], object] = field(default=_silent)


def judge_of(aids: Aids, data: Archive | None, device: torch.device) -> Judge:
    """The classifier, opened, or taught once by the table and kept in the cache.

    Raises UserError where there is neither, and as `load_judge` and `learn` do.
    """
    if aids.classifier is not None:
        judge = load_judge(aids.classifier)
    elif aids.table is None:
        raise UserError("it takes a classifier: give --classifier FILE of directions.py learn, or --labels CSV")
    elif data is None:
        raise UserError(f"{aids.table} tells of pictures: give them with --data")
    else:
        judge = _taught(aids.table, aids.attributes, data, device)
    judge.network.to(device)
    return judge


def _taught(path: Path, attributes: Sequence[Attribute], data: Archive, device: torch.device) -> Judge:
    lesson = ClassifierSettings(
        data=str(data.path), table=str(path), attributes=attributes, held_out=min(500, len(data) // 8)
    )
    table = read_csv(path, lesson.key, attributes)
    asked = f"{data.content_hash} {path.read_text()} {[str(a) for a in attributes]} {lesson.held_out} {device.type}"
    kept = cache().parent / "classifiers" / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}{ATTRIBUTES}"
    if kept.is_file():
        return load_judge(kept)
    judge = learn(data, table, lesson, device)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {kept}: {error.strerror or error}; set STYLEGAN_CACHE to another") from error
    save_judge(kept, judge)
    return judge
