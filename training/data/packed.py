"""Images reduced once per resolution and kept as packed uint8 in a cache file, which is memory-mapped.

So a step at 8x8 costs the same whatever the size of the archive. Reduction is a box filter: every pixel is the mean of
2^k x 2^k pixels of the full-size image, rounded once (halves to even), as in the original data pipeline.

A cache file holds the images of one size, and then a CRC-32 of each. `CheckedPages` verifies an image against its
checksum when it is first read, and rebuilds the file if a disk has damaged it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from mmap import mmap
from pathlib import Path

import numpy as np
from tqdm import tqdm

from torch_utils.device import cpu_threads
from torch_utils.errors import UserError
from torch_utils.files import CACHE_VARIABLE, SCRATCH, atomic_write, cache_folder
from torch_utils.text import safe_lines
from training.data.archive import Archive, conversion
from training.data.sizes import Size

HeightWidth = tuple[int, int]

CHECKSUM_BYTES = 4
# How the names of files end. Those of earlier versions end otherwise: without "crc" they have no checksums, and without
# "srgb" they may hold colours as they lay in the images, of whatever colour space.
KIND = ".srgb.crc.u8"
CHUNK_BYTES = 64 << 20  # full-size pixels held in memory at a time
CHECKED_PIXELS = 1 << 29  # of all images together, which are decoded to see whether they can be used: some seconds
OTHER_DISK = "put them on another one with --cache DIR or STYLEGAN_CACHE"
ELSEWHERE = "--cache DIR puts them elsewhere"
ABANDONED_S = 3600.0  # a scratch file that was not written to for this long belongs to a killed run


def packed(archive: Archive, height: int, width: int, progress: bool = True) -> np.memmap:
    """All images at one size: read-only uint8 [N,C,height,width]. See `pack_pyramid`."""
    return pack_pyramid(archive, [(height, width)], progress)[height, width]


def pack_pyramid(archive: Archive, sizes: Iterable[HeightWidth], progress: bool = True) -> dict[HeightWidth, np.memmap]:
    """All images at each of `sizes`, built where missing; each image is decoded once for all of them.

    The cache is in the folder of `archive.cache` if that is set (--cache), else in `$STYLEGAN_CACHE`, else it is
    `<archive>.cache/` beside the archive, or, if that cannot be written, `~/.cache/stylegan/data/`. Where it is made is
    said with `progress`, which also shows a bar on terminals. Runs that build it at the same time do not disturb each
    other.

    Raises UserError if a size is not the archive's divided by a power of two, or the disk is too full.
    """
    wanted = sorted(set(sizes), reverse=True)
    for size in wanted:
        _check_size(archive, size)
    folder = _cache_folder(archive, wanted)
    missing = [size for size in wanted if not _is_complete(archive, size, folder)]
    if missing:
        for path in (_file(archive, size, folder) for size in missing):
            if path.exists() and progress:
                tqdm.write(safe_lines(f"{path} is damaged: rebuilding it from {archive.path} (its length is wrong)"))
        Room.of(archive, missing, folder).check()
        _remove_stale(archive, folder)
        if progress:
            tqdm.write(f"Reducing the images of {archive.path}: {Room.of(archive, missing, folder)}; {ELSEWHERE}")
        _build(archive, missing, folder, progress)
    return {size: _open(archive, size, folder) for size in wanted}


@dataclass(frozen=True)
class Room:
    """How many bytes reduced images take in a folder, and how many are free there."""

    folder: Path
    needed: int
    free: int

    @staticmethod
    def of(archive: Archive, sizes: Iterable[HeightWidth], folder: Path) -> Room:
        """For all of these sizes, whether or not the folder exists yet."""
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return Room(folder, sum(_bytes(archive, size) for size in sizes), shutil.disk_usage(existing).free)

    def __str__(self) -> str:
        return f"{self.needed / 1e6:,.1f} MB in {self.folder}"

    def check(self) -> None:
        """Raises UserError if there is too little."""
        if self.needed > self.free:
            raise UserError(
                f"{self.folder} needs {self.needed / 2**20:.0f} MiB for the reduced images, but"
                f" {self.free / 2**20:.0f} MiB are free: make room, or {OTHER_DISK}"
            )


def checked(archive: Archive, sizes: Iterable[HeightWidth]) -> str:
    """How much disk the reduced images will take, and where, once it is known that they can be made.

    Writes nothing. Small data sets are decoded; of images with more than CHECKED_PIXELS together, only the headers are
    read. Raises UserError if an image cannot be used, or the disk is too full.
    """
    wanted = sorted(set(sizes), reverse=True)
    for size in wanted:
        _check_size(archive, size)
    folder = next((found for found in _folders(archive) if _complete(archive, wanted, found)), None)
    if folder is not None:
        return f"{Room.of(archive, wanted, folder)}, which are there already"
    room = Room.of(archive, wanted, next(filter(_writable, _folders(archive)), _folders(archive)[0]))
    room.check()
    whole = len(archive) * archive.height * archive.width <= CHECKED_PIXELS
    with ThreadPoolExecutor(min(8, cpu_threads())) as pool:
        for _ in pool.map(partial(archive.check, pixels=whole), range(len(archive))):
            pass
    note = "" if whole else "; the headers of all images are in order, their pixels are read when the run begins"
    return f"{room} ({room.free / 1e9:,.1f} GB are free){note}"


def rebuilt(archive: Archive, size: HeightWidth) -> np.memmap:
    """`packed`, built again although a file of the right length exists."""
    folder = _cache_folder(archive, [size])
    _build(archive, [size], folder, progress=False)
    return _open(archive, size, folder)


def _check_size(archive: Archive, size: HeightWidth) -> None:
    factor = max(1, archive.height // size[0])
    if factor & (factor - 1) or (size[0] * factor, size[1] * factor) != (archive.height, archive.width):
        doublings = max(0, round(float(np.log2(min(archive.height / size[0], archive.width / size[1])))))
        nearest = Size(size[0] << doublings, size[1] << doublings)
        raise UserError(
            f"{archive.path} holds {archive.width}x{archive.height} images, and halving cannot turn them into"
            f" {size[1]}x{size[0]}: convert it with {conversion(archive.path, nearest.typed)}"
        )


# Reducing images by halves


def reduce(image: np.ndarray, sizes: Sequence[HeightWidth]) -> list[np.ndarray]:
    """uint8 [H,W,C] -> for each of `sizes`, largest first, uint8 [C,h,w]."""
    reduced: list[np.ndarray] = []
    if image.shape[:2] in sizes:
        reduced.append(image.transpose(2, 0, 1))
    mean = image.astype(np.float32)
    while len(reduced) < len(sizes):
        mean = halve(mean)
        if mean.shape[:2] in sizes:
            reduced.append(np.rint(mean).astype(np.uint8).transpose(2, 0, 1))
    return reduced


def halve(image: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels, float32 [H,W,C] -> [H/2,W/2,C]. Exact on bytes for the first eight halvings."""
    return (image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) * np.float32(0.25)


