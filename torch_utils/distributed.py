"""Several processes of one run: start them as a group, reduce and broadcast over it, and name a rank that goes silent.

Every collective has a name, for messages, and a time-out. A single process (`SINGLE_PROCESS`) skips the communication
and starts nothing. Tensors on the CPU travel through gloo, those on GPUs through NCCL.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as c10d
from torch import Tensor

from torch_utils.errors import UserError

BUCKET_NUMBERS = 25 << 20  # gradients per all-reduce: 100 MB in float32
PATIENCE = timedelta(days=2)  # how long the other ranks wait for work on rank 0
GRACE_S = 2.0  # time for the other ranks to answer after a failure
CPU = torch.device("cpu")


class LostRank(UserError):
    """Another rank did not answer, and this one cannot continue without it."""


@dataclass(frozen=True)
class DistContext:
    """All processes of a run, as seen by one of them.

    rank: number of this process, of `world_size`
    local_rank: its number among the `local_world_size` processes on this machine
    attempt: number of restarts of the group so far
    timeout_s: how long to wait for a rank, in seconds
    device: where this process computes
    store: key-value store that all ranks share, which survives restarts
    slow_group: process group with a long time-out, for work on rank 0
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    attempt: int = 0
    timeout_s: float = 600.0
    device: torch.device = CPU
    store: Any = None
    slow_group: Any = None


SINGLE_PROCESS = DistContext()


def from_environment(environment: Mapping[str, str]) -> DistContext | None:
    """The context that torchrun, or a SLURM script, describes in the environment; None if it describes none.

    Raises UserError if variables are missing.
    """
    if "RANK" not in environment:
        return None
    missing = [n for n in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in environment]
    if missing:
        raise UserError(f"RANK is set but not {' and '.join(missing)}; set them as torchrun does, or unset RANK")
    rank, world_size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return DistContext(
        rank, world_size, local_rank,
        local_world_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )  # fmt: skip


# Start and end of the group


@contextmanager
def process_group(dist: DistContext, device: torch.device, timeout_s: float) -> Iterator[DistContext]:
    """Join the group of all ranks, and yield its context once they have all come and can reach each other.

    Raises LostRank, which names the ranks that are missing.
    """
    dist = replace(dist, device=device, timeout_s=timeout_s)
    if dist.world_size == 1:
        yield dist
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist = replace(dist, store=_meet(dist))
    prefixed = c10d.PrefixStore(f"group/{dist.attempt}", dist.store)  # type: ignore[attr-defined]
    succeeded = lost = False
    try:
        with _naming_lost_ranks(dist, "start"):
            c10d.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=prefixed, rank=dist.rank,
                world_size=dist.world_size, timeout=timedelta(seconds=timeout_s),
                device_id=device if device.type == "cuda" else None,
            )  # fmt: skip
            dist = replace(dist, slow_group=c10d.new_group(backend="gloo", timeout=PATIENCE))
        _self_test(dist)
        yield dist
        succeeded = True
    except LostRank:
        lost = True
        raise
    except SystemExit:  # a planned end, on which all ranks have agreed
        succeeded = True
        raise
    finally:
        if not (succeeded or lost):
            with suppress(RuntimeError):  # the process that holds the store may have ended, and with it all readers
                dist.store.set(_key(dist, "answers", dist.rank), "failed")
        if succeeded and c10d.is_initialized():
            c10d.destroy_process_group()
        elif c10d.is_initialized():  # without waiting for the others, which notice when they next wait for this rank
            c10d.distributed_c10d._abort_process_group()


def _meet(dist: DistContext) -> Any:
    """The store, once every rank has signed in there."""
    held_by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # otherwise rank 0 holds the store
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    limit = timedelta(seconds=dist.timeout_s)
    holds = dist.rank == 0 and not held_by_launcher
    try:
        store = c10d.TCPStore(host, port, None, holds, limit, wait_for_workers=False)  # type: ignore[attr-defined]
        given_up = f"given up/{dist.attempt}"
        silent = _roll_call(replace(dist, store=store), "here", dist.timeout_s, given_up)
        if silent:
            store.set(given_up, "")
    except RuntimeError as error:
        raise LostRank(
            f"Rank {dist.rank} gets no answer from {host}:{port} ({_first_line(error)}); check that rank 0 is running"
        ) from error
    if silent:
        time.sleep(GRACE_S / 4)  # the others read the same, before rank 0 ends and takes the store with it
        raise LostRank(
            f"{_named(silent, dist)} did not start within {dist.timeout_s:g} s; look at the output on that machine"
        )
    return store


def _self_test(dist: DistContext) -> None:
    """Check that a number from each rank reaches every other one, through each backend."""
    for device in dict.fromkeys((CPU, dist.device)):
        seen = torch.zeros(dist.world_size, device=device)
        seen[dist.rank] = 1.0
        all_reduce_sum(dist, f"self-test on {device.type}", seen)
        wrong = [rank for rank, times in enumerate(seen.tolist()) if times != 1.0]
        if wrong:
            raise LostRank(f"Rank {dist.rank} receives nothing from {_named(wrong, dist).lower()} ({device.type})")


