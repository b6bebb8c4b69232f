"""What the dataset tool says: the table before, the list of skipped pictures after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch_utils.words import printable
from training.ingest.inspection import Finding, duplicates
from training.ingest.labels import Labels
from training.ingest.picture import MODES
from training.ingest.plan import Plan, Skip
from training.ingest.rules import Rules
from training.ingest.source import Source

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
