"""Real processes that talk through gloo: how they reduce, and what they say of one that dies, sleeps or never comes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.torch_utils.processes import CPU, together
from torch_utils.distributed import (
    SINGLE_PROCESS,
    DistContext,
    all_reduce_max,
    all_reduce_sum,
    broadcast_from_rank0,
    from_environment,
    on_rank0,
    process_group,
)  # fmt: skip
from torch_utils.errors import UserError

LOOPBACK_HEX = "0100007F"  # as /proc writes 127.0.0.1


def the_four_ways(dist: DistContext, folder: Path) -> tuple[list[float], int, str, bool]:
    numbers = torch.arange(3.0) * 10**dist.rank
    all_reduce_sum(dist, "numbers", numbers)
    most = all_reduce_max(dist, "most", 5 if dist.rank == 1 else dist.rank)
    text = broadcast_from_rank0(dist, "text", lambda: f"from {dist.rank}")
    on_rank0(dist, "a file", lambda: (time.sleep(0.2), (folder / "file").touch()))
    return numbers.tolist(), most, text, (folder / "file").exists()


def test_three_processes_add_up_agree_listen_and_wait(tmp_path) -> None:
    found = together(tmp_path, the_four_ways, 3)
    assert found == [([0.0, 111.0, 222.0], 5, "from 0", True)] * 3


def dies(dist: DistContext, folder: Path) -> str:
    if dist.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(3):
        all_reduce_sum(dist, "gradients of D", torch.zeros(1000))
    return "lives"


def test_one_that_dies_is_named_by_all_others_at_once(tmp_path) -> None:
    first, dead, third = together(tmp_path, dies, 3)
    assert dead is None
    for text in (first, third):
        assert text.startswith("LostRank: Rank 1 of 3 did not answer in 'gradients of D'")


def sleeps(dist: DistContext, folder: Path) -> None:
    if dist.rank == 1:
        time.sleep(4)
    all_reduce_sum(dist, "losses of G", torch.zeros(3))


def test_one_that_is_too_slow_is_named_and_learns_of_it(tmp_path) -> None:
    text, other = together(tmp_path, sleeps, 2, timeout_s=1.5)
    assert "Rank 1 of 2 did not answer in 'losses of G' (ended, or silent for 1.5 s)" in text
    # Rank 0 holds the store here, which may have ended with it.
    assert "Rank 1 failed in" in other or "Rank 0 of 2 did not answer" in other


def raises(dist: DistContext, folder: Path) -> None:
    if dist.rank == 1:
        raise ValueError("too bad")
    all_reduce_sum(dist, "losses of G", torch.zeros(3))


def test_one_that_raises_does_not_keep_the_others_waiting(tmp_path) -> None:
    text, own = together(tmp_path, raises, 2)
    assert own == "ValueError: too bad"
    assert "Rank 1 of 2 stopped with an error of its own, which the others noticed in 'losses of G'" in text


def finds_nothing(dist: DistContext, folder: Path) -> None:
    broadcast_from_rank0(dist, "text", lambda: str(int("nothing")))


def test_who_waits_for_an_answer_learns_that_there_is_none(tmp_path) -> None:
    own, text = together(tmp_path, finds_nothing, 2)
    assert own.startswith("ValueError")
    assert "Rank 0 of 2 " in text and "'text'" in text


def nothing(dist: DistContext, folder: Path) -> None:
    """Only come."""


def test_one_that_does_not_come_is_named_also_by_one_that_came_late(tmp_path) -> None:
    """The first rank waits for its time-out, and then ends the store at which the other would still wait."""
    found = together(tmp_path, nothing, 3, timeout_s=6, come=2, pause_s=2)
    for text in found:
        assert text.startswith("LostRank: Rank 2 of 3 did not start within 6 s")


def compute(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(10000))


def works_long(dist: DistContext, folder: Path) -> str:
    on_rank0(dist, "metrics", lambda: compute(5))
    return broadcast_from_rank0(dist, "text", lambda: (compute(3), "found")[1])


def test_who_waits_for_process_0_does_not_time_out(tmp_path) -> None:
    assert together(tmp_path, works_long, 2, timeout_s=2) == ["found"] * 2


def stops(dist: DistContext, folder: Path) -> None:
    """Without a word, and for longer than anybody waits; the last one to notice sends it on, to see what it says."""
    (folder / f"{dist.rank}.pid").write_text(str(os.getpid()))
    all_reduce_sum(dist, "start", torch.zeros(1))
    where, name = (folder / "where").read_text().split()

    def stuck() -> str:
        if where == "asleep":
            time.sleep(3600)
        os.kill(os.getpid(), signal.SIGSTOP)
        return "text"

    try:
        if name == "text":
            broadcast_from_rank0(dist, name, stuck)
        elif where == "late":
            if dist.rank == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            on_rank0(dist, name, lambda: compute(0.1))
        else:
            on_rank0(dist, name, stuck)
    finally:
        other = 1 - dist.rank
        with suppress(ProcessLookupError):
            os.kill(int((folder / f"{other}.pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("where", ["stopped save", "asleep text", "late save"])
def test_one_that_is_stuck_while_others_wait_is_named_by_them(where, tmp_path) -> None:
    """At work that only process 0 does, or before the others' end of it. `together` would hang otherwise."""
    (tmp_path / "where").write_text(where)
    found = together(tmp_path, stops, 2, timeout_s=2)
    culprit = 1 if where.startswith("late") else 0
    assert found[culprit] is None
    name = where.split()[1]
    assert f"Rank {culprit} of 2 did not answer in '{name}' (ended, or silent for 2 s)" in found[1 - culprit]