# Collectives


def all_reduce_sum(dist: DistContext, name: str, numbers: Tensor) -> None:
    """Replace `numbers` by their sum over all ranks, which is the same to the last bit on each of them."""
    if dist.world_size > 1:
        with _naming_lost_ranks(dist, name):
            c10d.all_reduce(numbers)


def all_reduce_max(dist: DistContext, name: str, number: int) -> int:
    """The largest `number` over all ranks."""
    if dist.world_size == 1:
        return number
    found = torch.tensor(number)
    with _naming_lost_ranks(dist, name):
        c10d.all_reduce(found, c10d.ReduceOp.MAX)
    return int(found)


def on_rank0(dist: DistContext, name: str, work: Callable[[], object]) -> None:
    """Call `work` on rank 0, however long it takes, while the other ranks wait until it is done."""
    if dist.rank == 0:
        work()
    if dist.world_size > 1:
        with _naming_lost_ranks(dist, name):
            c10d.all_reduce(torch.zeros(1), group=dist.slow_group)


def broadcast_from_rank0(dist: DistContext, name: str, find: Callable[[], str]) -> str:
    """The text that `find` returns on rank 0, on all ranks. After a restart of the group it is the same text again."""
    if dist.world_size == 1:
        return find()
    if dist.rank == 0 and not dist.store.check([name]):
        dist.store.set(name, find())
    with _naming_lost_ranks(dist, name):
        while not dist.store.check([name]):
            if dist.store.check([_key(dist, "answers", 0)]):
                raise RuntimeError("rank 0 has left")
            time.sleep(0.02)
        text: str = dist.store.get(name).decode()
    return text


def all_reduce_gradients(
    dist: DistContext, name: str, params: Sequence[Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Replace the gradients by their sums over all ranks, in a few large buckets. Skips parameters without gradient.

    dtype: format of the numbers that are sent; bfloat16 halves the bytes.
    """
    if dist.world_size == 1:
        return
    for bucket in buckets([p.grad for p in params if p.grad is not None]):
        flat = torch.cat([grad.flatten() for grad in bucket]).to(dtype)
        all_reduce_sum(dist, name, flat)
        sums = flat.to(bucket[0].dtype).split([grad.numel() for grad in bucket])
        torch._foreach_copy_(bucket, [part.view(grad.shape) for part, grad in zip(sums, bucket, strict=True)])


def buckets(tensors: Sequence[Tensor], numbers: int = BUCKET_NUMBERS) -> Iterator[list[Tensor]]:
    """Split the tensors, in order, into lists of at most `numbers` numbers together, or of one larger tensor."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if bucket and held + tensor.numel() > numbers:
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.numel()
    if bucket:
        yield bucket


# Which rank is missing


@contextmanager
def _naming_lost_ranks(dist: DistContext, name: str) -> Iterator[None]:
    """Turn a RuntimeError of the block into a LostRank that says which ranks did not answer in the collective."""
    try:
        yield
    except RuntimeError as error:
        try:
            silent = _roll_call(dist, "answers", GRACE_S)
            answered = [r for r in range(dist.world_size) if r not in silent]
            failed = [r for r in answered if dist.store.get(_key(dist, "answers", r)) == b"failed"]
        except RuntimeError:
            silent, failed = [0], []
        if failed:
            what = f"{_named(failed, dist)} stopped with an error of its own, which the others noticed in '{name}'"
        elif silent:
            what = f"{_named(silent, dist)} did not answer in '{name}' (ended, or silent for {dist.timeout_s:g} s)"
        else:
            what = f"Rank {dist.rank} failed in '{name}', or the others gave up waiting for it ({_first_line(error)})"
        raise LostRank(f"{what}; fix the cause, then continue with --resume") from error


def _roll_call(dist: DistContext, list_name: str, seconds: float, given_up: str = "") -> list[int]:
    """Sign the list, and return the ranks that have not signed it after `seconds`.

    given_up: key that another rank sets when it stops waiting. Ranks that came later must stop then, too, because the
    store ends with rank 0.
    """
    dist.store.set(_key(dist, list_name, dist.rank), "here")
    deadline = time.monotonic() + seconds
    while True:
        silent = [rank for rank in range(dist.world_size) if not dist.store.check([_key(dist, list_name, rank)])]
        if not silent or time.monotonic() > deadline or (given_up and dist.store.check([given_up])):
            return silent
        time.sleep(0.02)


def _key(dist: DistContext, list_name: str, rank: int) -> str:
    return f"{list_name}/{dist.attempt}/{rank}"


def _named(ranks: Sequence[int], dist: DistContext) -> str:
    return f"Rank {', '.join(map(str, ranks))} of {dist.world_size}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip()[:200]
