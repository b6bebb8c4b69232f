"""A run on several GPUs, or on several processes of a CPU: they are started, watched, stopped and started again.

A process that is lost (killed, out of memory, or silent for too long) takes the others with it, and all go on from the
last saved state. One that meets an error says so in a note and no restart is tried: the error would come again.

Signals go to the launcher, which tells the processes: the first is a wish, which they grant together, and with the
second they have `ORDER_S` to end. Everything that the launcher opens is for this machine only.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from torch_utils.device import pick_device
from torch_utils.distributed import (
    LOOPBACK,
    DistContext,
    LostRank,
    SignsOfLife,
    from_environment,
    process_group,
    store_on_loopback,
)
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.interrupt import Interrupts, signals_end, stopping_signals, was_interrupted
from torch_utils.progress import lasting_streams
from torch_utils.text import say
from training.config import RunConfig
from training.loop import train
from training.runs.run_dir import has_state

INSTALLED = {"site-packages", "dist-packages"}  # folders that Python has among its own paths
SHUTDOWN_S = 60.0  # for the others to end once one has ended
ORDER_S = 5.0  # for all to end after a second signal
LOOK_S = 0.1  # from one look at the processes to the next
LOST, GONE = 1, 255  # exit codes of one that lost the others, and of one of which nothing is known any more

Work = Callable[[RunConfig, Path, bool, str | None, DistContext], object]  # `train`, or what is called like it
Entry = Callable[[RunConfig, Path, bool, str | None, Path, Connection], int]


def check_devices(cfg: RunConfig) -> None:
    """Raises UserError unless there are as many devices as processes."""
    if cfg.gpus == 1:
        return
    if ":" in cfg.device:
        raise UserError(f"--device {cfg.device} is one GPU, --gpus {cfg.gpus} are several; leave out one of them")
    there = torch.cuda.device_count()
    if cfg.device == "auto" and there == 0:
        raise UserError(f"--gpus {cfg.gpus}, but there is no GPU here; --device cpu makes them processes on the CPU")
    if cfg.device != "cpu" and there < cfg.gpus:
        raise UserError(f"--gpus {cfg.gpus}, but torch sees {there} here; use --gpus {max(there, 1)}")


def device_of(cfg: RunConfig, dist: DistContext) -> torch.device:
    """Where one of the processes computes: on the GPU with its number on this machine, or on the CPU."""
    device = pick_device(cfg.device)
    return pick_device(f"cuda:{dist.local_rank}") if device.type == "cuda" else device


def train_in_processes(
    cfg: RunConfig, run_dir: Path, resume: bool, init_from: str | None, entry: Entry | None = None
) -> None:
    """Train with `cfg.gpus` processes on this machine. For the arguments see `train`.

    entry: what each of them does, if it is not to train: `process` with other work

    Raises UserError for what one of them raised, and for one that was lost too often; SystemExit with its code for any
    other end but the planned one: 128 and a signal's number, or 1 after an error, whose traceback has been printed.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # errors are ours to tell, once
    alive, held = multiprocessing.Pipe(duplex=False)  # its end comes when we do
    with tempfile.TemporaryDirectory() as folder, held, _Launcher(cfg, Path(folder)) as launcher:
        notes = Path(folder)
        for attempt in range(cfg.max_restarts + 1):
            codes = launcher.run(attempt, entry or process, (cfg, run_dir, resume, init_from, notes, alive))
            _raise_first(notes)
            if launcher.signals and any(codes.values()):
                raise launcher.stopped()
            lost = next((rank for rank, code in codes.items() if code < 0 or code == LOST), None)
            if lost is None:
                break
            what = _what_became_of(lost, codes[lost], attempt, cfg.gpus, notes)
            if attempt < cfg.max_restarts:
                say(f"{what}: all start again from what was saved", err=True)
        else:
            again = f", after {cfg.max_restarts} restarts" if cfg.max_restarts else ""
            if not has_state(run_dir):
                raise UserError(f"{what}{again}; nothing was saved by then: find the cause, then start again")
            raise UserError(f"{what}{again}; what was saved is in {run_dir}: train.py --resume {run_dir}")
    if any(codes.values()):
        raise SystemExit(max(codes.values()))


