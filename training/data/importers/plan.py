"""What will be written: which images, at which size, with how many channels; and what is left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_utils.errors import UserError, in_words
from torch_utils.files import write_atomically
from torch_utils.images import GREY_MODES, MODES, BadImage
from torch_utils.text import printable
from training.data.importers.image import Target, place
from training.data.importers.inspect import SHOWN, Finding, duplicates
from training.data.importers.labels import Labels
from training.data.importers.rules import Rules
from training.data.sizes import Size, base_for, power_of_two

MEMBER_OVERHEAD = 512  # bytes per image for zip records, PNG chunks and the line in dataset.json
REASONS_SHOWN = 20


@dataclass(frozen=True)
class Skip:
    """An image that is left out."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """`keep`: (index in the source, class or None) in order."""

    target: Target
    keep: tuple[tuple[int, int | None], ...]
    skipped: tuple[Skip, ...]

    @property
    def size_limit(self) -> int:
        """Bytes that the archive needs at most: PNG hardly ever exceeds the raw pixels."""
        height, width = self.target.size
        return len(self.keep) * (height * width * self.target.channels + MEMBER_OVERHEAD)


def make_plan(findings: Sequence[Finding], labels: Labels | None, rules: Rules) -> Plan:
    """Apply the rules to what was found. Raises UserError if no image is left, or there is no common size."""
    intact = [finding for finding in findings if not finding.problem and finding.size is not None]
    if not intact:
        example = f", for example {findings[0].name}: {findings[0].problem}" if findings else ""
        raise UserError(f"None of the {len(findings)} files is an intact image{example}")
    target = Target(rules.resolution or _common_size(intact), _channels(intact, rules), rules)
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
        raise UserError(
            f"None of the {len(findings)} images can be used, for example {skipped[0].name}: {skipped[0].reason}"
        )
    return Plan(target, tuple(keep), tuple(skipped))


def _common_size(intact: Sequence[Finding]) -> Size:
    sizes = [finding.size for finding in intact if finding.size is not None]
    if len(set(sizes)) > 1:
        typical = sorted(min(size) for size in sizes)[len(sizes) // 2]
        advice = power_of_two(typical)  # most images need not be enlarged
        raise UserError(f"The images have {len(set(sizes))} different sizes: add --resolution, such as {advice}")
    (size,) = set(sizes)
    base_for(*size)
    return size


def _channels(intact: Sequence[Finding], rules: Rules) -> int:
    if rules.channels != "auto":
        return int(rules.channels)
    if rules.alpha == "keep" and any(finding.transparent for finding in intact):
        return 4
    return 1 if all(finding.mode in GREY_MODES for finding in intact) else 3


def _misfit(finding: Finding, target: Target) -> str:
    assert finding.size is not None
    try:
        place(finding.size, target)
    except BadImage as reason:
        return str(reason)
    return ""


# What is said about it


def plan_table(plan: Plan) -> str:
    """One line about what will be written."""
    kind = f"{plan.target.size} {MODES[plan.target.channels]}"
    left_out = f", {len(plan.skipped)} left out" if plan.skipped else ""
    return f"{'Archive':<12}{len(plan.keep)} images {kind}, at most {plan.size_limit / 1e6:.1f} MB{left_out}"


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
    """One line per image: its name, a tab, the reason. Raises UserError if it cannot be written."""
    lines = "".join(f"{printable(skip.name)}\t{printable(skip.reason)}\n" for skip in skipped)
    try:
        if path.exists() and not path.is_file():  # a pipe, or /dev/stdout
            path.write_text(lines, "utf-8")
        else:
            write_atomically(path, lines.encode())
    except OSError as error:
        raise UserError(f"Cannot write --skip-list {path}, but nothing else is lost: {in_words(error)}") from error
