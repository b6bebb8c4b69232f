"""From a source to an archive: inspect, plan, say so, write."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.archive import ArchiveWriter, encode_png
from training.ingest.detect import open_source
from training.ingest.inspection import inspect
from training.ingest.labels import Labels, label
from training.ingest.parallel import ordered_map
from training.ingest.picture import DECODER_ERRORS, BadPicture, convert_picture, words
from training.ingest.plan import Plan, Skip, check_rules, make_plan
from training.ingest.rules import Rules
from training.ingest.source import Source
from training.ingest.table import findings_table, plan_table, skipped_table, write_skip_list

MEMBER_OVERHEAD = 512  # bytes per picture for zip records, PNG chunks and the line in dataset.json


@dataclass(frozen=True)
class Job:
    """Where from, where to, and how to go about it. workers: threads; their number never changes the result."""

    source: Path
    dest: Path
    overwrite: bool = False
    dry_run: bool = False
    workers: int = 1
    skip_list: Path | None = None
    progress: bool = True


def run(
    job: Job, rules: Rules, meta: Mapping[str, Any] | None = None, say: Callable[[str], None] = print
) -> list[Skip]:
    """Convert, and return what was left out. meta: further keys for `dataset.json`.

    `dest` appears complete or not at all. Raises UserError for whatever the user can put right.
    """
    check_rules(rules)
    check_dest(job)
    with contextlib.closing(open_source(job.source)) as source:
        labels = label(source, rules.labels)
        findings = inspect(source, range(len(source.names))[: rules.max_images], job.workers, job.progress)
        say(findings_table(source, findings, labels, rules))
        plan = make_plan(findings, labels, rules)
        say(plan_table(plan, size_limit(plan)))
        if job.dry_run:
            skipped = list(plan.skipped)
        else:
            check_space(job.dest, size_limit(plan))
            skipped = list(plan.skipped) + write(source, plan, job, _meta(source, labels, meta))
    skipped.sort(key=lambda skip: skip.name)
    if skipped:
        say(skipped_table(skipped))
    if job.skip_list is not None:
        write_skip_list(job.skip_list, skipped)
    return skipped


def write(source: Source, plan: Plan, job: Job, meta: Mapping[str, Any]) -> list[Skip]:
    """Write the archive; returns the pictures that turned out unusable only now."""

    def encode(index: int) -> bytes | Skip:
        try:
            return encode_png(convert_picture(source.read(index), plan.target))
        except BadPicture as reason:
            return Skip(source.title(index), str(reason))
        except DECODER_ERRORS as error:
            return Skip(source.title(index), f"cannot be converted ({words(error)})")

    skipped = []
    encoded = ordered_map(encode, (index for index, _ in plan.keep), job.workers)
    bar = Progress("convert", len(plan.keep), quiet=not job.progress)
    try:
        with bar, ArchiveWriter(job.dest, meta) as archive:
            for (_, number), result in zip(plan.keep, encoded, strict=True):
                if isinstance(result, Skip):
                    skipped.append(result)
                else:
                    archive.add_png(result, number)
                bar.advance()
    except OSError as error:
        raise UserError(f"cannot write {job.dest}: {error.strerror or error}") from error
    return skipped


def check_dest(job: Job) -> None:
    """Raises UserError if `dest` cannot, or must not, be written."""
    dest = job.dest
    if dest.suffix.lower() != ".zip":
        raise UserError(f"--dest {dest} must end in .zip: archives are zip files")
    if dest.is_dir():
        raise UserError(f"--dest {dest} is a folder: name the zip file to write")
    if dest.exists() and job.source.exists() and dest.samefile(job.source):
        raise UserError("--dest and --source are the same file")
    if dest.exists() and not job.overwrite:
        raise UserError(f"{dest} exists: choose another --dest, or add --overwrite")
    if job.skip_list is not None and (job.skip_list.is_dir() or not job.skip_list.absolute().parent.is_dir()):
        raise UserError(f"cannot write --skip-list {job.skip_list}: name a file in a folder that exists")
    parent = _existing_parent(dest)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"cannot write into {parent}: choose another --dest")


def check_space(dest: Path, needed: int) -> None:
    """Raises UserError if the disk has not `needed` bytes to spare."""
    free = shutil.disk_usage(_existing_parent(dest)).free
    if needed > free:
        raise UserError(f"{dest} may take {needed / 1e6:.0f} MB, but the disk has only {free / 1e6:.0f} MB free")


def size_limit(plan: Plan) -> int:
    """Bytes the archive takes at most: PNG hardly ever exceeds the raw pixels."""
    target = plan.target
    return len(plan.keep) * (target.size.height * target.size.width * target.channels + MEMBER_OVERHEAD)


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.exists())


def _meta(source: Source, labels: Labels | None, meta: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `dataset.json` says beside the labels."""
    names = {"class_names": list(labels.class_names)} if labels is not None and labels.class_names else {}
    return {"source": source.path.name, **names, **(meta or {})}