class _Launcher:
    """Starts the processes of a run and watches them. A context manager: at its end, none of them is left.

    signals: that ask to stop and have come, in their order
    """

    def __init__(self, cfg: RunConfig, notes: Path) -> None:
        self._cfg, self._notes = cfg, notes
        self._processes: dict[int, BaseProcess] = {}
        self._starting = False
        self._is_echo = Interrupts().is_echo
        self.signals: list[int] = []

    def __enter__(self) -> _Launcher:
        self._before: dict[int, Any] = {number: signal.signal(number, self._hear) for number in stopping_signals()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._starting = False
        for process in self._processes.values():
            _send(process, signal.SIGKILL)
            if process.pid:
                process.join(ORDER_S)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if self._is_echo(signum):
            return
        self.signals.append(signum)
        if self._starting:  # nothing has been done yet that could be lost
            raise self.stopped()

    def stopped(self) -> BaseException:
        """What to raise because of the first signal."""
        first = self.signals[0]
        return KeyboardInterrupt() if first == signal.SIGINT else SystemExit(128 + first)

    def run(self, attempt: int, entry: Entry, arguments: tuple[Any, ...]) -> dict[int, int]:
        """Start all processes, and return their exit codes by rank, in the order in which they ended."""
        store = store_on_loopback(self._cfg.timeout)
        self._start(attempt, store.port, entry, arguments)
        signs, forwarded, deadline = SignsOfLife(store, attempt), 0, math.inf
        codes: dict[int, int] = {}
        while running := {rank: it for rank, it in self._processes.items() if rank not in codes}:
            wait([it.sentinel for it in running.values()], LOOK_S)
            now = time.monotonic()
            ended = {rank: it.exitcode for rank, it in running.items() if it.exitcode is not None}
            for rank, code in ended.items():
                signs.end(rank)  # or the others would wait for it
                if code == GONE:
                    _send(running[rank], signal.SIGKILL)
            codes |= ended
            to_send = self.signals[forwarded:]
            forwarded += len(to_send)
            if not forwarded and any(code < 0 or code == LOST for code in ended.values()):
                to_send = [signal.SIGTERM]
            if ended:
                deadline = min(deadline, now + SHUTDOWN_S)
            if forwarded > 1:
                deadline = min(deadline, now + ORDER_S)
            for rank in running.keys() - ended.keys():
                stuck = signs.silence(rank) > self._cfg.timeout
                if stuck:
                    what = (
                        f"process {rank} of {self._cfg.gpus} got no further for {self._cfg.timeout:g} s and was ended"
                    )
                    _lost_note(self._notes, attempt, rank).write_text(what)
                for signum in [signal.SIGKILL] if stuck or now > deadline else to_send:
                    _send(running[rank], signum)
        return codes

    def _start(self, attempt: int, port: int, entry: Entry, arguments: tuple[Any, ...]) -> None:
        self._processes = {}
        self._starting = True
        try:
            if self.signals:
                raise self.stopped()
            load_beforehand()
            context, size = multiprocessing.get_context("forkserver"), str(self._cfg.gpus)
            for rank in range(self._cfg.gpus):
                environment = {
                    "RANK": str(rank), "WORLD_SIZE": size, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": size,
                    "MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
                    "TORCHELASTIC_RESTART_COUNT": str(attempt),
                }  # fmt: skip
                self._processes[rank] = context.Process(target=_enter, args=(environment, entry, arguments))
                self._processes[rank].start()
        finally:
            self._starting = False


def _send(process: BaseProcess, signum: int) -> None:
    if process.pid and process.exitcode in (None, GONE):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)


