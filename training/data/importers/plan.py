"""What will be written: which images, at which size, with how many channels; and what is left out, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_utils.errors import UserError, in_words
from torch_utils.files import write_atomically
from torch_utils.images import GREY_MODES, MODES, BadImage
from torch_utils.images.deep import made_of
from torch_utils.images.ranges import BYTES, WHOLE, decide, is_dark, is_flat, widest
from torch_utils.text import Range, counted, printable
from training.data.importers.image import Target, place
from training.data.importers.inspect import SHOWN, Finding, duplicates
from training.data.importers.rules import Rules
from training.data.labels import NAMES_SHOWN, Labels, tally, without_gaps
from training.data.sizes import Size, base_for, power_of_two

_SKIPPED = re.compile(rb"[^\t]+\t(truncated|[^\t]+ [^\t]*)\n")  # a line of a skip list
MEMBER_OVERHEAD = 512  # bytes per image for zip records, PNG chunks and the line in dataset.json
REASONS_SHOWN = 20


@dataclass(frozen=True)
class Skip:
    """An image that is left out."""

    name: str
    reason: str


class NothingLeft(UserError):
    """No image can be used. skipped: all of them, and why"""

    def __init__(self, message: str, skipped: Sequence[Skip]) -> None:
        super().__init__(message)
        self.skipped = list(skipped)


@dataclass(frozen=True)
class Plan:
    """`keep`: (index in the source, class or None) in order     faint: rows on images of which little can be seen"""

    target: Target
    keep: tuple[tuple[int, int | None], ...]
    skipped: tuple[Skip, ...]
    faint: tuple[tuple[str, str], ...] = ()

    @property
    def size_limit(self) -> int:
        """Bytes that the archive needs at most: PNG hardly ever exceeds the raw pixels."""
        height, width = self.target.size
        return len(self.keep) * (height * width * self.target.channels + MEMBER_OVERHEAD)


def make_plan(findings: Sequence[Finding], labels: Labels | None, rules: Rules) -> Plan:
    """Apply the rules to what was found. Raises NothingLeft, and UserError if they have no common size."""
    intact = [finding for finding in findings if not finding.problem and finding.size is not None]
    if not intact:
        raise _nothing_left(len(findings), "files is an intact image", [Skip(f.name, f.problem) for f in findings])
    levels = decide(widest((finding.depth, finding.used) for finding in intact), rules.levels)
    usable = [finding for finding in intact if finding.depth not in levels.reasons] or intact
    target = Target(rules.resolution or _common_size(usable), _channels(usable, rules), rules, levels)
    again = duplicates(findings) if rules.duplicates == "skip" else {}
    keep, skipped = [], []
    for finding in findings:
        number = None if labels is None else labels.classes[finding.index]
        reason = finding.problem or levels.reasons.get(finding.depth) or _misfit(finding, target)
        if not reason and labels is not None and number is None:
            reason = f"no class in {labels.origin}"
        if not reason and finding.index in again:
            reason = f"the same as {again[finding.index]}"
        if reason:
            skipped.append(Skip(finding.name, reason))
        else:
            keep.append((finding.index, number))
    if not keep:
        raise _nothing_left(len(findings), "images can be used", skipped)
    return Plan(target, tuple(keep), tuple(skipped), _faint([findings[index] for index, _ in keep], levels.ranges))


def _faint(findings: Sequence[Finding], ranges: Mapping[str, Range]) -> tuple[tuple[str, str], ...]:
    """Rows on the images that will be dark, and on those that will be almost one grey, for each depth.

    Black shapes on transparent ground are no fault.
    """
    opaque = [finding for finding in findings if not finding.transparent]
    rows = []
    for depth, range_ in ranges.items():
        made = [(f, made_of(f.most, range_)) for f in opaque if f.depth == depth]
        dark = [f for f, bytes_ in made if is_dark(bytes_)]
        flat = [f for f, bytes_ in made if is_flat(bytes_) and not is_dark(bytes_)]
        # --levels is for all images of a source, and for bytes only where all have them.
        whole = depth != BYTES or set(ranges) == {BYTES}
        for heading, some in (("Dark", dark), ("Flat", flat)):
            if some:
                rows.append((heading, _faint_text(heading, some, range_, whole and 2 * len(some) > len(made))))
    return tuple(rows)


def _faint_text(heading: str, some: Sequence[Finding], range_: Range, most: bool) -> str:
    """most: these are most of their depth, so that other levels would be right for all"""
    names = ", ".join(finding.name for finding in some[:SHOWN]) + (", ..." if len(some) > SHOWN else "")
    values = widest(("", finding.most) for finding in some)[""]
    low, high = made_of(values, range_)
    looks = "dark, with next to nothing brighter than a quarter of white" if heading == "Dark" else (
        f"almost one grey: most of their values, {values.low:g} to {values.high:g}, become {low:g} to {high:g} of 255"
    )  # fmt: skip
    spread = values if heading == "Flat" and values.low < values.high else "MIN:MAX"
    cure = f"say with --levels {spread} which values are black and white" if most else (
        f"convert them apart from the others, with --levels {spread}"
    )  # fmt: skip
    depth = counted(len(some), f"{some[0].depth} image")
    return f"{depth} will be {looks}: {names}; if they should not be, {cure}"


def _nothing_left(count: int, what: str, skipped: Sequence[Skip]) -> NothingLeft:
    example = f", for example {skipped[0].name}: {skipped[0].reason}" if skipped else ""
    return NothingLeft(f"None of the {count} {what}{example}", skipped)


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


def plan_table(plan: Plan, labels: Labels | None = None, unused: str = "") -> str:
    """What will be written: images, and classes. unused: which labels are not"""
    kind = f"{plan.target.size} {MODES[plan.target.channels]}"
    left_out = f", {len(plan.skipped)} left out" if plan.skipped else ""
    rows = [("Archive", f"{len(plan.keep)} images {kind}, at most {plan.size_limit / 1e6:.1f} MB{left_out}")]
    ranges, rule = plan.target.levels.ranges if plan.target.levels else {}, plan.target.rules.levels
    own = [
        f"{range_} in {depth}" for depth, range_ in ranges.items() if tuple(range_) != WHOLE[BYTES] or depth != BYTES
    ]
    if own:
        rows.insert(0, ("Levels", f"black to white are {', '.join(own)} images (--levels {rule})"))
    rows += plan.faint
    rows.append(("Classes", _classes(plan, labels) if labels else f"none{unused and f'; {unused}'}"))
    return "\n".join(f"{name:<12}{printable(text)}" for name, text in rows)


def _classes(plan: Plan, labels: Labels) -> str:
    """The classes that have images, and what became of the others and of the numbers."""
    kept = [number for _, number in plan.keep if number is not None]
    numbers, names = without_gaps(kept, labels.class_names)
    said = f"{tally([numbers[number] for number in kept], names)}; from {labels.origin}"
    known = {*range(len(labels.class_names)), *(number for number in labels.classes if number is not None)}
    empty = [name_of(labels, number) for number in sorted(known - set(kept))]
    if empty:
        more = f" and {len(empty) - NAMES_SHOWN} more" if len(empty) > NAMES_SHOWN else ""
        said += f"; left out without images: {', '.join(empty[:NAMES_SHOWN])}{more}"
    if any(old != new for old, new in numbers.items()):
        said += f"; renumbered, from 0 to {len(numbers) - 1}, with their names kept"
    return said


def name_of(labels: Labels, number: int) -> str:
    """What a class is called."""
    return labels.class_names[number] if number < len(labels.class_names) else str(number)


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


def is_skip_list(path: Path) -> bool:
    """Whether a file looks like one that `write_skip_list` has written, and so can be replaced. An empty one does.

    Reasons have several words, unlike the classes in a table of labels.
    """
    try:
        with path.open("rb") as file:
            lines = [file.readline(1 << 16) for _ in range(100)]
    except OSError:
        return False
    return all(_SKIPPED.fullmatch(line) for line in lines if line)


def write_skip_list(path: Path, skipped: Sequence[Skip]) -> None:
    """One line per image: its name, a tab, the reason. Raises UserError if it cannot be written."""
    lines = "".join(f"{printable(skip.name)}\t{printable(skip.reason)}\n" for skip in skipped)
    try:
        if path.exists() and not path.is_file():  # a pipe, or /dev/stdout
            path.write_text(lines, "utf-8")
        else:
            write_atomically(path.resolve(), lines.encode())
    except OSError as error:
        raise UserError(f"Cannot write --skip-list {path}, but nothing else is lost: {in_words(error)}") from error
