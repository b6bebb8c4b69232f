"""Processes that work as one: who they are, what they add up and agree on, and what is said when one falls silent.

Everything that all of them do together has a name and a time-out. A process that is by itself (`ALONE`) does none of it
and starts nothing. Numbers on the CPU travel by gloo, those on GPUs by NCCL.
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
import torch.distributed as dist
from torch import Tensor

from torch_utils.errors import UserError

BUCKET_NUMBERS = 25 << 20  # of gradients in one collective, 100 MB in float32
PATIENCE = timedelta(days=2)  # with a process that has something to do by itself
GRACE_S = 2.0  # for the others to say that they are still there, once something has failed
CPU = torch.device("cpu")


class LostRank(UserError):
    """Another process did not answer, and this one cannot go on without it."""


@dataclass(frozen=True)
class World:
    """All processes of a run, as one of them sees them.

    rank: number of this one, of `size`   local_rank: among the `local_size` on this machine
    attempt: how often the group has been started anew   device: where this one computes
    store: what all of them can read and write, also over restarts   patient: a group for long waits
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    attempt: int = 0
    timeout_s: float = 600.0
    device: torch.device = CPU
    store: Any = None
    patient: Any = None


ALONE = World()


def from_environment(environment: Mapping[str, str]) -> World | None:
    """What torchrun, or a script for SLURM, says of this process. None if it says nothing.

    Raises UserError if it says only half of it.
    """
    if "RANK" not in environment:
        return None
    missing = [n for n in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in environment]
    if missing:
        raise UserError(f"RANK is set but not {' and '.join(missing)}; set them as torchrun does, or unset RANK")
    rank, size, local = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return World(
        rank, size, local,
        local_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )  # fmt: skip


@contextmanager
def joined(world: World, device: torch.device, timeout_s: float) -> Iterator[World]:
    """The group of all processes, once all have come and see each other. One process is a group by itself.

    Raises LostRank, which names those that did not come.
    """
    world = replace(world, device=device, timeout_s=timeout_s)
    if world.size == 1:
        yield world
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    world = replace(world, store=_meet(world))
    prefixed = dist.PrefixStore(f"group/{world.attempt}", world.store)  # type: ignore[attr-defined]
    well = lost = False
    try:
        with _answered(world, "start"):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=prefixed, rank=world.rank,
                world_size=world.size, timeout=timedelta(seconds=timeout_s),
                device_id=device if device.type == "cuda" else None,
            )  # fmt: skip
            world = replace(world, patient=dist.new_group(backend="gloo", timeout=PATIENCE))
        _see_each_other(world)
        yield world
        well = True
    except LostRank:
        lost = True
        raise
    except SystemExit:  # a planned end, on which all have agreed
        well = True
        raise
    finally:
        if not (well or lost):
            with suppress(RuntimeError):  # whoever held the store may be gone, and with it those who could read
                world.store.set(_answer(world, "answers", world.rank), "failed")
        _leave(well)


def _meet(world: World) -> Any:
    """The store, once every process has written its name there."""
    held = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by the launcher, else by process 0
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    limit = timedelta(seconds=world.timeout_s)
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, None, world.rank == 0 and not held, limit, wait_for_workers=False
        )
        given_up = f"given up/{world.attempt}"
        silent = _roll_call(replace(world, store=store), "here", world.timeout_s, given_up)
        if silent:
            store.set(given_up, "")
    except RuntimeError as error:
        raise LostRank(f"nobody answers at {host}:{port} ({_first_line(error)}); is process 0 running?") from error
    if silent:
        time.sleep(GRACE_S / 4)  # the others read the same, before process 0 takes the store away
        raise LostRank(
            f"{_named(silent, world)} did not come within {world.timeout_s:g} s; look at what was said on that machine"
        )
    return store


def _see_each_other(world: World) -> None:
    """The self test: a number from each process reaches every other, by each way that numbers travel."""
    for device in dict.fromkeys((CPU, world.device)):
        seen = torch.zeros(world.size, device=device)
        seen[world.rank] = 1.0
        add_up(world, f"self test on {device.type}", seen)
        wrong = [rank for rank, times in enumerate(seen.tolist()) if times != 1.0]
        if wrong:
            raise LostRank(f"{_named(wrong, world)} cannot be seen from process {world.rank} ({device.type})")


