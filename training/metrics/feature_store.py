"""Features of any number of pictures, kept in the cache: worked out once, a block at a time, never all in memory.

A block that is whole is marked in a second file, after its features have reached the disk. What a killed process left
unmarked is worked out again. Several processes may fill one store, and write the same if they write the same block.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torch_utils.device import single_thread_workers
from torch_utils.errors import UserError
from torch_utils.files import cache_folder, write_atomically
from training.metrics.pictures import Pictures

BLOCK = 64
CHUNK = 8  # what a CPU thread works on at once; always the same, as sums are added up in another order in other batches
LARGEST_CACHE = 8 << 30
FORGOTTEN_S = 24 * 3600.0

Describe = Callable[[Tensor, int], Tensor]
"""Pictures, uint8 [N,C,H,W], and the number of the first of them -> [N,dims]."""


@dataclass(frozen=True)
class Features:
    """N rows of a store. Reads what is asked for, and nothing else: `rows[3:5]`, `rows[array of numbers]`."""

    path: Path
    count: int
    dims: int
    dtype: str = "float32"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, which: slice | np.ndarray) -> Tensor:
        """-> [n,dims]."""
        if isinstance(which, slice):
            start, stop, _ = which.indices(self.count)
            width = self.dims * np.dtype(self.dtype).itemsize
            found = np.fromfile(self.path, self.dtype, (stop - start) * self.dims, offset=start * width)
            return torch.from_numpy(found.reshape(stop - start, self.dims))
        rows = np.memmap(self.path, self.dtype, "r", shape=(self.count, self.dims))
        return torch.from_numpy(np.asarray(rows[which]))


@dataclass(frozen=True)
class Store:
    """Where the features of some pictures are kept. what: tells what they are from anything else of these pictures."""

    pictures: Pictures
    what: str
    dims: int
    dtype: str = "float32"

    @cached_property
    def key(self) -> dict[str, str | int | float]:
        return {**self.pictures.key, "what": self.what, "dims": self.dims, "dtype": self.dtype, "block": BLOCK}

    @cached_property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return cache_folder("metrics") / f"{digest[:24]}.features"

    @property
    def marks(self) -> Path:
        return self.path.with_suffix(".done")

    def blocks(self, count: int) -> list[range]:
        """The pictures of each block that `count` pictures need. Blocks are whole, but where the data end."""
        end = -(-count // BLOCK) * BLOCK
        end = end if self.pictures.limit is None else min(end, self.pictures.limit)
        return [range(start, min(start + BLOCK, end)) for start in range(0, end, BLOCK)]

    def missing(self, count: int) -> list[range]:
        """The blocks that are not whole yet."""
        try:
            marks, size = self.marks.read_bytes(), self.path.stat().st_size
        except FileNotFoundError:
            return self.blocks(count)
        width = self.dims * np.dtype(self.dtype).itemsize
        return [
            block for i, block in enumerate(self.blocks(count))
            if marks[i : i + 1] != b"\1" or block.stop * width > size
        ]  # fmt: skip

    def begin(self) -> None:
        """Make the files, and note in words what is in them. Raises UserError if nothing can be written there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tidy(self.path.parent, keep=self.path.stem)
            write_atomically(self.path.with_suffix(".json"), (json.dumps(self.key, indent=1) + "\n").encode())
            for path in (self.path, self.marks):
                path.touch()
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path.parent}: {error.strerror or error}; set STYLEGAN_CACHE to another folder"
            ) from error

    def put(self, block: range, rows: Tensor) -> None:
        """Keep the features of a block. Raises UserError for what is no number, and when the disk is full."""
        if rows.shape != (len(block), self.dims):
            raise UserError(
                f"{self.what} made {list(rows.shape)} of {len(block)} pictures, not {self.dims} features each"
            )
        if not bool(rows.isfinite().all()):
            bad = block[int((~rows.isfinite().all(dim=1)).nonzero()[0, 0])]
            raise UserError(f"{self.what} is not finite on picture {bad}; the network or the feature network is broken")
        content = rows.cpu().numpy().astype(self.dtype)
        try:
            with self.path.open("r+b") as file:
                file.seek(block.start * self.dims * content.itemsize)
                file.write(content.tobytes())
                file.flush()
                os.fsync(file.fileno())
            with self.marks.open("r+b") as file:
                file.seek(block.start // BLOCK)
                file.write(b"\1")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}; make room there") from error

    def features(self, count: int) -> Features:
        """All that is kept of the first `count` pictures, which must be there."""
        return Features(self.path, count, self.dims, self.dtype)


def work_off(
    store: Store, describe: Describe, blocks: Sequence[range], batch: int, device: torch.device,
    advance: Callable[[int], object],
) -> None:  # fmt: skip
    """Fill some blocks, and say how many pictures are done after each. device: where `describe` works."""
    for block in blocks:
        pictures = store.pictures.read(block.start, block.stop, batch)
        store.put(block, described(describe, pictures, block.start, device))
        advance(len(block))


def described(describe: Describe, pictures: Tensor, first: int, device: torch.device) -> Tensor:
    """Features of a block, the same to the last bit whatever the number of threads.

    On a CPU a thread works on `CHUNK` pictures by itself; a GPU takes the whole block.
    """
    if device.type != "cpu":
        return describe(pictures, first)
    starts = range(0, len(pictures), CHUNK)

    def part(start: int) -> Tensor:
        # A copy, as sums may be added up in another order where memory begins elsewhere.
        return describe(pictures[start : start + CHUNK].clone(), first + start)

    with single_thread_workers(torch.get_num_threads()) as run:
        return torch.cat(list(run(part, starts)))


def tidy(where: Path, keep: str, largest: int = LARGEST_CACHE) -> None:
    """Delete the features that were used longest ago, until no more than `largest` bytes are left.

    Never those of `keep`, nor any that were used within a day: another process may need them.
    """
    files = sorted(where.glob("*.features"), key=lambda path: path.stat().st_mtime)
    total = sum(_taken(path) for path in files)
    for path in files:
        if total <= largest or time.time() - path.stat().st_mtime < FORGOTTEN_S:
            return
        if path.stem != keep:
            total -= _taken(path)
            for suffix in (".done", ".json", ".features"):  # the marks first: without them the rest is nothing
                path.with_suffix(suffix).unlink(missing_ok=True)


def _taken(path: Path) -> int:
    return path.stat().st_blocks * 512
