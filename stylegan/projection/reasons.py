"""What a projection depends on, part by part, to tell what is done from what is to be made anew, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stylegan.projection.files import key_of
from stylegan.projection.settings import ProjectionSettings, TuningSettings
from torch_utils.settings import leaves

OLDER = "it was made with other settings, or by an older version"


@dataclass(frozen=True)
class Wanted:
    """All that something depends on. key: a hash of it   parts: the same as plain data, by flags or in a word"""

    key: str
    parts: dict[str, Any]


def wanted(**parts: Any) -> Wanted:
    """parts: plain data by a word, and settings, whose parts go by their flags."""
    plain: dict[str, Any] = {}
    for word, value in parts.items():
        plain |= by_flag(value) if isinstance(value, (ProjectionSettings, TuningSettings)) else {word: value}
    return Wanted(key_of(plain), plain)


def by_flag(settings: ProjectionSettings | TuningSettings) -> dict[str, Any]:
    """Each setting's value under the flag that sets it."""
    fields = type(settings).__dataclass_fields__
    return {fields[name].metadata["flag"].spelling: value for name, value in leaves(settings)}


def changes(record: Mapping[str, Any], now: Wanted) -> str | None:
    """What is other than when `record` was made, in words; None if nothing is."""
    if record.get("key") == now.key:
        return None
    before = record.get("parts")
    if before is None:
        return OLDER
    found = [
        f"{name} was {before.get(name)}, is {value}" if name.startswith("-") else f"another {name}"
        for name, value in now.parts.items() if before.get(name) != value
    ]  # fmt: skip
    return ", ".join(found) or OLDER


def say_why(reasons: Mapping[str, str | None], what: str, say: Callable[[str], object]) -> None:
    """A line for each reason, with the photos that it is of. reasons: by photo; None or "" for nothing to say."""
    for reason in dict.fromkeys(filter(None, reasons.values())):
        say(f"{', '.join(name for name, own in reasons.items() if own == reason)}: {what}, as {reason}")