def _leave(well: bool) -> None:
    """End the group; in trouble without waiting for the others, who learn of it when they next wait for this one."""
    if not dist.is_initialized():
        return
    if well:
        dist.destroy_process_group()
    else:
        dist.distributed_c10d._abort_process_group()


def add_up(world: World, name: str, numbers: Tensor) -> None:
    """Replace `numbers` by their sum over all processes, the same to the last bit in each of them."""
    if world.size > 1:
        with _answered(world, name):
            dist.all_reduce(numbers)


def highest(world: World, name: str, number: int) -> int:
    """The largest `number` of any process."""
    if world.size == 1:
        return number
    found = torch.tensor(number)
    with _answered(world, name):
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def alone(world: World, name: str, work: Callable[[], object]) -> None:
    """Process 0 does `work`, however long it takes; the others wait until it is done."""
    if world.rank == 0:
        work()
    if world.size > 1:
        with _answered(world, name):
            dist.all_reduce(torch.zeros(1), group=world.patient)


def told(world: World, name: str, find: Callable[[], str]) -> str:
    """What process 0 finds, in all processes, and again after a restart of the group."""
    if world.size == 1:
        return find()
    if world.rank == 0 and not world.store.check([name]):
        world.store.set(name, find())
    with _answered(world, name):
        while not world.store.check([name]):
            if world.store.check([_answer(world, "answers", 0)]):
                raise RuntimeError("process 0 has left")
            time.sleep(0.02)
        text: str = world.store.get(name).decode()
    return text


def add_up_gradients(world: World, name: str, params: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Replace the gradients by their sums over all processes. Parameters without one cost nothing.

    They travel flat, in few large parts. dtype: of the numbers on the way; bfloat16 halves their bytes.
    """
    if world.size == 1:
        return
    for bucket in buckets([p.grad for p in params if p.grad is not None]):
        flat = torch.cat([grad.flatten() for grad in bucket]).to(dtype)
        add_up(world, name, flat)
        sums = flat.to(bucket[0].dtype).split([grad.numel() for grad in bucket])
        torch._foreach_copy_(bucket, [part.view(grad.shape) for part, grad in zip(sums, bucket, strict=True)])


def buckets(tensors: Sequence[Tensor], numbers: int = BUCKET_NUMBERS) -> Iterator[list[Tensor]]:
    """The tensors in order, as many at a time as together have at most `numbers` numbers, and at least one."""
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


@contextmanager
def _answered(world: World, name: str) -> Iterator[None]:
    """What fails in here becomes a LostRank that says who did not answer, and in what."""
    try:
        yield
    except RuntimeError as error:
        try:
            silent = _roll_call(world, "answers", GRACE_S)
            left = [r for r in range(world.size) if r not in silent and _failed(world, r)]
        except RuntimeError:
            silent, left = [0], []
        if left:
            what = f"{_named(left, world)} stopped with an error of its own, which others met in '{name}'"
        elif silent:
            what = f"{_named(silent, world)} did not answer in '{name}' (gone, or silent for {world.timeout_s:g} s)"
        else:
            what = f"process {world.rank} was given up by the others, or failed, in '{name}' ({_first_line(error)})"
        raise LostRank(f"{what}; see to it, then go on with --resume") from error


def _roll_call(world: World, list_name: str, seconds: float, given_up: str = "") -> list[int]:
    """Sign the list, and return those who have not signed it after `seconds`.

    given_up: what another leaves in the store when it waits no longer; whoever came later has to go by it, as process 0
    takes the store away.
    """
    world.store.set(_answer(world, list_name, world.rank), "here")
    deadline = time.monotonic() + seconds
    while True:
        silent = [rank for rank in range(world.size) if not world.store.check([_answer(world, list_name, rank)])]
        if not silent or time.monotonic() > deadline or (given_up and world.store.check([given_up])):
            return silent
        time.sleep(0.02)


def _answer(world: World, list_name: str, rank: int) -> str:
    return f"{list_name}/{world.attempt}/{rank}"


def _failed(world: World, rank: int) -> bool:
    failed: bool = world.store.get(_answer(world, "answers", rank)) == b"failed"
    return failed


def _named(ranks: Sequence[int], world: World) -> str:
    return f"process {', '.join(map(str, ranks))} of {world.size}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip()[:200]