def _reduced(archive: Archive, sizes: Sequence[HeightWidth], progress: bool) -> Iterator[tuple[int, bytes]]:
    """Yield (which of `sizes`, bytes of an image) in order, decoding in threads (Pillow releases the GIL)."""
    chunk = max(1, CHUNK_BYTES // (archive.height * archive.width * archive.channels))
    bar = tqdm(total=len(archive), desc="Reducing images", unit="img", disable=None if progress else True)
    with bar, ThreadPoolExecutor(min(8, cpu_threads())) as pool:
        for start in range(0, len(archive), chunk):
            indices = range(start, min(start + chunk, len(archive)))
            for levels in pool.map(lambda i: reduce(archive.read(i), sizes), indices):
                yield from ((level, image.tobytes()) for level, image in enumerate(levels))
                bar.update()


# Cache files


def _build(archive: Archive, sizes: Sequence[HeightWidth], folder: Path, progress: bool) -> None:
    """Write all files at once; of two runs that do it at the same time the last one wins, with the same bytes."""
    targets = [_file(archive, size, folder) for size in sizes]
    sums: list[list[int]] = [[] for _ in sizes]
    try:
        with contextlib.ExitStack() as stack:
            scratch = [stack.enter_context(atomic_write(target)) for target in targets]
            files = [stack.enter_context(path.open("wb")) for path in scratch]
            for level, image in _reduced(archive, sizes, progress):
                files[level].write(image)
                sums[level].append(zlib.crc32(image))
            for file, found in zip(files, sums, strict=True):
                file.write(np.array(found, "<u4").tobytes())
    except OSError as error:
        raise UserError(f"Cannot write to {folder} ({error.strerror or error}): make room, or {OTHER_DISK}") from error


def _open(archive: Archive, size: HeightWidth, folder: Path) -> np.memmap:
    shape = (len(archive), archive.channels, *size)
    return np.memmap(_file(archive, size, folder), dtype=np.uint8, mode="r", shape=shape)


def checksums(pages: np.memmap) -> np.ndarray:
    """The CRC-32 of each image of a cache file: uint32 [N]."""
    return np.fromfile(str(pages.filename), "<u4", count=len(pages), offset=pages.nbytes)


def _file(archive: Archive, size: HeightWidth, folder: Path) -> Path:
    return folder / f"{archive.content_hash[:24]}-{archive.channels}x{size[0]}x{size[1]}{KIND}"


def _bytes(archive: Archive, size: HeightWidth) -> int:
    """The length of a cache file: images and their checksums."""
    return len(archive) * (archive.channels * size[0] * size[1] + CHECKSUM_BYTES)


def _is_complete(archive: Archive, size: HeightWidth, folder: Path) -> bool:
    try:
        return _file(archive, size, folder).stat().st_size == _bytes(archive, size)
    except OSError:
        return False


def _chosen(archive: Archive) -> Path | None:
    """The folder that the user has chosen for the cache of an archive."""
    if archive.cache is not None:
        return archive.cache / f"{archive.path.name}.cache"
    return cache_folder("data") if os.environ.get(CACHE_VARIABLE) else None


def _folders(archive: Archive) -> list[Path]:
    """Where the files may be: where to write them comes first."""
    chosen = _chosen(archive)
    if chosen is None:
        return [archive.path.with_name(archive.path.name + ".cache"), cache_folder("data")]
    former = os.environ.get(CACHE_VARIABLE, "")  # where earlier versions put the files
    return [chosen, Path(former)] if former and archive.cache is None else [chosen]


def _complete(archive: Archive, sizes: Sequence[HeightWidth], folder: Path) -> bool:
    return all(_is_complete(archive, size, folder) for size in sizes)


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _cache_folder(archive: Archive, sizes: Sequence[HeightWidth]) -> Path:
    """The first place that holds all of `sizes` already, else the first that can be written."""
    for folder in _folders(archive):
        if _complete(archive, sizes, folder):
            return folder
    candidates = _folders(archive)[: None if _chosen(archive) is None else 1]
    for folder in candidates:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    tried = " or ".join(map(str, candidates))
    raise UserError(f"Cannot write to {tried}: set STYLEGAN_CACHE to a writable folder, or choose one with --cache DIR")


def _remove_stale(archive: Archive, folder: Path) -> None:
    """Remove what killed runs left behind and, beside the archive, what was built from its former content."""
    beside = folder.name == archive.path.name + ".cache"
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another run may be removing it too, or (on Windows) still reading it
            abandoned = path.match(SCRATCH) and time.time() - path.stat().st_mtime > ABANDONED_S
            own = path.name.startswith(archive.content_hash[:24]) and path.name.endswith(KIND)
            former = beside and path.suffix == ".u8" and not own
            if abandoned or former:
                path.unlink()


# Reading, with each image verified when it is first read


class CheckedPages:
    """All images of an archive at one size (height, width). Damage to their file is repaired, and reported."""

    def __init__(self, archive: Archive, size: HeightWidth, pages: np.memmap | None = None) -> None:
        self._archive, self._size = archive, size
        self._verified = np.zeros(len(archive), bool)
        self._open(packed(archive, *size) if pages is None else pages)

    def _open(self, pages: np.memmap) -> None:
        self._file, self._sums = str(pages.filename), checksums(pages)
        self._held = open(self._file, "rb")  # noqa: SIM115  # the mapped file, though another may take its name
        self._pages = np.asarray(pages)  # still the mapping, without the costlier indexing of np.memmap
        self._mapping: mmap = pages._mmap  # type: ignore[attr-defined]
        self._length = pages.nbytes + CHECKSUM_BYTES * len(pages)

    @property
    def _is_cut(self) -> bool:
        """Whether the file is shorter than it was: to read what is missing of a mapping would end the process."""
        return self._mapping.size() < self._length or len(self._sums) < len(self._pages)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [n,C,height,width] at `indices`, int64 [n]. Raises UserError for damage that cannot be repaired."""
        if self._is_cut:
            tqdm.write(
                safe_lines(f"{self._file} is damaged: rebuilding it from {self._archive.path} (it was cut short)")
            )
            self._verified[:] = False
            return self._repaired(indices)
        images = self._pages[indices]
        if not self._verified[indices].all():
            if not self._intact(images, indices):
                images = self._repaired(indices)
            self._verified[indices] = True
        return images

    def _intact(self, images: np.ndarray, indices: np.ndarray) -> bool:
        return all(
            zlib.crc32(image) == self._sums[index]
            for image, index in zip(images, indices, strict=True)
            if not self._verified[index]
        )

    def _repaired(self, indices: np.ndarray) -> np.ndarray:
        self._open(packed(self._archive, *self._size, progress=False))  # another process may have rebuilt it by now
        if self._is_cut or not self._intact(self._pages[indices], indices):
            tqdm.write(safe_lines(f"{self._file} is damaged: rebuilding it from {self._archive.path}"))
            self._verified[:] = False
            self._open(rebuilt(self._archive, self._size))
        images = self._pages[indices]
        if not self._intact(images, indices):
            raise UserError(f"{self._file} was rebuilt and is damaged again: check that disk, or {OTHER_DISK}")
        return images
