"""What is going to be written: which pictures, at which size, with which channels; what is left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_utils.errors import UserError
from training.base import base_for
from training.ingest.geometry import DoesNotFit, Size, place
from training.ingest.inspection import Finding, duplicates
from training.ingest.labels import Labels
from training.ingest.picture import Target
from training.ingest.rules import Rules


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
