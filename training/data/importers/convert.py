"""What is going to be written: which pictures, at which size, with which channels; what is left out, and why."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_utils.errors import UserError
from torch_utils.progress import Progress
from torch_utils.text import printable
from training.data.archive import ArchiveWriter, encode_png
from training.data.dataset import base_for
from training.data.importers.detect import open_source
from training.data.importers.geometry import DoesNotFit, Size, place
from training.data.importers.inspect import Finding, duplicates, inspect, ordered_map
from training.data.importers.labels import Labels, label
from training.data.importers.picture import DECODER_ERRORS, MODES, BadPicture, Target, convert_picture, words
from training.data.importers.rules import Rules
from training.data.importers.source import Source


@dataclass(frozen=True)
class Skip:
    """A picture left out."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """`keep`: (index in the source, class or None) in order."""

    target: Target
    keep: tuple[tuple[int, int | None], ...]
    skipped: tuple[Skip, ...]


def check_rules(rules: Rules) -> None:
    """Raises UserError for rules that contradict each other, or a size no network can have."""
    if rules.channels == "4" and rules.alpha != "keep":
        raise UserError("--channels 4 is for transparency: add --alpha keep")
    if rules.alpha == "keep" and rules.channels in ("1", "3"):
        raise UserError(f"--alpha keep needs four channels: leave out --channels {rules.channels}, or --alpha keep")
    if rules.max_images is not None and rules.max_images < 1:
        raise UserError("--max-images must be 1 or more")
    if rules.resolution is not None:
        base_for(rules.resolution.height, rules.resolution.width)


def make_plan(findings: Sequence[Finding], labels: Labels | None, rules: Rules) -> Plan:
    """Apply the rules to what was found. Raises UserError if no picture is left, or no size can be agreed on."""
    sound = [finding for finding in findings if not finding.problem and finding.size is not None]
    if not sound:
        reasons = f": {findings[0].name} is {findings[0].problem}" if findings else ""
        raise UserError(f"none of the {len(findings)} files is a sound picture{reasons}")
    target = Target(
        size=rules.resolution or _common_size(sound),
        channels=_channels(sound, rules),
        crop=rules.crop,
        alpha=rules.alpha,
        resize_filter=rules.resize_filter,
        upscale=rules.upscale,
    )
    again = duplicates(findings) if rules.duplicates == "skip" else {}
    keep, skipped = [], []
    for finding in findings:
        number = None if labels is None else labels.classes[finding.index]
        reason = finding.problem or _misfit(finding, target)
        if not reason and labels is not None and number is None:
            reason = f"no class in {labels.origin}"
        if not reason and finding.index in again:
            reason = f"the same as {again[finding.index]}"
        if reason:
            skipped.append(Skip(finding.name, reason))
        else:
            keep.append((finding.index, number))
    if not keep:
        example = f"{skipped[0].name}: {skipped[0].reason}"
        raise UserError(f"none of the {len(findings)} pictures can be used; {example}")
    return Plan(target, tuple(keep), tuple(skipped))


def _misfit(finding: Finding, target: Target) -> str:
    assert finding.size is not None
    try:
        place(finding.size, target.size, target.crop, target.upscale)
    except DoesNotFit as reason:
        return str(reason)
    return ""


def _common_size(sound: Sequence[Finding]) -> Size:
    sizes = [finding.size for finding in sound if finding.size is not None]
    if len(set(sizes)) > 1:
        typical = sorted(min(size.height, size.width) for size in sizes)[len(sizes) // 2]
        advice = max(4, 1 << typical.bit_length() - 1)  # most pictures need not be enlarged
        raise UserError(f"the pictures have {len(set(sizes))} sizes: choose one, such as --resolution {advice}")
    (size,) = set(sizes)
    base_for(size.height, size.width)
    return size


def _channels(sound: Sequence[Finding], rules: Rules) -> int:
    if rules.channels != "auto":
        return int(rules.channels)
    if rules.alpha == "keep" and any(finding.transparent for finding in sound):
        return 4
    return 1 if all(finding.grey for finding in sound) else 3


# What the dataset tool says: the table before, the list of skipped pictures after


SHOWN = 8
REASONS_SHOWN = 20


def findings_table(source: Source, findings: Sequence[Finding], labels: Labels | None, rules: Rules) -> str:
    """A few lines about everything that was found."""
    sound = [finding for finding in findings if not finding.problem]
    broken = [finding for finding in findings if finding.problem]
    others = f"; {source.other_files} files in it are no pictures" if source.other_files else ""
    rows = [
        ("Source", f"{source.path} ({source.kind}{others})"),
        ("Pictures", f"{len(findings)}, of which {len(sound)} sound and {len(broken)} broken"),
        ("Sizes", _tally(str(finding.size) for finding in sound)),
        ("Modes", _tally(finding.mode for finding in sound)),
        ("Transparent", str(sum(finding.transparent for finding in sound))),
        ("Broken", _tally(finding.problem for finding in broken)),
        ("Duplicates", f"{len(duplicates(findings))} (--duplicates {rules.duplicates})"),
        ("Classes", _classes(findings, labels)),
    ]
    return "\n".join(f"{name:<12}{printable(text)}" for name, text in rows)


def plan_table(plan: Plan, size_limit: int) -> str:
    """One line about what will be written. size_limit: bytes."""
    kind = f"{plan.target.size} {MODES[plan.target.channels]}"
    left_out = f", {len(plan.skipped)} left out" if plan.skipped else ""
    return f"{'Archive':<12}{len(plan.keep)} pictures {kind}, at most {size_limit / 1e6:.1f} MB{left_out}"


def skipped_table(skipped: Sequence[Skip]) -> str:
    """Every reason, with the first few names."""
    by_reason: dict[str, list[str]] = {}
    for skip in skipped:
        by_reason.setdefault(skip.reason, []).append(skip.name)
    lines = [f"Left out {len(skipped)}:"]
    ranked = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    for reason, names in ranked[:REASONS_SHOWN]:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"  {len(names):>6}  {reason}: {', '.join(names[:SHOWN])}{more}")
    if len(ranked) > REASONS_SHOWN:
        lines.append(f"  and {len(ranked) - REASONS_SHOWN} more reasons (--skip-list writes all of them to a file)")
    return "\n".join(lines)


def write_skip_list(path: Path, skipped: Sequence[Skip]) -> None:
    """One line per picture: its name, a tab, the reason."""
    path.write_text("".join(f"{skip.name}\t{skip.reason}\n" for skip in skipped), "utf-8")


def _classes(findings: Sequence[Finding], labels: Labels | None) -> str:
    if labels is None:
        return "none"
    numbers = [labels.classes[finding.index] for finding in findings]
    names = dict(enumerate(labels.class_names))
    tally = _tally(names.get(number, str(number)) for number in numbers if number is not None)
    without = f"; {numbers.count(None)} pictures without" if None in numbers else ""
    return f"{len(set(numbers) - {None})} from {labels.origin}: {tally}{without}"


def _tally(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    if not counts:
        return "none"
    more = f", {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return ", ".join(f"{value} ({count})" for value, count in counts[:SHOWN]) + more


# From a source to an archive: inspect, plan, say so, write


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
