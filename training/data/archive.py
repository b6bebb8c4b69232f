"""Archives: a zip (or a folder) of images of one size, with optional labels. Read and written only here.

The layout is the one that the published StyleGAN tools use: PNG files in `00000/img00000000.png` and so on, and a
`dataset.json` with {"labels": [[name, class], ...] or null}, to which `class_names` and other keys can be added.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import reprlib
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np
from PIL import Image

from torch_utils.errors import UserError
from torch_utils.files import atomic_write
from torch_utils.images import CHANNELS, DECODER_ERRORS, BadImage, decode, open_image, to_pil
from torch_utils.text import IMAGE_SUFFIXES, is_image, printable
from torch_utils.untrusted import ZIP_ERRORS, parse_json, read_member, read_plain
from training.data.sizes import power_of_two

EMBEDDED = {"mnist": Path(__file__).parent / "mnist.zip"}
MANIFEST = "dataset.json"
MAX_CLASSES = 1 << 20


class Archive:
    """N images of one size and mode. Attributes:

    path: the zip or folder          names: member names, sorted      height, width, channels: of every image
    labels: int64 [N], or None       class_names: list, or None       meta: `dataset.json` without its labels

    Opening looks only at the first image; `read` checks the others.
    """

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self.names = sorted(filter(is_image, files.names))
        if not self.names:
            raise UserError(
                f"There are no images in {path}: expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        self.height, self.width, self.channels = self._decode(0).shape
        self.meta = self._read_meta()
        self.labels = self._match_labels(self.meta.pop("labels", None))
        self.class_names = self._match_names(self.meta.get("class_names"))

    @classmethod
    def open(cls, path: str | Path) -> Archive:
        """Open a zip, a folder (recursively), or an embedded archive by its name (`mnist`).

        Raises UserError if the path does not exist or contains no images, or if its labels do not fit its images.
        """
        where = Path(EMBEDDED.get(str(path), path))
        if where.is_dir():
            return cls(where, files_of_folder(where))
        if not where.exists():
            raise UserError(f"There is no archive or folder at {where}: give a path, or one of: {', '.join(EMBEDDED)}")
        try:
            return cls(where, files_of_zip(where))
        except ZIP_ERRORS as error:
            raise UserError(
                f"Cannot open {where} as a zip file ({error}): convert it with {conversion(where, 64)}"
            ) from None

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Archive({self.path}, {len(self)} images, {self.width}x{self.height}x{self.channels})"

    @property
    def name(self) -> str:
        """A short name for run directories and snapshots."""
        return self.path.stem

    @property
    def num_classes(self) -> int:
        """0 without labels; otherwise at least one more than the largest label."""
        if self.labels is None:
            return 0
        return max(int(self.labels.max()) + 1, len(self.class_names or ()))

    @functools.cached_property
    def content_hash(self) -> str:
        """sha256 that changes with the content, computed without reading pixels.

        Covers name, CRC and size of every member of a zip; name, size and modification time of every file of a folder.
        """
        lines = "\n".join(map(repr, sorted(self._files.fingerprints())))
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def read(self, index: int) -> np.ndarray:
        """Image `index` as uint8 [H,W,C]. Raises UserError if it is damaged or unlike the first one."""
        image = self._decode(index)
        expected = (self.height, self.width, self.channels)
        if image.shape != expected:
            cure = conversion(self.path, power_of_two(min(expected[:2])))
            raise UserError(
                f"{printable(self.names[index])} in {self.path} has height, width, channels {image.shape}, but the"
                f" first image has {expected}: make them equal with {cure}"
            )
        return image

    def _decode(self, index: int) -> np.ndarray:
        name = printable(self.names[index])
        try:
            image = open_image(self._files.read(self.names[index]))
            if index and image.size != (self.width, self.height):  # do not decode it, it may be huge
                return np.empty((image.height, image.width, CHANNELS.get(image.mode, 0)), np.uint8)
            if image.mode in CHANNELS:
                decode(image)
                return np.array(image).reshape(image.height, image.width, CHANNELS[image.mode])
        except (BadImage, *DECODER_ERRORS) as error:
            raise UserError(
                f"Cannot read {name} in {self.path} ({error}): leave it out with {conversion(self.path, 64)}"
            ) from None
        raise UserError(
            f"{name} in {self.path} has mode {image.mode}, not L, RGB or RGBA: convert it with"
            f" {conversion(self.path, power_of_two(min(image.size)))}"
        )

    def _read_meta(self) -> dict[str, Any]:
        if MANIFEST not in self._files.names:
            return {}
        try:
            meta = parse_json(self._files.read(MANIFEST))
        except ZIP_ERRORS as error:
            raise UserError(f"Cannot read {MANIFEST} in {self.path} ({error}): repair or delete it") from None
        return meta if isinstance(meta, dict) else {"labels": meta}

    def _match_labels(self, pairs: object) -> np.ndarray | None:
        if pairs is None:
            return None
        try:
            by_name = {str(name).replace("\\", "/"): label for name, label in pairs}  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise UserError(f'"labels" in {MANIFEST} of {self.path} must be a list of [name, class] pairs') from None
        missing = [name for name in self.names if name not in by_name]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(self)} images in {self.path} have no label, such as {printable(missing[0])}:"
                f' label all of them in {MANIFEST}, or write "labels": null'
            )
        labels = [by_name[name] for name in self.names]
        wrong = [label for label in labels if type(label) is not int or not 0 <= label < MAX_CLASSES]
        if wrong:
            raise UserError(
                f"Label {reprlib.repr(wrong[0])} in {MANIFEST} of {self.path} is not a class number "
                "(0, 1, ... 2^20 - 1)"
            )
        return np.array(labels, dtype=np.int64)

    def _match_names(self, names: object) -> list[str] | None:
        if names is None:
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > MAX_CLASSES:
            raise UserError(f'"class_names" in {MANIFEST} of {self.path} must be a list of words')
        return [printable(name) for name in names]


def conversion(path: Path, resolution: int | str) -> str:
    """The command that turns any images into an archive, for error messages."""
    return f"`dataset_tool.py --source {path} --dest {path.stem}-{resolution}.zip --resolution {resolution}`"


# Where the bytes come from: a zip or a folder


@dataclass(frozen=True)
class Files:
    """Named bytes. read: the content of one, also from several threads at once

    fingerprints: for each file its name and two numbers that change with its content, found without reading it
    """

    names: list[str]
    read: Callable[[str], bytes]
    fingerprints: Callable[[], list[tuple[str, int, int]]]
    close: Callable[[], None] = lambda: None


def files_of_zip(path: Path) -> Files:
    """Members of a zip; fingerprints are CRC and size. Raises one of ZIP_ERRORS for what is none."""
    archive = zipfile.ZipFile(path)
    members, lock = archive.infolist(), threading.Lock()

    def read(name: str) -> bytes:
        with lock:  # ZipFile counts its open members without one
            return read_member(archive, name, size_limit(name))

    names = [member.filename for member in members if not member.is_dir()]
    return Files(names, read, lambda: [(m.filename, m.CRC, m.file_size) for m in members], archive.close)


def files_of_folder(path: Path) -> Files:
    """Files under a folder; fingerprints, of images and labels only, are size and modification time."""
    found = [Path(root) / name for root, _, files in os.walk(path) for name in files]
    names = [file.relative_to(path).as_posix() for file in found if file.is_file()]  # a pipe would never end

    def fingerprints() -> list[tuple[str, int, int]]:
        kept = [name for name in names if is_image(name) or name.endswith(".json")]
        stats = [(name, (path / name).stat()) for name in kept]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]

    return Files(names, lambda name: read_plain(path / name, size_limit(name)), fingerprints)


def size_limit(name: str) -> str:
    """The limit of `untrusted.Limits` for the size of a file."""
    return "picture_mib" if is_image(name) else "table_mib"


# Writing


@final
class ArchiveWriter:
    """Writes an archive; `dest` appears, complete, when the `with` block ends without an exception, or not at all.

    The same images and labels give the same bytes. `meta` holds further keys for `dataset.json`.
    """

    def __init__(self, dest: str | Path, meta: Mapping[str, Any] | None = None) -> None:
        self._dest = Path(dest)
        self._meta = dict(meta or {})
        self._labels: list[tuple[str, int | None]] = []
        self._format: tuple[str, tuple[int, int]] | None = None

    def __enter__(self) -> ArchiveWriter:
        try:
            self._dest.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                scratch = stack.enter_context(atomic_write(self._dest))
                self._zip = stack.enter_context(zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED))
                self._writing = stack.pop_all()
        except OSError as error:
            raise UserError(f"Cannot write {self._dest} ({error.strerror}): choose another --dest") from None
        return self

    def add(self, image: np.ndarray, label: int | None = None) -> None:
        """Append uint8 [H,W,C]. Raises ValueError unless it has the size and mode of the images before it."""
        self.add_png(encode_png(image), label)

    def add_png(self, png: bytes, label: int | None = None) -> None:
        """Like `add`, for an image that another thread or process has already encoded with `encode_png`."""
        with Image.open(io.BytesIO(png)) as image:
            found = (image.mode, image.size)
        self._format = self._format or found
        if found != self._format or found[0] not in CHANNELS:
            raise ValueError(f"image {len(self)} is {found}, but the archive holds {self._format}")
        name = f"{len(self) // 1000:05d}/img{len(self):08d}.png"
        self._write(name, png)
        self._labels.append((name, label))

    def __len__(self) -> int:
        return len(self._labels)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._writing.__exit__(kind, error, trace)
            return
        with self._writing:
            self._write(MANIFEST, json.dumps({**self._meta, "labels": self._all_labels()}).encode())

    def _all_labels(self) -> Sequence[tuple[str, int | None]] | None:
        unlabelled = sum(label is None for _, label in self._labels)
        if not self._labels:
            raise UserError(f"There are no images for {self._dest}: nothing was written")
        if 0 < unlabelled < len(self):
            raise ValueError(f"{unlabelled} of {len(self)} images have no label: label all of them or none")
        return None if unlabelled else self._labels

    def _write(self, name: str, content: bytes) -> None:
        self._zip.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H,W,C] with 1, 3 or 4 channels -> a PNG file."""
    buffer = io.BytesIO()
    # Level 3 writes photographs three times as fast as the default and needs a seventh more bytes.
    to_pil(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
