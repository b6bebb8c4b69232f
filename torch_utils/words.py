"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """1, "picture" -> "1 picture"; 3, "picture" -> "3 pictures"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def printable(text: str) -> str:
    """Text from elsewhere on one line: what could drive a terminal, or cannot be written, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int) -> str:
    """At most `most` characters of it, with dots for the rest."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
