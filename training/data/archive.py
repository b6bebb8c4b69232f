"""Archives: a zip (or a folder) of images of one size, with optional labels. Read and written only here.

The layout is the one that the published StyleGAN tools use: PNG files in `00000/img00000000.png` and so on, and a
`dataset.json` with {"labels": [[name, class], ...] or null}, to which `class_names` and other keys can be added.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NoReturn, final

import numpy as np
from PIL import Image

from torch_utils.errors import BadImage, UserError
from torch_utils.files import atomic_write
from torch_utils.images import CHANNELS, DECODER_ERRORS, MODES, decode, open_image, to_pil
from torch_utils.images.colour import to_srgb
from torch_utils.images.deep import depth_of
from torch_utils.images.ranges import BYTES
from torch_utils.text import (
    IMAGE_SUFFIXES,
    counted,
    is_image,
    no_images,
    other_files,
    plain_path,
    plain_paths,
    printable,
)
from torch_utils.untrusted import ZIP_ERRORS, read_member, read_plain
from training.data.identity import checksums_in
from training.data.labels import MANIFEST, find_manifest, manifest_labels, own_name, parse_manifest, without_gaps
from training.data.sizes import power_of_two
from training.data.walk import files_below

EMBEDDED = {"mnist": Path(__file__).parent / "mnist.zip"}


class Archive:
    """N images of one size and mode. Attributes:

    path: the zip or folder          names: plain paths, sorted       height, width, channels: of every image
    labels: int64 [N], or None       class_names: list, or None       meta: `dataset.json` without its labels
    cache: the folder for its reduced images, None for the usual one     others: what else is in it, in a few words

    Opening looks only at the first image; `read` checks the others.
    """

    def __init__(self, path: Path, files: Files, cache: Path | None = None) -> None:
        self.path, self.cache = path, cache
        self._files = files
        self._members = plain_paths(files.names)  # in the order of the names as written, which runs depend on
        self.names = list(filter(is_image, self._members))
        if not self.names:
            cure = advice_for(self._members, path) or f"expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            raise UserError(no_images(path, self._members, cure))
        manifest = find_manifest(self._members)
        self.others = other_files(name for name in self._members if name != manifest)
        self.height, self.width, self.channels = self._decode(0).shape
        self.labels: np.ndarray | None = None
        self.class_names: list[str] | None = None
        self.meta: Mapping[str, Any] = {}
        self._read_manifest()

    @classmethod
    def open(cls, path: str | Path, cache: str | Path | None = None) -> Archive:
        """Open a zip, a folder (recursively), or an embedded archive by its name (`mnist`). cache: "" is None

        Raises UserError if the path does not exist, cannot be read or contains no images, or if its labels do not fit
        its images.
        """
        where = Path(EMBEDDED.get(str(path), path))
        kept = Path(cache) if cache else None
        try:
            if where.is_dir():
                return cls(where, files_of_folder(where), kept)
            if where.exists() and not where.is_file():  # a pipe or a device may never end
                raise UserError(f"{where} is neither a regular file nor a folder: give an archive or a folder")
            if where.exists():
                return cls(where, files_of_zip(where), kept)
        except PermissionError as error:
            _unreadable(error)
        except ZIP_ERRORS as error:
            usual = f"give a zip or a folder of images, or one of {', '.join(EMBEDDED)}"
            raise UserError(
                f"Cannot open {where} as a zip file ({error}): {advice_for([where.name], where) or usual}"
            ) from None
        raise UserError(f"There is no archive or folder at {where}: give a path, or one of: {', '.join(EMBEDDED)}")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Archive({self.path}, {len(self)} images, {self.width}x{self.height}x{self.channels})"

    @property
    def summary(self) -> str:
        """What it holds, and what it leaves out, on one line."""
        kind = f"{self.width}x{self.height} {MODES[self.channels]}"
        classes = f", {self.num_classes} class{'es' * (self.num_classes > 1)}" if self.num_classes else ""
        left_out = f"; {self.others} left out" if self.others else ""
        return f"{self.path}: {len(self):,} images {kind}{classes}{left_out}"

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
        """sha256 of the name, CRC and size of every image and of the labels, wherever and since when they lie there.

        A zip stores the CRCs. The files of a folder are read, unless they look as they did when they were last read.
        Raises UserError if a file cannot be read.
        """
        manifest = find_manifest(self._members)
        counted = {self._members[name] for name in [*self.names, *([manifest] if manifest else [])]}
        try:
            return sha256_of([line for line in self._files.checksums(sorted(counted)) if line[0] in counted])
        except OSError as error:
            raise UserError(f"Cannot read {self.path} ({error.strerror or error}): restore its files") from None

    def is_what(self, content_hash: str) -> bool:
        """Whether these are the data that had this hash, also if an earlier version computed it, in its own way."""
        return content_hash == self.content_hash or content_hash == sha256_of(self._files.former())

    def read(self, index: int) -> np.ndarray:
        """Image `index` as uint8 [H,W,C]. Raises UserError if it is damaged or unlike the first one."""
        image = self._decode(index)
        self._require_alike(index, image.shape)
        return image

    def check(self, index: int, pixels: bool = True) -> None:
        """Raises UserError as `read` does; without `pixels`, for what can be seen without decoding them."""
        self._require_alike(index, self._decode(index, pixels).shape)

    def _require_alike(self, index: int, shape: tuple[int, ...]) -> None:
        expected = (self.height, self.width, self.channels)
        if shape != expected:
            cure = conversion(self.path, power_of_two(min(expected[:2])))
            raise UserError(
                f"{printable(self.names[index])} in {self.path} has height, width, channels {shape}, but the"
                f" first image has {expected}: make them equal with {cure}"
            )

    def _decode(self, index: int, pixels: bool = True) -> np.ndarray:
        name = printable(self.names[index])
        try:
            image = open_image(self._files.read(self._members[self.names[index]]))
            # Not decoded where its size is wrong already, as it may be huge.
            if index and (image.size != (self.width, self.height) or (not pixels and image.mode in CHANNELS)):
                return np.empty((image.height, image.width, CHANNELS.get(image.mode, 0)), np.uint8)
            if image.mode in CHANNELS and depth_of(image) == BYTES:
                decode(image)
                decoded = np.array(to_srgb(image, image.info.get("icc_profile")))
                return decoded.reshape(image.height, image.width, CHANNELS[image.mode])
        except (BadImage, *DECODER_ERRORS) as error:
            raise UserError(
                f"Cannot read {name} in {self.path} ({error}): leave it out with {conversion(self.path, 64)}"
            ) from None
        found = f"mode {image.mode}, not L, RGB or RGBA" if depth_of(image) == BYTES else f"{depth_of(image)} pixels"
        raise UserError(
            f"{name} in {self.path} has {found}: convert it with {conversion(self.path, power_of_two(min(image.size)))}"
        )

    def _read_manifest(self) -> None:
        manifest = find_manifest(self._members)
        if manifest is None:
            return
        name = printable(manifest)
        try:
            found = parse_manifest(self._files.read(self._members[manifest]))
            labels = manifest_labels(found, manifest, self.names, own_name(self.path))
        except ZIP_ERRORS as error:
            cure = 'repair it, write "labels": null, or delete it'
            raise UserError(f"Cannot read {name} in {self.path} ({error}): {cure}") from None
        self.meta, names = found.meta, found.class_names
        if labels is not None:
            names, classes = labels.class_names, [number for number in labels.classes if number is not None]
            missing = [image for image, number in zip(self.names, labels.classes, strict=True) if number is None]
            if missing:
                raise UserError(
                    f"{len(missing)} of {len(self)} images in {self.path} have no label, such as"
                    f' {printable(missing[0])}: label all of them in {name}, or write "labels": null'
                )
            self.labels = np.array(classes, dtype=np.int64)
        self.class_names = list(names) or None


def conversion(path: Path, resolution: int | str) -> str:
    """The command that turns any images into an archive, for error messages."""
    return f"`dataset_tool.py --source {path} --dest {path.stem}-{resolution}.zip --resolution {resolution}`"


_ADVICE = {
    ".rar .7z .zst .gz .bz2 .xz": "unpack it, and give the folder",
    ".mp4 .mov .avi .mkv .webm": "extract its frames, as in `ffmpeg -i FILE frames/%06d.png`, and give the folder",
    ".mat .parquet .arrow .pkl .pickle .pt .pth": "such files need their own program, and some can run code: save "
    "their images with numpy.savez(FILE, images=..., labels=...), uint8 [N,H,W,C], and give that .npz",
    ".cr2 .cr3 .nef .arw .dng .orf .raf .psd .svg .pdf .exr": "export them as PNG or JPEG, and give the folder",
}
_CONVERTED = re.compile(
    r".*(\.(tar|tgz|tar\.\w+|mdb|lmdb|npy|npz|h5|hdf5?)|[.-]tfrecords?(-\d+-of-\d+)?|idx3-ubyte(\.gz)?)"
)


def advice_for(names: Iterable[str], path: Path | None = None) -> str:
    """What to do with files that are not images, by their names; "" if nothing is known that helps.

    path: where they are, if `dataset_tool.py` could read them, and is not the one that asks
    """
    for name in sorted(names):
        lowered = name.lower()
        if path is not None and _CONVERTED.fullmatch(lowered):
            return f"convert {'it' if path.name == name else printable(name)} with {conversion(path, 64)}"
        if path is not None and is_image(name) and path.name == name:
            return "it is a single image: give the folder that contains it"
        if not _CONVERTED.fullmatch(lowered):
            for suffixes, advice in _ADVICE.items():
                if PurePosixPath(lowered).suffix in suffixes.split():
                    return advice
    return ""


# Where the bytes come from: a zip or a folder


Fingerprint = tuple[str, int, int]


@dataclass(frozen=True)
class Files:
    """Named bytes. read: the content of one, also from several threads at once     size: of one, in bytes

    checksums: name, CRC-32 and size of files     former: what earlier versions told the content by
    """

    names: list[str]
    read: Callable[[str], bytes]
    size: Callable[[str], int]
    checksums: Callable[[Sequence[str]], list[Fingerprint]]
    former: Callable[[], list[Fingerprint]]
    close: Callable[[], None] = lambda: None


def sha256_of(lines: Sequence[Fingerprint]) -> str:
    """The sha256 of fingerprints, in whatever order."""
    text = "\n".join(map(repr, sorted(lines)))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def files_of_zip(path: Path) -> Files:
    """Members of a zip. Raises one of ZIP_ERRORS for what is none, and UserError if two members have one name."""
    archive = zipfile.ZipFile(path)
    members, lock = archive.infolist(), threading.Lock()

    def read(name: str) -> bytes:
        with lock:  # ZipFile counts its open members without one
            return read_member(archive, name, size_limit(name))

    names = [member.filename for member in members if not member.is_dir()]
    require_distinct(path, names)
    every = [(m.filename, m.CRC, m.file_size) for m in members]
    return Files(
        names, read, lambda name: archive.getinfo(name).file_size, lambda _: every, lambda: every, archive.close
    )  # fmt: skip


def files_of_folder(path: Path) -> Files:
    """Files under a folder."""
    names = [name for name in files_below(path) if (path / name).is_file()]  # a pipe would never end

    def former() -> list[Fingerprint]:
        kept = [name for name in names if is_image(name) or name.endswith(".json")]
        stats = [(name, (path / name).stat()) for name in kept]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]

    def read(name: str) -> bytes:
        return read_plain(path / name, size_limit(name))

    def size(name: str) -> int:
        return (path / name).stat().st_size

    return Files(names, read, size, lambda chosen: checksums_in(path, chosen, read), former)


def require_distinct(path: Path, names: Sequence[str]) -> None:
    """Raises UserError if two images or tables of an archive have the same name, or names of the same place, such as
    a.png and ./a.png: one of them would be lost."""
    counts = Counter(map(plain_path, names))
    twice = [name for name, times in counts.items() if times > 1 and (is_image(name) or ".json" in name)]
    if twice:
        raise UserError(
            f"{path} holds {counted(len(twice), 'name')} more than once, such as {printable(twice[0])}, so images would"
            " be lost: pack it again, with another name for each"
        )


def _unreadable(error: OSError) -> NoReturn:
    raise UserError(f"Cannot read {error.filename} ({error.strerror}): make it readable") from None


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

    def close_gaps(self) -> None:
        """Renumber the classes of the images added so far, and their names in `meta`, without those that have none."""
        classes = [label for _, label in self._labels if label is not None]
        number, names = without_gaps(classes, self._meta.get("class_names", ()))
        self._labels = [(name, None if label is None else number[label]) for name, label in self._labels]
        if names and classes:
            self._meta["class_names"] = list(names)

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
