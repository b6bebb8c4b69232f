"""Look at a source before anything is written: recognise it, open it, decode every image, and say what was found."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from torch_utils.errors import BadImage, UserError
from torch_utils.images import (
    DECODER_ERRORS,
    decode,
    exact,
    first_line,
    frames_of,
    is_sideways,
    open_image,
    shown_values,
)
from torch_utils.images.colour import CONVERTED, profile_note
from torch_utils.images.deep import depth_of
from torch_utils.images.ranges import BYTES, widest
from torch_utils.images.room import Room, decoded_bytes, room_for_decoding
from torch_utils.progress import Progress
from torch_utils.text import Range, counted, is_image, printable
from training.data.archive import advice_for
from training.data.importers.archives import TAR_SUFFIXES, open_tar, open_zip
from training.data.importers.cifar import is_cifar, open_cifar
from training.data.importers.idx import IDX_IMAGES, find_idx, open_idx
from training.data.importers.source import IMAGES_ARE, Source, open_folder, open_lmdb
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
    """What one image is. size: upright. digest: of the file or the pixels. problem: "" if it is intact.

    unread: its file could not even be read     depth, used, most: of its pixels, and of their values, see `ranges`
    frames: that the file has     colour: what becomes of its colours, see `profile_note`
    """

    index: int
    name: str
    size: Size | None = None
    mode: str = ""
    transparent: bool = False
    digest: bytes = b""
    problem: str = ""
    unread: bool = False
    depth: str = BYTES
    used: Range = Range(0, 255)
    most: Range = Range(0, 255)
    frames: int = 1
    colour: str = ""


def inspect(source: Source, indices: Sequence[int], workers: int) -> list[Finding]:
    """One Finding per index, in order. Every image is decoded to its end, so that truncated ones are found here."""
    findings, room = [], room_for_decoding()
    with Progress("inspect", len(indices)) as bar:
        for finding in ordered_map(lambda index: inspect_one(source, index, room), indices, workers):
            findings.append(finding)
            bar.advance()
    return findings


def inspect_one(source: Source, index: int, room: Room) -> Finding:
    """Never raises for what is in the image: that is the finding's `problem`. room: memory shared with other threads"""
    name = source.title(index)
    try:
        with room.reserve(source.size(index)):
            data = source.read(index)
            return _looked_at(index, name, data, room)
    except DECODER_ERRORS as error:
        return Finding(index, name, problem=f"cannot be read ({first_line(error)})", unread=True)


def _looked_at(index: int, name: str, data: bytes | np.ndarray, room: Room) -> Finding:
    found = Finding(index, name, digest=digest_of(data))
    try:
        image = open_image(data)
        mode, (width, height), transparent = image.mode, image.size, image.has_transparency_data
        depth, colour = depth_of(image), profile_note(image)
        with room.reserve(decoded_bytes(image), more=True):
            if depth == BYTES:
                image.draft("L", (max(1, width // 8), max(1, height // 8)))  # reads a JPEG to its end, in less time
                decode(image)
                values = shown_values(image)
            else:
                values = exact(image, data).shown
            size = Size(width, height) if is_sideways(image) else Size(height, width)
            frames = frames_of(image)
    except BadImage as problem:
        return replace(found, problem=str(problem))
    return replace(found, size=size, mode=mode, transparent=transparent, depth=depth, used=values.used,
                   most=values.most, frames=frames, colour=colour)  # fmt: skip


def digest_of(data: bytes | np.ndarray) -> bytes:
    """Of an encoded file, or of pixels."""
    content = data.tobytes() if isinstance(data, np.ndarray) else data
    return hashlib.blake2b(content, digest_size=16).digest()


def require_present(source: Source, findings: Sequence[Finding]) -> None:
    """Raises UserError if images could not be read because they are not there any more, or the archive has changed."""
    unread = [finding for finding in findings if finding.unread]
    gone = [finding.name for finding in unread if not source.is_there(finding.index)]
    if gone or (findings and not source.is_there(findings[0].index)):
        which = f"{counted(len(gone), 'image')}, such as {gone[0]}" if gone else "it"
        raise UserError(
            f"{source.path} changed while it was read ({which} can no longer be read): nothing was written; run the"
            " command again when the source is complete"
        )


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
    others = f"; {source.others} left out: {IMAGES_ARE}" if source.others else ""
    rows = [
        ("Source", f"{source.path} ({source.kind}{others})"),
        ("Images", f"{len(findings)}: {len(intact)} intact, {len(broken)} broken"),
        ("Sizes", _tally(str(finding.size) for finding in intact)),
        ("Modes", _tally(finding.mode for finding in intact)),
        ("Values", _values(intact)),
        ("Transparent", str(sum(finding.transparent for finding in intact))),
        ("Broken", _tally(finding.problem for finding in broken)),
        ("Duplicates", f"{len(duplicates(findings))} (--duplicates {duplicates_rule})"),
        *((name, text) for name, text in (("Frames", _frames(intact)), ("Profiles", _profiles(intact))) if text),
    ]
    return "\n".join(f"{name:<12}{printable(text)}" for name, text in rows)


def _values(intact: Sequence[Finding]) -> str:
    """The values that images of each depth really use."""
    used = widest((finding.depth, finding.used) for finding in intact)
    counts = Counter(finding.depth for finding in intact)
    return ", ".join(f"{low:g} to {high:g} in {depth} ({counts[depth]})" for depth, (low, high) in used.items())


def _frames(intact: Sequence[Finding]) -> str:
    """How many frames of animations, pages of documents and second images of photographs are not used."""
    many = [finding for finding in intact if finding.frames > 1]
    if not many:
        return ""
    rest = sum(finding.frames - 1 for finding in many)
    names = ", ".join(finding.name for finding in many[:SHOWN]) + (", ..." if len(many) > SHOWN else "")
    return (
        f"only the first image of each file is taken, and {rest} more are left out of {counted(len(many), 'file')}: "
        f"{names}; to use frames and pages, save each as a file"
    )


def _profiles(intact: Sequence[Finding]) -> str:
    """Which colours are not sRGB: what they are converted from, and which are not converted, and why."""
    names = [f.colour.removeprefix(CONVERTED) for f in intact if f.colour.startswith(CONVERTED)]
    parts = [CONVERTED + _tally(names)] if names else []
    others: dict[str, list[str]] = {}
    for finding in intact:
        if finding.colour and not finding.colour.startswith(CONVERTED):
            others.setdefault(finding.colour, []).append(finding.name)
    for reason, files in others.items():
        parts.append(f"{reason} ({len(files)}): {', '.join(files[:SHOWN])}" + ", ..." * (len(files) > SHOWN))
    return "; ".join(parts)


def _tally(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    if not counts:
        return "none"
    more = f", {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return ", ".join(f"{value} ({count})" for value, count in counts[:SHOWN]) + more
