"""From a source to an archive: open, label, inspect, plan, report, write."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_utils.errors import UserError, in_words
from torch_utils.images import DECODER_ERRORS, BadImage, first_line, open_image
from torch_utils.images.room import decoded_bytes, room_for_decoding
from torch_utils.progress import Progress
from torch_utils.text import say
from training.data.archive import ArchiveWriter, encode_png
from training.data.importers.image import convert_image
from training.data.importers.inspect import (
    Finding,
    digest_of,
    findings_table,
    inspect,
    open_source,
    ordered_map,
    require_present,
)
from training.data.importers.labels import label, unused
from training.data.importers.plan import (
    NothingLeft,
    Plan,
    Skip,
    is_skip_list,
    make_plan,
    plan_table,
    skipped_table,
    write_skip_list,
)
from training.data.importers.rules import Rules, check_rules
from training.data.importers.source import Source
from training.data.labels import Labels


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
    if job.skip_list is not None and str(job.skip_list) in (rules.labels, rules.labels.rpartition(":")[0]):
        raise UserError(f"--skip-list {job.skip_list} is the table of --labels: name another file")
    with contextlib.closing(open_source(job.source)) as source:
        labels = label(source, rules.labels)
        findings = inspect(source, range(len(source.names))[: rules.max_images], job.workers)
        require_present(source, findings)
        say(findings_table(source, findings, rules.duplicates))
        try:
            plan = make_plan(findings, labels, rules)
            say(plan_table(plan, labels, unused(source, rules.labels)))
            skipped = list(plan.skipped)
            check_space(job.dest, plan.size_limit)
            if not job.dry_run:
                skipped += write(source, plan, findings, job, _meta(source, labels, meta))
        except NothingLeft as nothing:
            report(job, nothing.skipped, say)
            raise
    report(job, skipped, say)
    return skipped


def report(job: Job, skipped: list[Skip], say: Callable[[str], None]) -> None:
    """Say, and write, what was left out and why. Sorts `skipped`."""
    skipped.sort(key=lambda skip: skip.name)
    if skipped:
        say(skipped_table(skipped))
    if job.skip_list is not None:
        write_skip_list(job.skip_list, skipped)


def write(source: Source, plan: Plan, findings: Sequence[Finding], job: Job, meta: Mapping[str, Any]) -> list[Skip]:
    """Write the archive; returns the images that turned out to be unusable only now.

    Raises UserError if an image is not what it was when it was inspected, NothingLeft if none can be converted.
    """
    room = room_for_decoding()

    def encode(index: int) -> bytes | Skip:
        try:
            with room.reserve(source.size(index)):
                data = source.read(index)
                if digest_of(data) != findings[index].digest:
                    raise _changed(source, index, "it is not what it was")
                with room.reserve(decoded_bytes(open_image(data)), more=True):
                    return encode_png(convert_image(data, plan.target))
        except BadImage as reason:
            return Skip(source.title(index), str(reason))
        except FileNotFoundError:
            raise _changed(source, index, "it is gone") from None
        except DECODER_ERRORS as error:
            if not source.is_there(index):
                raise _changed(source, index, first_line(error)) from error
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
            if not len(archive):
                example = f", for example {skipped[0].name}: {skipped[0].reason}"
                raise NothingLeft(f"None of the {len(skipped)} images can be converted{example}",
                                  [*plan.skipped, *skipped])  # fmt: skip
            archive.close_gaps()
    except OSError as error:
        raise UserError(f"Cannot write {job.dest}: {in_words(error)}") from error
    return skipped


def _changed(source: Source, index: int, how: str) -> UserError:
    return UserError(
        f"{source.title(index)} in {source.path} changed while it was converted ({how}): nothing was written; run the"
        " command again when the source is complete"
    )


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
    if job.skip_list is not None:
        check_skip_list(job.skip_list, job)
    parent = _existing_parent(dest)
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"Cannot write into {parent}: choose another --dest")


def check_skip_list(path: Path, job: Job) -> None:
    """Raises UserError if the list cannot be written, or would replace anything but an earlier list."""
    try:
        possible = path.absolute().parent.is_dir() and not path.is_dir()
    except OSError:  # a name that is too long
        possible = False
    if not possible:
        raise UserError(f"Cannot write --skip-list {path}: name a file in a folder that exists")
    if path.resolve() in (job.dest.resolve(), job.source.resolve()):
        raise UserError(f"--skip-list {path} is --dest or --source: name another file")
    if not path.is_file():
        return
    for option, other in (("--dest", job.dest), ("--source", job.source)):
        if other.exists() and path.samefile(other):
            raise UserError(f"--skip-list {path} is the same file as {option} {other}: name another file")
    if not is_skip_list(path):
        raise UserError(f"--skip-list {path} exists and is no list of skipped images: name another file, or delete it")


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