def listening(pid: int) -> list[str]:
    """The addresses on which a process listens, in the hexadecimal digits of /proc."""
    links = [os.readlink(it) for it in Path(f"/proc/{pid}/fd").iterdir() if it.is_symlink()]
    rows = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]


def hear(dist: DistContext, folder: Path) -> list[str]:
    """The addresses on which this process listens, while all are there."""
    on_rank0(dist, "a file", lambda: None)
    found = listening(os.getpid())
    all_reduce_sum(dist, "all have looked", torch.zeros(1))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux lists its sockets")
def test_processes_of_one_machine_listen_on_its_loopback_address_only(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    found = together(tmp_path, hear, 2, machines=1)
    assert all(found) and {address for addresses in found for address in addresses} == {LOOPBACK_HEX}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux lists its sockets")
def test_only_several_machines_listen_elsewhere(tmp_path) -> None:
    first, _ = together(tmp_path, hear, 2, machines=2)
    assert set(first) > {LOOPBACK_HEX}, "the store of rank 0"


def test_one_process_starts_nothing() -> None:
    with process_group(SINGLE_PROCESS, CPU, 1.0) as dist:
        numbers = torch.ones(2)
        all_reduce_sum(dist, "numbers", numbers)
        done: list[int] = []
        on_rank0(dist, "work", lambda: done.append(1))
        assert numbers.tolist() == [1, 1] and done == [1]
        assert all_reduce_max(dist, "most", 3) == 3 and broadcast_from_rank0(dist, "x", lambda: "y") == "y"
        assert dist.store is None and not torch.distributed.is_initialized()


def test_the_environment_says_who_we_are() -> None:
    assert from_environment({}) is None
    whole = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "a",
             "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "2"}  # fmt: skip
    dist = from_environment(whole)
    assert dist and (dist.rank, dist.world_size, dist.local_rank, dist.local_world_size, dist.attempt) == (
        5,
        8,
        1,
        4,
        2,
    )
    with pytest.raises(UserError, match="RANK is set but not MASTER_ADDR and MASTER_PORT"):
        from_environment({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"})
