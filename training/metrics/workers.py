"""Filling a store of features, in this process or in several: which one works out a block does not change it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from stylegan.checkpoints.snapshot import Snapshot
from torch_utils.device import cpu_threads, keep_freed_memory
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.metrics.describe import Answerer, Question, answerer
from training.metrics.feature_store import Features, Store, work_off
from training.metrics.pictures import Fakes, Pictures

POLL_S = 0.5


@dataclass(frozen=True)
class Crew:
    """How to work. batch: pictures drawn at once   processes: how many share the work, each with a GPU where there are
    GPUs   quiet: without a progress bar. None of it changes what comes out.
    """

    device: torch.device
    batch: int = 8
    processes: int = 1
    quiet: bool = False


def features_of(
    pictures: Pictures, count: int, question: Question, worker: Answerer, crew: Crew, label: str
) -> Features:
    """The answers for the first `count` pictures (all, if there are fewer), of the cache as far as they are there.

    worker: who answers `question` on the crew's device. Raises UserError where something cannot be read or written, and
    for features that are not finite.
    """
    store = worker.store(pictures)
    count = count if pictures.limit is None else min(count, pictures.limit)
    store.begin()
    missing = store.missing(count)
    if missing:
        total = sum(map(len, store.blocks(count)))
        with Progress(label, total, quiet=crew.quiet) as bar:
            bar.move_to(total - sum(map(len, missing)), total)
            if crew.processes == 1 or len(missing) == 1:
                work_off(store, worker.describe, missing, crew.batch, crew.device, bar.advance)
            else:
                _share(store, question, missing, crew, bar)
    return store.features(count)


def _share(store: Store, question: Question, missing: list[range], crew: Crew, bar: Progress) -> None:
    """Let several processes fill the blocks: the r-th of N takes blocks r, r + N, r + 2 N, ...

    Raises UserError for the trouble of any of them, which ends the others.
    """
    world = min(crew.processes, len(missing))
    trouble = multiprocessing.get_context("spawn").SimpleQueue()
    arguments = (_portable(store.pictures), question, [missing[rank::world] for rank in range(world)], crew, trouble)
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
    rank: int, pictures: Pictures, question: Question, shares: list[list[range]], crew: Crew,
    trouble: multiprocessing.SimpleQueue[str],
) -> None:  # fmt: skip
    """One process of several. What the user can put right goes into `trouble`."""
    keep_freed_memory()
    torch.set_num_threads(max(1, cpu_threads() // len(shares)))
    device = torch.device("cuda", rank % torch.cuda.device_count()) if crew.device.type == "cuda" else crew.device
    if isinstance(pictures, Fakes):
        pictures.snapshot.G.to(device)
    try:
        worker = answerer(question, question.network(device))
        work_off(worker.store(pictures), worker.describe, shares[rank], crew.batch, device, lambda count: None)
    except UserError as error:
        trouble.put(str(error))


def _portable(pictures: Pictures) -> Pictures:
    """Without what cannot be handed to another process, or need not be: a GPU's memory, and the discriminator."""
    if not isinstance(pictures, Fakes):
        return pictures
    snapshot: Snapshot = pictures.snapshot
    G = snapshot.G if snapshot.device.type == "cpu" else copy.deepcopy(snapshot.G).cpu()
    return replace(pictures, snapshot=replace(snapshot, G=G, D=None))
