"""The project uses one word for each concept: those of docs/glossary.md, and not those of its column "not"."""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs/glossary.md"
LOGS = {"docs/performance-log.md", "docs/quality-log.md"}
"""Records of what was tried: they may keep the words of their time."""
ALLOWED = ("pictures.latent.safetensors", "picture_mib", "000 training pictures", '"picture"')
"""Names of files, settings and fields of reports that users have, and titles in archives: they stay."""
SOURCES = {".py", ".cpp", ".h", ".cu", ".cuh", ".ipynb"}
FOLDERS = ("stylegan", "training", "torch_utils", "ops", "benchmarks", "notebooks", "docs", ".ci")


@dataclass(frozen=True)
class Forbidden:
    words: frozenset[str]  # words or phrases, wherever they stand
    names: frozenset[str]  # identifiers as a whole, in Python

    @property
    def pattern(self) -> re.Pattern[str]:
        phrases = sorted(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in self.words)
        return re.compile(rf"(?<![a-z])({'|'.join(phrases)})(?![a-z])", re.IGNORECASE)


@cache
def forbidden() -> Forbidden:
    entries = [entry for row in glossary() for entry in re.findall(r"`([^`]+)`", row["not"])]
    names = {entry.removesuffix("()") for entry in entries if entry.endswith("()")}
    return Forbidden(frozenset(entry.lower() for entry in entries if not entry.endswith("()")), frozenset(names))


def glossary() -> Iterator[dict[str, str]]:
    """Yields each row of each table as {heading of the column: cell}."""
    heads: list[str] = []
    for line in GLOSSARY.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heads = []
        elif not heads:
            heads = cells
        elif set("".join(cells)) - set("-"):
            assert len(cells) == len(heads), line
            yield dict(zip(heads, cells, strict=True))


def violations(text: str) -> list[str]:
    """The forbidden words in prose or source. Identifiers count as the words that they are made of."""
    for name in ALLOWED:
        text = text.replace(name, "")
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ")
    return [match.group() for match in forbidden().pattern.finditer(text)]


def forbidden_names(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.NAME and token.string in forbidden().names]


def prose(markdown: str) -> str:
    """A page without its commands, `names` and addresses, but with its Python."""
    python = re.findall(r"^```python\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    return "\n".join([re.sub(r"\]\([^)]*\)", "]", text), *python])


def pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [name for page in found if (name := page.relative_to(ROOT).as_posix()) not in LOGS]


def sources() -> list[str]:
    inside = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*")) if file.suffix in SOURCES]
    names = [file.relative_to(ROOT).as_posix() for file in [*sorted(ROOT.glob("*.py")), ROOT / "Makefile", *inside]]
    return names


def readable(file: Path) -> str:
    """What a person reads of a source file: of a notebook the cells, without what they have printed and drawn."""
    if file.suffix != ".ipynb":
        return file.read_text()
    return "\n".join("".join(cell["source"]) for cell in json.loads(file.read_text())["cells"])


def test_each_term_stands_once_and_is_not_forbidden_elsewhere() -> None:
    rows = list(glossary())
    terms = [row["term"] for row in rows]
    assert all(set(row) == {"term", "meaning", "in code", "not"} for row in rows)
    assert len(set(terms)) == len(terms) >= 50
    assert len(forbidden().words) >= 20 and len(forbidden().names) >= 8
    assert [term for term in terms if violations(term)] == []


def test_words_are_found_in_prose_names_and_strings() -> None:
    assert violations("A Picture of it. save_pictures(ofPicture)") == ["Picture", "pictures", "Picture"]
    assert violations("imageability, coursework, adjudged, pictures.latent.safetensors") == []
    assert violations("it knows them by\nheart") == ["by\nheart"]
    assert forbidden_names("halves(at_once)  # halves\nhalf = 'Half'\n") == ["halves", "at_once"]
    assert prose("`picture` [a](picture.md)\n```bash\npicture\n```\n```python\nx\n```\n").split() == ["[a]", "x"]


@pytest.mark.parametrize("page", pages())
def test_pages_use_the_words_of_the_glossary(page: str) -> None:
    assert violations(prose((ROOT / page).read_text())) == []


@pytest.mark.parametrize("source", sources())
def test_sources_use_the_words_of_the_glossary(source: str) -> None:
    text = readable(ROOT / source)
    assert violations(text) == []
    assert source.endswith(".py") is False or forbidden_names(text) == []
