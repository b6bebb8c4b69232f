"""Look at a source before anything is written: recognise it, open it, decode every image, and say what was found."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from torch_utils.errors import UserError
from torch_utils.images import DECODER_ERRORS, BadImage, decode, first_line, is_sideways, open_image
from torch_utils.progress import Progress
from torch_utils.text import is_image, printable
from training.data.archive import advice_for
from training.data.importers.archives import TAR_SUFFIXES, open_tar, open_zip
from training.data.importers.cifar import is_cifar, open_cifar
from training.data.importers.idx import IDX_IMAGES, find_idx, open_idx
from training.data.importers.source import Source, open_folder, open_lmdb
from training.data.importers.stacks import HDF5, NUMPY, open_stack
from training.data.importers.tfrecord import is_tfrecord, open_tfrecord
from training.data.sizes import Size

CELEBA = "img_align_celeba"
SHOWN = 8  # values in one row of the table

T = TypeVar("T")
R = TypeVar("R")


def open_source(path: Path) -> Source:
    """Open a source of any kind that this tool reads. Close the result with `contextlib.closing`.

    Raises UserError if there is nothing at `path`, or nothing that this tool reads.
    """
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise UserError(f"There is no such file or folder: {path}")
    name = path.name.lower()
    if IDX_IMAGES in name:
        return open_idx(path)
    if is_cifar(path):
        return open_cifar(path)
    if name.endswith(TAR_SUFFIXES):
        return open_tar(path)
    if path.suffix.lower() in (".mdb", ".lmdb"):
        return open_lmdb(path)
    if path.suffix.lower() in (*NUMPY, *HDF5):
        return open_stack(path)
    if is_tfrecord(path):
        return open_tfrecord(path)
    if zipfile.is_zipfile(path) or name.endswith(".zip"):
        return open_zip(path)
    if is_image(name):
        raise UserError(f"{path} is a single image: give the folder that contains it")
    known = "a folder, .zip, .tar(.gz), LMDB, IDX file, CIFAR-10 archive, .tfrecords, .npy, .npz or .h5"
    raise UserError(f"Cannot tell what kind of source {path} is: {advice_for([path.name]) or f'give {known}'}")


def _open_directory(path: Path) -> Source:
    if (path / "data.mdb").is_file():
        return open_lmdb(path)
    idx = find_idx(path)
    if idx:
        return open_idx(idx)
    if is_cifar(path):
        return open_cifar(path)
    if is_tfrecord(path) and not any(is_image(child.name) for child in path.iterdir()):
        return open_tfrecord(path)
    if (path / CELEBA).is_dir():  # beside it are lists, and perhaps the same faces uncropped
        return open_folder(path / CELEBA)
    if (path / f"{CELEBA}.zip").is_file():
        return open_zip(path / f"{CELEBA}.zip")
    return open_folder(path)


@dataclass(frozen=True)
class Finding:
    """What one image is. size: upright. digest: of the file or the pixels. problem: "" if it is intact."""

    index: int
    name: str
    size: Size | None = None
    mode: str = ""
    transparent: bool = False
    digest: bytes = b""
    problem: str = ""


def inspect(source: Source, indices: Sequence[int], workers: int) -> list[Finding]:
    """One Finding per index, in order. Every image is decoded to its end, so that truncated ones are found here."""
    findings = []
    with Progress("inspect", len(indices)) as bar:
        for finding in ordered_map(lambda index: inspect_one(source, index), indices, workers):
            findings.append(finding)
            bar.advance()
    return findings


def inspect_one(source: Source, index: int) -> Finding:
    """Never raises for what is in the image: that is the finding's `problem`."""
    name = source.title(index)
    try:
        data = source.read(index)
    except DECODER_ERRORS as error:
        return Finding(index, name, problem=f"cannot be read ({first_line(error)})")
    content = data.tobytes() if isinstance(data, np.ndarray) else data
    digest = hashlib.blake2b(content, digest_size=16).digest()
    try:
        image = open_image(data)
        mode, (width, height) = image.mode, image.size
        image.draft("L", (max(1, width // 8), max(1, height // 8)))  # still reads a JPEG to its end, in less time
        decode(image)
        size = Size(width, height) if is_sideways(image) else Size(height, width)
        return Finding(index, name, size, mode, image.has_transparency_data, digest)
    except BadImage as problem:
        return Finding(index, name, digest=digest, problem=str(problem))


def duplicates(findings: Sequence[Finding]) -> dict[int, str]:
    """{index: name of the first one} for every intact image that equals an earlier one, byte for byte."""
    first: dict[tuple[bytes, Size | None], str] = {}
    again = {}
    for finding in findings:
        if not finding.problem:
            original = first.setdefault((finding.digest, finding.size), finding.name)
            if original != finding.name:
                again[finding.index] = original
    return again


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """function(item) for each item, in order, so that results never depend on the number of workers.

    At most 4 results per worker wait to be used. Threads are enough, because decoding, scaling and compressing images
    release the interpreter's lock.
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


# The table of what was found


def findings_table(source: Source, findings: Sequence[Finding], duplicates_rule: str) -> str:
    """A few lines about everything that was found."""
    intact = [finding for finding in findings if not finding.problem]
    broken = [finding for finding in findings if finding.problem]
    others = f"; {source.other_files} other files in it are not images" if source.other_files else ""
    rows = [
        ("Source", f"{source.path} ({source.kind}{others})"),
        ("Images", f"{len(findings)}: {len(intact)} intact, {len(broken)} broken"),
        ("Sizes", _tally(str(finding.size) for finding in intact)),
        ("Modes", _tally(finding.mode for finding in intact)),
        ("Transparent", str(sum(finding.transparent for finding in intact))),
        ("Broken", _tally(finding.problem for finding in broken)),
        ("Duplicates", f"{len(duplicates(findings))} (--duplicates {duplicates_rule})"),
    ]
    return "\n".join(f"{name:<12}{printable(text)}" for name, text in rows)


def _tally(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    if not counts:
        return "none"
    more = f", {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return ", ".join(f"{value} ({count})" for value, count in counts[:SHOWN]) + more