def _enter(environment: Mapping[str, str], entry: Entry, arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    sys.exit(entry(*arguments))


def load_beforehand() -> None:
    """Start the server from which processes are forked, which has loaded all that they need and has not touched a GPU.

    It loads from the very folder that this was loaded from.

    It starts with Python's own paths (until 3.12), on which another copy of the project may lie, such as one installed
    with pip while this is a checkout: the processes would train with that one's code.

    It hears no signals: those are for the launcher, but a terminal sends them to all that was started from it.
    """
    home = Path(__file__).parents[2]
    paths = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if home.name not in INSTALLED and str(home) not in paths[:1]:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(home), *paths])
    multiprocessing.set_forkserver_preload(["training.loop", "torch.utils.tensorboard"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping_signals())
    try:
        resource_tracker.ensure_running()  # which `forkserver` would do next; it lets Ctrl-C and SIGTERM in again
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping_signals())
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def process(
    cfg: RunConfig, run_dir: Path, resume: bool, init_from: str | None, notes: Path, launcher: Connection,
    work: Work = train,
) -> int:  # fmt: skip
    """One of the processes, from its start to its end. Returns its exit code.

    launcher: has something to read when the launcher is gone; then the run is saved and ends, as after a SIGTERM
    work: what it does

    Ends with SystemExit(1) instead where the launcher is to start all of them again.
    """
    dist = from_environment(os.environ)
    assert dist is not None
    lasting_streams()
    os.setsid()  # Ctrl-C in a terminal is for the launcher, which passes it on
    signals = stopping_signals()
    for number in signals:  # at once, whatever it waits for: there is nothing to save yet
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    threading.Thread(target=_stop_with, args=(launcher,), daemon=True).start()
    code = 1
    if not _noted(notes):  # by an earlier attempt
        with ExitStack() as stack:
            stack.push(lambda kind, error, tb: _noted(notes) or was_interrupted(error))
            code = _train_in_group(cfg, run_dir, resume, init_from, dist, notes, work)
    if launcher.poll():  # nobody is there to take the code
        sys.exit(code or 1)
    return code


def _stop_with(launcher: Connection) -> None:
    wait([launcher])
    os.kill(os.getpid(), signal.SIGTERM)


def _train_in_group(
    cfg: RunConfig, run_dir: Path, resume: bool, init_from: str | None, dist: DistContext, notes: Path, work: Work
) -> int:
    try:
        with process_group(dist, device_of(cfg, dist), cfg.timeout) as dist, signals_end(), ExitStack() as stack:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            stack.push(partial(_write_note, notes, dist.rank))
            saved = dist.attempt > 0 and has_state(run_dir)
            work(cfg, run_dir, resume or saved, init_from, dist)
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:  # the second Ctrl-C
        return 128 + signal.SIGINT
    except LostRank as error:
        if _noted(notes):
            return 1
        _lost_note(notes, dist.attempt, dist.rank).write_text(str(error))
        sys.exit(LOST)
    return 0


def _write_note(
    notes: Path, rank: int, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
) -> None:
    """Tell the launcher of an error that would come again."""
    if kind is None or issubclass(kind, LostRank) or not issubclass(kind, Exception) or was_interrupted(error):
        return
    text = str(error) if issubclass(kind, UserError) else "".join(traceback.format_exception(kind, error, tb))
    note = {"rank": rank, "mistake": issubclass(kind, UserError), "text": text}
    write_atomically(notes / f"error-{rank}.json", json.dumps(note).encode())


def _noted(notes: Path) -> bool:
    return any(notes.glob("error-*.json"))


def _raise_first(notes: Path) -> None:
    """Raise what was noted first, if anything was: a UserError again, any other error as its traceback and a code."""
    for path in sorted(notes.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns):
        note = json.loads(path.read_text())
        if note["mistake"]:
            raise UserError(note["text"])
        say(f"{note['text']}Error: process {note['rank']} ended with the error above, and so did all.", err=True)
        raise SystemExit(1)


def _lost_note(notes: Path, attempt: int, rank: int) -> Path:
    return notes / f"lost-{attempt}-{rank}"


def _what_became_of(rank: int, code: int, attempt: int, size: int, notes: Path) -> str:
    """What to say of a process that was lost."""
    note = _lost_note(notes, attempt, rank)
    if note.exists():
        return note.read_text()
    if code < 0:
        return f"process {rank} of {size} was ended by {signal.Signals(-code).name}"
    return f"process {rank} of {size} ended with code {code}"
