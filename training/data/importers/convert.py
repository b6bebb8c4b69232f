"""From a source to an archive: open, label, inspect, plan, report, write."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_utils.errors import UserError, in_words
from torch_utils.images import DECODER_ERRORS, BadImage, first_line
from torch_utils.progress import Progress
from torch_utils.text import say
from training.data.archive import ArchiveWriter, encode_png
from training.data.importers.image import convert_image
from training.data.importers.inspect import findings_table, inspect, open_source, ordered_map
from training.data.importers.labels import Labels, label
from training.data.importers.plan import Plan, Skip, make_plan, plan_table, skipped_table, write_skip_list
from training.data.importers.rules import Rules, check_rules
from training.data.importers.source import Source


@dataclass(frozen=True)
class Job:
    """What to read, where to write, and how. workers: threads; their number never changes the result."""

    source: Path
    dest: Path
    overwrite: bool = False
    dry_run: bool = False
    workers: int = 1
    skip_list: Path | None = None


def run(job: Job, rules: Rules, meta: Mapping[str, Any] | None = None, say: Callable[[str], None] = say) -> list[Skip]:
    """Convert, and return what was left out. meta: further keys for `dataset.json`.

    `dest` appears complete or not at all. Raises UserError for everything that the user can correct.
    """
    check_rules(rules)
    check_dest(job)
    with contextlib.closing(open_source(job.source)) as source:
        labels = label(source, rules.labels)
        findings = inspect(source, range(len(source.names))[: rules.max_images], job.workers)
        say(findings_table(source, findings, labels, rules.duplicates))
        plan = make_plan(findings, labels, rules)
        say(plan_table(plan))
        skipped = list(plan.skipped)
        if not job.dry_run:
            check_space(job.dest, plan.size_limit)
            skipped += write(source, plan, job, _meta(source, labels, meta))
    skipped.sort(key=lambda skip: skip.name)
    if skipped:
        say(skipped_table(skipped))
    if job.skip_list is not None:
        write_skip_list(job.skip_list, skipped)
    return skipped


def write(source: Source, plan: Plan, job: Job, meta: Mapping[str, Any]) -> list[Skip]:
    """Write the archive; returns the images that turned out to be unusable only now."""

    def encode(index: int) -> bytes | Skip:
        try:
            return encode_png(convert_image(source.read(index), plan.target))
        except BadImage as reason:
            return Skip(source.title(index), str(reason))
        except DECODER_ERRORS as error:
            return Skip(source.title(index), f"cannot be converted ({first_line(error)})")

    skipped = []
    encoded = ordered_map(encode, (index for index, _ in plan.keep), job.workers)
    try:
        with Progress("convert", len(plan.keep)) as bar, ArchiveWriter(job.dest, meta) as archive:
            for (_, number), result in zip(plan.keep, encoded, strict=True):
                if isinstance(result, Skip):
                    skipped.append(result)
                else:
                    archive.add_png(result, number)
                bar.advance()
    except OSError as error:
        raise UserError(f"Cannot write {job.dest}: {in_words(error)}") from error
    return skipped


def _meta(source: Source, labels: Labels | None, meta: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `dataset.json` says beside the labels."""
    names = {"class_names": list(labels.class_names)} if labels is not None and labels.class_names else {}
    return {"source": source.path.name, **names, **(meta or {})}


# Is there a place for it?


def check_dest(job: Job) -> None:
    """Raises UserError if `dest` cannot, or must not, be written."""
    dest = job.dest
    if dest.suffix.lower() != ".zip":
        raise UserError(f"--dest must end in .zip, because archives are zip files, got {dest}")
    if dest.is_dir():
        raise UserError(f"--dest {dest} is a folder: name the zip file to write")
    if dest.exists() and job.source.exists() and dest.samefile(job.source):
        raise UserError(f"--dest and --source are the same file, {dest}: choose another --dest")
    if dest.exists() and not job.overwrite:
        raise UserError(f"{dest} exists: choose another --dest, or add --overwrite")
    if job.skip_list is not None and (job.skip_list.is_dir() or not job.skip_list.absolute().parent.is_dir()):
        raise UserError(f"Cannot write --skip-list {job.skip_list}: name a file in a folder that exists")
    parent = _existing_parent(dest)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"Cannot write into {parent}: choose another --dest")


def check_space(dest: Path, needed: int) -> None:
    """Raises UserError if the disk has fewer than `needed` bytes free."""
    free = shutil.disk_usage(_existing_parent(dest)).free
    if needed > free:
        raise UserError(
            f"{dest} may need {needed / 1e6:.0f} MB, but the disk has only {free / 1e6:.0f} MB free: make room, or"
            " choose another --dest"
        )


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.exists())
