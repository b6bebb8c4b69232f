"""Reading packed pictures, each held against its checksum when it is first read.

So nothing is read in advance, and a disk that lost or changed something costs time, not a run: the file is made anew.
"""

from __future__ import annotations

import zlib

import numpy as np
from tqdm import tqdm

from torch_utils.errors import UserError
from training.archive import Archive
from training.packed import Size, checksums, mended, packed


class CheckedPages:
    """All pictures of an archive at one size (height, width). What is wrong with their file is mended, with a word."""

    def __init__(self, archive: Archive, size: Size, pages: np.memmap | None = None) -> None:
        self._archive, self._size = archive, size
        self._seen = np.zeros(len(archive), bool)
        self._open(packed(archive, *size) if pages is None else pages)

    def _open(self, pages: np.memmap) -> None:
        self._file, self._sums = str(pages.filename), checksums(pages)
        self._pages = np.asarray(pages)  # still the mapping, without the costlier indexing of np.memmap

    def read(self, places: np.ndarray) -> np.ndarray:
        """uint8 [n,C,height,width] at `places`, int64 [n]. Raises UserError for damage that stays."""
        pictures = self._pages[places]
        if not self._seen[places].all():
            if not self._right(pictures, places):
                pictures = self._mended(places)
            self._seen[places] = True
        return pictures

    def _right(self, pictures: np.ndarray, places: np.ndarray) -> bool:
        return all(
            zlib.crc32(picture) == self._sums[place]
            for picture, place in zip(pictures, places, strict=True)
            if not self._seen[place]
        )

    def _mended(self, places: np.ndarray) -> np.ndarray:
        self._open(packed(self._archive, *self._size, progress=False))  # another process may have mended it by now
        if not self._right(self._pages[places], places):
            tqdm.write(f"{self._file} is damaged: making it anew from {self._archive.path}")
            self._seen[:] = False
            self._open(mended(self._archive, self._size))
        pictures = self._pages[places]
        if not self._right(pictures, places):
            raise UserError(f"{self._file} was made anew and is damaged again; see to that disk or set STYLEGAN_CACHE")
        return pictures
