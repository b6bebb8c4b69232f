"""Features of any number of images, kept in the cache: worked out once, a block at a time, never all in memory.

A block that is whole is marked in a second file, after its features have reached the disk. What a killed process left
unmarked is worked out again. Several processes may fill one store, and write the same if they write the same block.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from torch_utils.device import GENERATING, cpu_threads, keep_freed_memory, set_gpu_math, single_thread_workers
from torch_utils.errors import UserError
from torch_utils.files import cache_folder, write_atomically
from torch_utils.progress import Progress
from training.metrics import image_stats
from training.metrics.features import DEFAULT, FeatureNetwork, pick_features
from training.metrics.images import Fakes, ImageSource

BLOCK = 64
CHUNK = 8  # what a CPU thread works on at once; always the same, as sums are added up in another order in other batches
LARGEST_CACHE = 8 << 30
FORGOTTEN_S = 24 * 3600.0

Describe = Callable[[Tensor, int], Tensor]
"""Images, uint8 [N,C,H,W], and the number of the first of them -> [N,dims]."""


@dataclass(frozen=True)
class Features:
    """The first N rows of a store, which must be there. Reads only what is asked for: rows[3:5], rows[numbers]."""

    store: Store
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, which: slice | np.ndarray) -> Tensor:
        """-> [n,dims]. Raises UserError if the file has been cut short since it was filled."""
        try:
            rows = np.memmap(self.store.path, self.store.dtype, "r", shape=(self.count, self.store.dims))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.store.path} was cut short or removed; repeat the command") from error
        return torch.from_numpy(np.array(rows[which]))


@dataclass(frozen=True)
class Store:
    """Where what is asked of some images is kept.

    what: tells it from anything else that is asked of these images   describe: answers, `dims` numbers for each image
    """

    images: ImageSource
    what: str
    describe: Describe
    dims: int
    dtype: str = "float32"

    @cached_property
    def key(self) -> dict[str, str | int | float]:
        return {**self.images.key, "what": self.what, "dims": self.dims, "dtype": self.dtype, "block": BLOCK}

    @cached_property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return cache_folder("metrics") / f"{digest[:24]}.features"

    @property
    def marks(self) -> Path:
        return self.path.with_suffix(".done")

    def blocks(self, count: int) -> list[range]:
        """The images of each block that `count` images need. Blocks are whole, but where the data end."""
        end = -(-count // BLOCK) * BLOCK
        end = end if self.images.limit is None else min(end, self.images.limit)
        return [range(start, min(start + BLOCK, end)) for start in range(0, end, BLOCK)]

    def missing(self, count: int) -> list[range]:
        """The blocks that are not whole yet."""
        try:
            marks, size = self.marks.read_bytes(), self.path.stat().st_size
        except FileNotFoundError:
            return self.blocks(count)
        whole = size // (self.dims * np.dtype(self.dtype).itemsize)
        return [b for i, b in enumerate(self.blocks(count)) if marks[i : i + 1] != b"\1" or b.stop > whole]

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
                f"{self.what} made {list(rows.shape)} of {len(block)} images, not {self.dims} features each"
            )
        if not bool(rows.isfinite().all()):
            bad = block[int((~rows.isfinite().all(dim=1)).nonzero()[0, 0])]
            raise UserError(f"{self.what} is not finite on image {bad}; the network or the feature network is broken")
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


def work_off(
    store: Store, blocks: Sequence[range], batch: int, device: torch.device, advance: Callable[[int], object]
) -> None:
    """Fill some blocks, and say how many images are done after each. device: where `describe` works."""
    for block in blocks:
        images = store.images.read(block.start, block.stop, min(batch, BLOCK))  # a larger one would be filled up
        store.put(block, described(store.describe, images, block.start, device))
        advance(len(block))


def described(describe: Describe, images: Tensor, first: int, device: torch.device) -> Tensor:
    """Features of a block, the same to the last bit whatever the number of threads.

    On a CPU a thread works on `CHUNK` images by itself; a GPU takes the whole block.
    """
    if device.type != "cpu":
        return describe(images, first)
    starts = range(0, len(images), CHUNK)

    def part(start: int) -> Tensor:
        # A copy, as sums may be added up in another order where memory begins elsewhere.
        return describe(images[start : start + CHUNK].clone(), first + start)

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


# What can be kept of images: features, probabilities of classes, patches, similarities of pairs


What = Literal["features", "probabilities", "patches", "pairs"]


@dataclass(frozen=True)
class Question:
    """What is asked of each image, as another process can receive it.

    features, weights: for `pick_features`   shape: of the images, channels, height and width
    """

    what: What
    shape: tuple[int, int, int]
    features: str = DEFAULT
    weights: Path | None = None


def store_of(question: Question, images: ImageSource, network_of: Callable[[], FeatureNetwork]) -> Store:
    """network_of: opens the feature network, if it takes one. Raises UserError for what cannot be answered."""
    channels, height, width = question.shape
    if question.what == "patches":
        dims = len(image_stats.levels(height, width)) * image_stats.PATCHES * image_stats.patch_dims(channels)
        return Store(images, "patches of swd", image_stats.patches, dims, "float16")
    if question.what == "pairs":
        image_stats.require_size(height, width)
        return Store(images, "ms-ssim of pairs", image_stats.pair_similarity, 1)
    network = network_of()
    name = f"{network.name} {network.sha256}"
    if question.what == "features":
        embed = network.embed
        return Store(images, name, lambda some, first: embed(some), network.dims)
    classes = network.probabilities
    if classes is None:
        raise UserError(f"{network.name} tells no classes, so there is no inception score; use efficientnet-lite0")
    dims = classes(torch.zeros(1, *question.shape, dtype=torch.uint8)).shape[1]
    return Store(images, f"{name} classes", lambda some, first: classes(some), dims)


# Filling a store of features, in this process or in several: which one works out a block does not change it


POLL_S = 0.5


@dataclass(frozen=True)
class Compute:
    """How to work. batch: images drawn at a time, see `Renderer`   processes: how many share the work, each with a GPU
    where there are GPUs   quiet: without a progress bar. But for the rounding of other batches on a GPU, none of it
    changes what comes out.
    """

    device: torch.device
    batch: int = 8
    processes: int = 1
    quiet: bool = False


def features_of(store: Store, count: int, question: Question, compute: Compute, label: str) -> Features:
    """What is asked of the first `count` images (all, if there are fewer), of the cache as far as it is there.

    store: as `store_of` makes it of `question`, on `compute.device`. Raises UserError where something cannot be read
    or written, and for features that are not finite.
    """
    count = count if store.images.limit is None else min(count, store.images.limit)
    store.begin()
    missing = store.missing(count)
    if missing:
        total = sum(map(len, store.blocks(count)))
        with Progress(label, total, quiet=compute.quiet) as bar:
            bar.move_to(total - sum(map(len, missing)), total)
            if compute.processes == 1 or len(missing) == 1:
                work_off(store, missing, compute.batch, compute.device, bar.advance)
            else:
                _share(store, question, missing, compute, bar)
    return Features(store, count)


def _share(store: Store, question: Question, missing: list[range], compute: Compute, bar: Progress) -> None:
    """Let several processes fill the blocks: the r-th of N takes blocks r, r + N, r + 2 N, ...

    Raises UserError for the trouble of any of them, which ends the others.
    """
    world = min(compute.processes, len(missing))
    trouble = multiprocessing.get_context("spawn").SimpleQueue()
    arguments = (_portable(store.images), question, [missing[rank::world] for rank in range(world)], compute, trouble)
    running = start_processes(_work, arguments, nprocs=world, join=False, start_method="spawn")
    done = sum(map(len, missing))
    try:
        while trouble.empty() and not running.join(timeout=POLL_S):
            left = sum(map(len, store.missing(missing[-1].stop)))
            bar.advance(max(done - left, 0))
            done = min(done, left)
    except ProcessExitedException as error:
        if trouble.empty():
            raise UserError(
                f"a process ended before its work was done ({error.signal_name or error.exit_code}), as when memory is "
                "short; use fewer --gpus; the same command goes on where it ended"
            ) from error
    finally:
        for process in running.processes:
            process.kill()
            process.join()
    if not trouble.empty():
        raise UserError(trouble.get())
    bar.advance(done)


def _work(
    rank: int, images: ImageSource, question: Question, shares: list[list[range]], compute: Compute,
    trouble: multiprocessing.SimpleQueue[str],
) -> None:  # fmt: skip
    """One process of several. What the user can put right goes into `trouble`."""
    keep_freed_memory()
    set_gpu_math(GENERATING)
    torch.set_num_threads(max(1, cpu_threads() // len(shares)))
    device = torch.device("cuda", rank % torch.cuda.device_count()) if compute.device.type == "cuda" else compute.device
    if isinstance(images, Fakes):
        images.snapshot.G.to(device)
    try:
        store = store_of(question, images, lambda: pick_features(question.features, device, question.weights))
        work_off(store, shares[rank], compute.batch, device, lambda count: None)
    except UserError as error:
        trouble.put(str(error))


def _portable(images: ImageSource) -> ImageSource:
    """Without what cannot be handed to another process, or need not be: a GPU's memory, and the discriminator."""
    if not isinstance(images, Fakes):
        return images
    snapshot = images.snapshot
    G = snapshot.G if snapshot.device.type == "cpu" else copy.deepcopy(snapshot.G).cpu()
    return replace(images, snapshot=replace(snapshot, G=G, D=None))
