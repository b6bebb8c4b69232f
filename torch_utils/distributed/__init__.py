"""Several processes of one run: start them as a group, reduce and broadcast over it, and name a rank that goes silent.

Every collective has a name, for messages, and a time-out. A single process (`SINGLE_PROCESS`) skips the communication
and starts nothing. Tensors on the CPU travel through gloo, those on GPUs through NCCL.

While a rank gets on with its work it gives signs of life, so that the others can wait for work of any length, and not
for a rank that is stuck. Ranks of one machine listen on its loopback address only.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as c10d
from torch import Tensor

from torch_utils.errors import UserError

GRACE_S = 2.0  # time for the other ranks to answer after a failure
LONGEST_BEAT_S = 5.0  # between two signs of life
BUSY = 0.01  # share of a core that a process uses at least if it gets on; threads that only wait take a tenth of it
LOOPBACK = "127.0.0.1"
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
    turns: numbers the pieces of work on rank 0
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    attempt: int = 0
    timeout_s: float = 600.0
    device: torch.device = CPU
    store: Any = None
    turns: Iterator[int] = field(default_factory=itertools.count, compare=False)

    @property
    def one_machine(self) -> bool:
        return self.local_world_size == self.world_size


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
    if dist.one_machine:
        os.environ.update(loopback_only())
    dist = replace(dist, store=_meet(dist))
    prefixed = c10d.PrefixStore(f"group/{dist.attempt}", dist.store)  # type: ignore[attr-defined]
    succeeded = lost = False
    try:
        _naming_lost_ranks(dist, "start", lambda: c10d.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=prefixed, rank=dist.rank,
            world_size=dist.world_size, timeout=timedelta(seconds=timeout_s),
            device_id=device if device.type == "cuda" else None,
        ))  # fmt: skip
        _self_test(dist)
        with _giving_signs_of_life(dist):
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
        if dist.one_machine and not held_by_launcher:
            host = LOOPBACK
        if holds and dist.one_machine:
            store = store_on_loopback(dist.timeout_s, port)
        else:
            store = c10d.TCPStore(host, port, None, holds, limit, wait_for_workers=False)  # type: ignore[attr-defined]
        given_up = f"given up/{dist.attempt}"
        silent = _roll_call(replace(dist, store=store), "here", dist.timeout_s, given_up)
        if silent:
            store.set(given_up, "")
    except (RuntimeError, OSError) as error:
        raise LostRank(
            f"Rank {dist.rank} gets no answer from {host}:{port} ({_first_line(error)}); check that rank 0 is running"
        ) from error
    if silent:
        time.sleep(GRACE_S / 4)  # the others read the same, before rank 0 ends and takes the store with it
        raise LostRank(
            f"{_named(silent, dist)} did not start within {dist.timeout_s:g} s; look at the output on that machine"
        )
    return store


def store_on_loopback(timeout_s: float, port: int = 0) -> Any:
    """A key-value store that only processes of this machine can reach. port: 0 takes a free one

    PyTorch's own listens on all interfaces. Raises OSError if the port is taken.
    """
    listener = socket.create_server((LOOPBACK, port))
    port = listener.getsockname()[1]
    return c10d.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK, port, None, True, timedelta(seconds=timeout_s), wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )  # fmt: skip


def loopback_only() -> dict[str, str]:
    """Environment that has gloo and NCCL listen on the loopback interface; nothing where there is none (Windows)."""
    for _, name in socket.if_nameindex() if hasattr(socket, "if_nameindex") else []:
        if name in {"lo", "lo0"}:
            return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}
    return {}


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
        _naming_lost_ranks(dist, name, lambda: c10d.all_reduce(numbers))


def begin_all_reduce_sum(dist: DistContext, name: str, numbers: Tensor) -> Callable[[], None]:
    """Begin to do the same, and return what waits for the end of it. Until then `numbers` must not be touched.

    For several ranks. All of them must begin in the same order whatever they add up, and wait later.
    """
    begun: list[Any] = []
    _naming_lost_ranks(dist, name, lambda: begun.append(c10d.all_reduce(numbers, async_op=True)))
    return lambda: _naming_lost_ranks(dist, name, begun[0].wait)


def all_reduce_max(dist: DistContext, name: str, number: int) -> int:
    """The largest `number` over all ranks."""
    if dist.world_size == 1:
        return number
    found = torch.tensor(number)
    _naming_lost_ranks(dist, name, lambda: c10d.all_reduce(found, c10d.ReduceOp.MAX))
    return int(found)


def on_rank0(dist: DistContext, name: str, work: Callable[[], object]) -> None:
    """Call `work` on rank 0, however long it takes, while the other ranks wait until it is done.

    Raises LostRank once rank 0 gets no further for `dist.timeout_s`.
    """
    if dist.world_size == 1:
        work()
        return
    done = f"done/{dist.attempt}/{next(dist.turns)}"
    if dist.rank == 0:
        work()
        with suppress(RuntimeError):  # without a store, the others are waiting in the collective already
            dist.store.set(done, "")
    else:
        _naming_lost_ranks(dist, name, lambda: _wait_for_rank0(dist, done))
    all_reduce_sum(dist, name, torch.zeros(1))
    if dist.rank == 0:
        with suppress(RuntimeError):
            dist.store.delete_key(done)


def broadcast_from_rank0(dist: DistContext, name: str, find: Callable[[], str]) -> str:
    """The text that `find` returns on rank 0, on all ranks. After a restart of the group it is the same text again.

    Raises LostRank once rank 0 gets no further for `dist.timeout_s`.
    """
    if dist.world_size == 1:
        return find()
    if dist.rank == 0 and not dist.store.check([name]):
        dist.store.set(name, find())
    found: list[bytes] = []

    def listen() -> None:
        _wait_for_rank0(dist, name)
        found.append(dist.store.get(name))

    _naming_lost_ranks(dist, name, listen)
    all_reduce_sum(dist, name, torch.zeros(1))  # rank 0 may hold the store, and must not leave before all have read
    return found[0].decode()


# Which rank is missing


def _naming_lost_ranks(dist: DistContext, name: str, wait: Callable[[], object]) -> None:
    """Call `wait`, and turn its RuntimeError into a LostRank that says which ranks did not answer in the collective.

    Whatever waits for other ranks is called here: while it waits, this rank is not stuck.
    """
    try:
        wait()
    except RuntimeError as error:
        try:
            silent, failed = _answer(lambda: _silent_and_failed(dist), 2 * GRACE_S)
        except RuntimeError:
            silent, failed = [0], []
        if failed:
            what = f"{_named(failed, dist)} stopped with an error of its own, which the others noticed in '{name}'"
        elif silent:
            what = f"{_named(silent, dist)} did not answer in '{name}' (ended, or silent for {dist.timeout_s:g} s)"
        else:
            what = f"Rank {dist.rank} failed in '{name}', or the others gave up waiting for it ({_first_line(error)})"
        raise LostRank(f"{what}; fix the cause, then continue with --resume") from error


def _silent_and_failed(dist: DistContext) -> tuple[list[int], list[int]]:
    """The ranks that do not answer, and those of the others that stopped with an error of their own."""
    dist.store.set(_asked(dist), "")
    silent = _roll_call(dist, "answers", GRACE_S)
    answered = [rank for rank in range(dist.world_size) if rank not in silent]
    return silent, [rank for rank in answered if dist.store.get(_key(dist, "answers", rank)) == b"failed"]


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


def _asked(dist: DistContext) -> str:
    """Key that is there once a rank has asked who answers."""
    return f"asked/{dist.attempt}"


def _named(ranks: Sequence[int], dist: DistContext) -> str:
    return f"Rank {', '.join(map(str, ranks))} of {dist.world_size}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip()[:200]


# Signs of life


class SignsOfLife:
    """What one process has seen of the signs of life of the ranks."""

    def __init__(self, store: Any, attempt: int) -> None:
        self._store, self._attempt = store, attempt
        self._seen: dict[int, tuple[bytes, float, float]] = {}  # the last sign, when it was looked for, the silence

    def silence(self, rank: int) -> float:
        """For how long there has been no new sign, in seconds of looking; 0 before the first one and after the last."""
        key = f"alive/{self._attempt}/{rank}"
        sign, now = (self._store.get(key) if self._store.check([key]) else b""), time.monotonic()
        former, looked, silence = self._seen.get(rank, (b"", now, 0.0))
        # Who was stopped and continued has not been looking in between.
        silence = silence + min(now - looked, 1.0) if sign == former and sign not in (b"", _LEFT) else 0.0
        self._seen[rank] = sign, now, silence
        return silence

    def end(self, rank: int) -> None:
        """Tell all others that it has ended, for one that may not have told them itself."""
        self._store.set(f"alive/{self._attempt}/{rank}", _LEFT)

    def left(self, rank: int) -> bool:
        """Whether it has left the group, when `silence` last looked."""
        return rank in self._seen and self._seen[rank][0] == _LEFT


_LEFT = b"left"


def _wait_for_rank0(dist: DistContext, key: str) -> None:
    """Wait until rank 0 has set `key`. Raises RuntimeError once it has left or got no further for `dist.timeout_s`.

    If the process that holds the store has ended, the next collective tells whether rank 0 is there.
    """
    signs, pause = SignsOfLife(dist.store, dist.attempt), 0.005

    def done() -> bool:
        if dist.store.check([key]):
            return True
        if dist.store.check([_key(dist, "answers", 0)]) or signs.left(0):
            raise RuntimeError("rank 0 has left")
        if signs.silence(0) > dist.timeout_s:
            raise RuntimeError("rank 0 is stuck")
        return False

    with suppress(c10d.DistNetworkError):
        while not _answer(done, dist.timeout_s):
            time.sleep(pause)
            pause = min(1.2 * pause, 0.1)


def _answer(ask: Callable[[], Any], seconds: float) -> Any:
    """What `ask` gets to know from the store. Raises its error, and RuntimeError where there is no answer in time.

    The process that holds the store may be stopped, and PyTorch would wait for it without end.
    """
    found: list[Any] = []

    def catch() -> None:
        try:
            found.append(ask())
        except RuntimeError as error:
            found.append(error)

    thread = threading.Thread(target=catch, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise RuntimeError("the store does not answer")
    if isinstance(found[0], RuntimeError):
        raise found[0]
    return found[0]


@contextmanager
def _giving_signs_of_life(dist: DistContext) -> Iterator[None]:
    """In the block, tell the other ranks as long as this thread gets on with its work."""
    ended = threading.Event()
    # With a connection of its own: a thread that waits for an answer would keep the other from asking.
    own = replace(dist, store=dist.store.clone())
    thread = threading.Thread(target=_give_signs, args=(own, threading.get_ident(), ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(GRACE_S)


def _give_signs(dist: DistContext, thread: int, ended: threading.Event) -> None:
    """Set a new sign in the store whenever `thread` has been seen to get on: it waits for other ranks, has come to
    another place in the program, or the process computes. While it waits, answer for it if a rank asks who is there:
    it may be waiting for one that has already noticed what is wrong.
    """
    key, period = f"alive/{dist.attempt}/{dist.rank}", min(dist.timeout_s / 5, LONGEST_BEAT_S)
    answer, pause = _key(dist, "answers", dist.rank), min(period, GRACE_S / 8)
    former: list[tuple[Any, int]] = []
    computed, looks = 0.0, round(period / pause)
    with suppress(RuntimeError):  # the process that holds the store has ended
        for number in itertools.count():
            place = _place(thread)
            waits = any(code is _naming_lost_ranks.__code__ for code, _ in place)
            if number % looks == 0:
                now = time.process_time() - time.thread_time()
                if waits or place != former or now - computed > BUSY * period:
                    dist.store.set(key, str(number))
                former, computed = place, now
            if waits and dist.store.check([_asked(dist)]) and not dist.store.check([answer]):
                dist.store.set(answer, "here")
            if ended.wait(pause):
                break
        dist.store.set(key, _LEFT)


def _place(thread: int) -> list[tuple[Any, int]]:
    """Where a thread is: function and instruction, from the innermost outwards."""
    place, frame = [], sys._current_frames().get(thread)
    while frame:
        place.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return place
