"""A map over threads that keeps the order, so that results never depend on the number of workers."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from torch_utils.progress import Progress
from training.data.importers.geometry import Size
from training.data.importers.picture import DECODER_ERRORS, GREY, BadPicture, is_turned, load, open_picture, words
from training.data.importers.source import Source

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """function(item) for each item, in order. At most 4 results per worker wait to be taken.

    Threads serve here: decoding, scaling and compressing pictures release the interpreter's lock.
    """
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


# Look at every picture of a source before anything is written


@dataclass(frozen=True)
class Finding:
    """What one picture is. size: as seen, upright. digest: of the file or the pixels. problem: "" if it is sound."""

    index: int
    name: str
    size: Size | None = None
    mode: str = ""
    transparent: bool = False
    digest: bytes = b""
    problem: str = ""

    @property
    def grey(self) -> bool:
        return self.mode in GREY


def inspect(source: Source, indices: Sequence[int], workers: int, progress: bool = True) -> list[Finding]:
    """One Finding per index, in order. Every picture is decoded to its end, so that truncated ones are found here."""
    findings = []
    with Progress("inspect", len(indices), quiet=not progress) as bar:
        for finding in ordered_map(lambda index: inspect_one(source, index), indices, workers):
            findings.append(finding)
            bar.advance()
    return findings


def inspect_one(source: Source, index: int) -> Finding:
    """Never raises for what is in the picture: that is the finding's `problem`."""
    name = source.title(index)
    try:
        data = source.read(index)
    except DECODER_ERRORS as error:
        return Finding(index, name, problem=f"cannot be read ({words(error)})")
    content = data.tobytes() if isinstance(data, np.ndarray) else data
    digest = hashlib.blake2b(content, digest_size=16).digest()
    try:
        image = open_picture(data)
        mode, (width, height) = image.mode, image.size
        image.draft("L", (max(1, width // 8), max(1, height // 8)))  # still reads a JPEG to its end, in less time
        load(image)
        size = Size(width, height) if is_turned(image) else Size(height, width)
        return Finding(index, name, size, mode, image.has_transparency_data, digest)
    except BadPicture as problem:
        return Finding(index, name, digest=digest, problem=str(problem))


def duplicates(findings: Sequence[Finding]) -> dict[int, str]:
    """{index: name of the first of its kind} for every sound picture that has been met before, byte for byte."""
    first: dict[tuple[bytes, Size | None], str] = {}
    again = {}
    for finding in findings:
        if not finding.problem:
            original = first.setdefault((finding.digest, finding.size), finding.name)
            if original != finding.name:
                again[finding.index] = original
    return again
