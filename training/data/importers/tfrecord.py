"""Sources: TFRecords, as the tools of ProGAN, StyleGAN and StyleGAN2 wrote them, and flat ones with encoded images.

A file is a row of records: length (8 bytes), its checksum (4), content, its checksum (4). The content is a protocol
buffer, tf.train.Example: a map from names to lists of bytes, floats or integers. Nothing is taken whose checksum is
wrong. TensorFlow also writes files that are compressed as a whole, by gzip or zlib, under any name. Sources: the
documentation of TFRecord, and of the encoding of protocol buffers.
"""

from __future__ import annotations

import math
import re
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from torch_utils.errors import UserError, in_words
from torch_utils.text import printable
from torch_utils.untrusted import excess
from training.data.importers.archives import TAR_ERRORS, uncompressed
from training.data.importers.source import Source
from training.data.importers.stacks import ARRAY_ERRORS, channels_first, load_labels
from training.data.labels import numbered

PACKED = r"(\.gz|\.gzip|\.zlib|\.zz)?"
TFRECORD = re.compile(rf"(.+\.tfrec(ords?)?(-\d+-of-\d+)?|.+[-.]tfrecord-\d+-of-\d+){PACKED}")
LEVEL = re.compile(rf"(?P<set>.+)-r(?P<level>\d\d)\.tfrecords?{PACKED}")
ENCODED = ("image/encoded", "image_raw", "image", "encoded", "img", "jpeg", "png", "data")
CLASS = ("image/class/label", "label", "class")
SIZES = tuple(
    (f"{prefix}height", f"{prefix}width", (f"{prefix}channels", f"{prefix}depth")) for prefix in ("", "image/")
)

Example = dict[str, list[Any]]


@dataclass(frozen=True)
class Record:
    """Where a record is. size: of its content, None if the file is damaged there, so that no more can be found"""

    file: int
    offset: int
    size: int | None


def is_tfrecord(path: Path) -> bool:
    """Whether a file is named like TFRecords, or a folder has such files in it."""
    if path.is_dir():
        return any(TFRECORD.fullmatch(child.name) and child.is_file() for child in path.iterdir())
    return bool(TFRECORD.fullmatch(path.name))


def open_tfrecord(path: Path) -> Source:
    """The images of a file, or of all files of a folder; of a set with a file per resolution, those of the largest.

    Labels are read from a file that ends in `.labels` beside it, or from the records. Raises UserError.
    """
    files, labels = _files(path)
    opened: list[IO[bytes]] = []

    def close() -> None:
        for file in opened:
            file.close()

    for each in files:
        try:
            opened.append(_plain(each, sum(file.seek(0, 2) for file in opened)))
        except TAR_ERRORS as error:
            close()
            reason = in_words(error) if isinstance(error, OSError) else str(error)
            raise UserError(f"Cannot read {each}: {printable(reason)}") from error

    records = [record for number, file in enumerate(opened) for record in _scan(number, file)]
    lock = threading.Lock()

    def content(record: Record) -> bytes:
        fault = "" if record.size is None else excess("it", record.size, "picture_mib")
        if record.size is None or fault:
            raise OSError(fault or "the file is damaged from here on")
        with lock:  # all threads share the files' positions
            opened[record.file].seek(record.offset)
            found = opened[record.file].read(record.size + 4)
        if len(found) != record.size + 4:
            raise OSError("the file is truncated")
        if masked(crc32c(found[:-4])) != int.from_bytes(found[-4:], "little"):
            raise OSError("its checksum is wrong")
        return found[:-4]

    try:
        if not records:
            raise ValueError("it is empty")
        values, fault = _labels(labels, records, content), ""
        numbers = None
        try:
            numbers = None if values is None else [int(number or 0) for number in numbered(values)[0]]
        except ValueError as error:
            fault = str(error)
    except ARRAY_ERRORS as error:
        close()
        raise UserError(f"Cannot read {path} as TFRecords ({printable(str(error))})") from error
    names = [f"{printable(files[r.file].name.split('.')[0])}/{index:06d}" for index, r in enumerate(records)]
    return Source(
        "TFRecord", path, names, lambda i: image_of(parse_example(content(records[i]))), close, labels=numbers,
        label_fault=fault,
    )  # fmt: skip


