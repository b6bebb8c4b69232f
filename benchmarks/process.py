"""train.py as a process: started from scratch, or forked from one that has loaded everything, to save seconds."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ["training.runs.launch", "torch.utils.tensorboard", "training.metrics.evaluate"]


class Process:
    """A process of either kind, with the methods of subprocess.Popen. `wait` raises TimeoutError."""

    def __init__(self, process: subprocess.Popen[bytes] | BaseProcess) -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        if isinstance(self._process, subprocess.Popen):
            try:
                return self._process.wait(seconds)
            except subprocess.TimeoutExpired as error:
                raise TimeoutError from error
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(command: list[str], out: Path, err: Path, limit: int, fresh: bool) -> Process:
    """Start train.py with these arguments.

    out, err: files for its output   limit: maximum bytes of a file, 0 for no limit   fresh: from scratch, not forked
    """
    if fresh:
        with out.open("w") as a, err.open("w") as b:
            return Process(
                subprocess.Popen(
                    [sys.executable, str(ROOT / "train.py"), *command], cwd=ROOT, stdout=a, stderr=b,
                    preexec_fn=lambda: _limit_files(limit),
                )
            )  # fmt: skip
    os.environ["PYTHONPATH"] = str(ROOT)  # for the process from which the others are forked
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    out.touch()
    err.touch()
    process = context.Process(target=_train, args=(command, out, err, limit))
    process.start()
    return Process(process)


def _limit_files(limit: int) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _train(command: list[str], out: Path, err: Path, limit: int) -> None:
    from stylegan.cli.train import main

    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    _limit_files(limit)
    main(command)
