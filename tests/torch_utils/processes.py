"""Real processes that talk through gloo, for the tests of what they say to each other."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torch_utils.distributed import DistContext, LostRank, from_environment, process_group

CPU = torch.device("cpu")


def one(
    folder: Path, rank: int, size: int, port: int, timeout_s: float, work: Callable[[DistContext, Path], Any],
    machines: int,
) -> None:  # fmt: skip
    """A process of the group: what it finds, or the error it meets, goes into a file."""
    environment = {
        "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": port,
        "LOCAL_WORLD_SIZE": size // machines,
    }  # fmt: skip
    if machines > 1:
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    dist = from_environment(os.environ)
    assert dist
    try:
        with process_group(dist, CPU, timeout_s) as dist:
            found = work(dist, folder)
    except (LostRank, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
    torch.save(found, folder / f"{rank}.pt")


def together(
    folder: Path, work: Callable[[DistContext, Path], Any], size: int, timeout_s: float = 1000, come: int = -1,
    pause_s: float = 0, machines: int = 1,
) -> list[Any]:  # fmt: skip
    """What each of the processes found; None for one that died, and for one that found nothing.

    timeout_s: by default longer than any of them may live, so that none is seen to wait for it
    come: how many come   pause_s: from one's start to the next's   machines: how many they believe to be on
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.loop", "torch.utils.tensorboard"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    count = size if come < 0 else come
    processes = [
        context.Process(target=one, args=(folder, r, size, port, timeout_s, work, machines)) for r in range(count)
    ]
    for process in processes:
        process.start()
        time.sleep(pause_s)
    for process in processes:
        process.join(300)
        assert process.exitcode is not None, "it hangs"
    files = [folder / f"{r}.pt" for r in range(count)]
    return [torch.load(file) if file.exists() else None for file in files]