def _files(path: Path) -> tuple[list[Path], Path | None]:
    """The files to read, and that of their labels. Raises UserError for a folder with several sets."""
    found = sorted(child for child in path.iterdir() if is_tfrecord(child)) if path.is_dir() else [path]
    levels = {file: match for file in found if (match := LEVEL.fullmatch(file.name))}
    sets = {match["set"] for match in levels.values()} | ({""} if len(levels) < len(found) else set())
    if len(sets) > 1:
        raise UserError(f"{path} has several sets of TFRecords: give one of the files, such as {found[-1]}")
    if levels:
        file = max(levels, key=lambda file: int(levels[file]["level"]))
        beside = sorted(file.parent.glob("*.labels"))
        return [file], next((each for each in beside if each.name.startswith(f"{levels[file]['set']}-r")), None)
    labels = found[0].with_name(f"{found[0].name.split('.')[0]}.labels")
    return found, labels if labels.is_file() else None


def _plain(path: Path, before: int) -> IO[bytes]:
    """The records of a file, unpacked if it is compressed. before: see `uncompressed`

    Raises one of TAR_ERRORS if it cannot be read or unpacked.
    """
    file = path.open("rb")
    whole = _length(file.read(12)) is not None  # the length of a record may look like the beginning of a zlib stream
    file.seek(0)
    return file if whole else uncompressed(file, before)


def _length(header: bytes) -> int | None:
    """The length of a record that begins with these 12 bytes; None if they are no header."""
    if len(header) < 12 or masked(crc32c(header[:8])) != int.from_bytes(header[8:], "little"):
        return None
    return int.from_bytes(header[:8], "little")


def _scan(number: int, file: IO[bytes]) -> Iterator[Record]:
    """All records of a file, without reading their contents."""
    file.seek(0, 2)
    end, offset = file.tell(), 0
    while offset < end:
        file.seek(offset)
        size = _length(file.read(12))
        if size is None:
            yield Record(number, offset, None)
            return
        yield Record(number, offset + 12, size)
        offset += size + 16


def _labels(path: Path | None, records: Sequence[Record], content: Any) -> list[Any] | None:
    """Labels from a file, or from the records, if the first has any; those that cannot be read have class 0, and are
    left out as images anyway.
    """
    if path is not None:
        return load_labels(path, len(records))
    key = next((name for name in CLASS if parse_example(content(records[0])).get(name)), None)
    if key is None:
        return None
    found: list[Any] = []
    for record in records:
        try:
            found.append(parse_example(content(record))[key][0])
        except (OSError, ValueError, LookupError):
            found.append(None)
    return [label.decode("utf-8", "replace") if isinstance(label, bytes) else label for label in found]


def image_of(example: Example) -> np.ndarray | bytes:
    """The pixels [H,W] or [H,W,C] or the encoded image of an example. Raises ValueError if it has none."""
    content = next(
        (example[name][0] for name in ENCODED if name in example and isinstance(example[name][0], bytes)), None
    )
    if content is None:
        raise ValueError(f"no image among {', '.join(map(printable, list(example)[:8]))}")
    shape = example.get("shape", [])
    for height, width, depths in SIZES:
        if not shape and height in example and width in example:
            depth = next((example[name][0] for name in depths if name in example), 3)
            shape = [example[height][0], example[width][0], depth]
    if shape and all(type(side) is int and side > 0 for side in shape) and math.prod(shape) == len(content):
        pixels: np.ndarray = np.frombuffer(content, np.uint8).reshape(shape)
        if len(shape) == 3 and channels_first(shape):
            pixels = pixels.transpose(1, 2, 0)
        return np.ascontiguousarray(pixels[:, :, 0] if len(shape) == 3 and pixels.shape[2] == 1 else pixels)
    if "shape" in example:
        raise ValueError(f"its shape {shape} does not fit its {len(content)} bytes")
    return bytes(content)


# Protocol buffers


def parse_example(content: bytes) -> Example:
    """Names and lists of a tf.train.Example; lists of floats are empty. Raises ValueError if it is damaged."""
    found: Example = {}
    for features in _of(content, 1):
        for entry in _of(features, 1):
            name = b"".join(_of(entry, 1)).decode("utf-8", "replace")
            values: list[Any] = []
            for feature in _of(entry, 2):
                values += [bytes(value) for many in _of(feature, 1) for value in _of(many, 1)]
                values += [number for many in _of(feature, 3) for number in _integers(many)]
            if values:
                found[name] = values
    return found


def _of(content: bytes, number: int) -> list[bytes]:
    """The fields of a number whose values are bytes."""
    return [value for field, value in _fields(content) if field == number and isinstance(value, bytes)]


def _integers(content: bytes) -> Iterator[int]:
    for field, value in _fields(content):
        if field == 1 and isinstance(value, int):
            yield value
        elif field == 1 and isinstance(value, bytes):
            at = 0
            while at < len(value):
                number, at = _varint(value, at)
                yield number


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of each field. Raises ValueError for what is no protocol buffer."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        size, at = _varint(content, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if not 0 <= size <= len(content) - at:
            raise ValueError("it is not a tf.train.Example")
        yield key >> 3, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        value |= (content[at] & 127) << shift
        at += 1
        if content[at - 1] < 128:
            return struct.unpack("<q", struct.pack("<Q", value & (1 << 64) - 1))[0], at
    raise ValueError("it is not a tf.train.Example")


# CRC-32C (Castagnoli)


POLYNOMIAL = 0x82F63B78
SHORT = 1024  # bytes, up to which one at a time is faster


def masked(crc: int) -> int:
    """A checksum as TFRecords store it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """The CRC-32C of bytes. Longer ones are cut into equal lanes, which are worked off side by side and then joined."""
    if len(content) <= SHORT:
        return _through(0xFFFFFFFF, content) ^ 0xFFFFFFFF
    lanes = math.isqrt(len(content))
    length = len(content) // lanes
    table = np.array(_table(), np.uint32)
    columns = np.frombuffer(content, np.uint8, lanes * length).reshape(lanes, length).T.astype(np.uint32)
    states = np.zeros(lanes, np.uint32)
    states[0] = 0xFFFFFFFF
    for column in columns:
        states = table[(states ^ column) & 255] ^ (states >> 8)
    state, *rest = states.tolist()
    first, second, third, fourth = _zeros(length)
    for lane in rest:
        state = first[state & 255] ^ second[state >> 8 & 255] ^ third[state >> 16 & 255] ^ fourth[state >> 24] ^ lane
    return _through(state, content[lanes * length :]) ^ 0xFFFFFFFF


def _through(state: int, content: bytes) -> int:
    table = _table()
    for byte in content:
        state = table[(state ^ byte) & 255] ^ (state >> 8)
    return state


@cache
def _table() -> list[int]:
    """What the lowest byte of a state becomes."""
    states = list(range(256))
    for _ in range(8):
        states = [state >> 1 ^ (POLYNOMIAL if state & 1 else 0) for state in states]
    return states


@cache
def _zeros(length: int) -> list[list[int]]:
    """What each byte of a state becomes after so many bytes of zero; the four together are the new state."""
    states = np.array([[byte << shift for byte in range(256)] for shift in (0, 8, 16, 24)], np.uint32)
    table = np.array(_table(), np.uint32)
    for _ in range(length):
        states = table[states & 255] ^ (states >> 8)
    return states.tolist()
