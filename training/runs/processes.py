"""A run on several GPUs, or on several processes of a CPU: they are started, watched, stopped and started again.

PyTorch's elastic launcher does the watching. A process that is lost (killed, out of memory, or silent for too long)
takes the others with it, and all go on from the last saved state. One that meets an error says so in a note and no
restart is tried: the error would come again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from torch_utils.device import pick_device
from torch_utils.distributed import DistContext, LostRank, from_environment, process_group
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.text import say
from training.config import RunConfig
from training.loop import train
from training.runs.run_dir import has_state

STOP = "stop"  # a note of the signal that the user has sent, for processes that are started after it
START = "forkserver"  # forks from a process that has loaded everything, and not touched a GPU
INSTALLED = {"site-packages", "dist-packages"}  # folders that Python has among its own paths
SHUTDOWN_S = 60  # for the others to end once one is lost

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
    other end but the planned one: 143 after SIGTERM, 1 after an error, whose traceback has been printed.
    """
    _quiet_launcher()
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    load_beforehand()
    with tempfile.TemporaryDirectory() as folder, _passing_on_signals(Path(folder)) as stopped_by:
        notes = Path(folder)
        alive, _held = multiprocessing.Pipe(duplex=False)  # its end comes when we do
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=cfg.gpus, run_id=run_dir.name, role="train",
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
            max_restarts=cfg.max_restarts, monitor_interval=0.1, start_method=START,
            logs_specs=DefaultLogsSpecs(log_dir=folder), shutdown_timeout=SHUTDOWN_S,
            signals_to_handle="SIGQUIT",  # the others are passed on, as a wish that the processes grant together
        )  # fmt: skip
        try:
            codes = elastic_launch(config, entry or process)(cfg, run_dir, resume, init_from, notes, alive)
            code = max(codes.values())
        except ChildFailedError as error:
            if stopped_by():
                raise SystemExit(128 + stopped_by()) from None
            _raise_first(notes)
            rank, failure = error.get_first_failure()
            raise UserError(_lost(cfg, run_dir, notes, rank, failure.exitcode)) from None
        _raise_first(notes)
    if code:
        raise SystemExit(code)


def load_beforehand() -> None:
    """Have `START` load what all processes need, from the very folder that this was loaded from.

    It starts with Python's own paths (until 3.12), on which another copy of the project may lie, such as one installed
    with pip while this is a checkout: the processes would train with that one's code.
    """
    home = Path(__file__).parents[2]
    if home.name not in INSTALLED:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH")]))
    multiprocessing.set_forkserver_preload(["training.loop", "torch.utils.tensorboard"])


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
    os.setsid()  # Ctrl-C in a terminal is for the launcher, which passes it on
    threading.Thread(target=_stop_with, args=(launcher,), daemon=True).start()
    stop = _stop_wanted(notes)
    if stop:
        return 128 + stop
    code = 1
    if not _noted(notes):  # by an earlier attempt
        with ExitStack() as stack:
            stack.push(lambda kind, error, tb: _noted(notes))
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
        with process_group(dist, device_of(cfg, dist), cfg.timeout) as dist, ExitStack() as stack:
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
        (notes / f"lost-{dist.attempt}-{dist.rank}").write_text(str(error))
        sys.exit(1)
    return 0


def _write_note(
    notes: Path, rank: int, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
) -> None:
    """Tell the launcher of an error that would come again."""
    if kind is None or issubclass(kind, LostRank) or not issubclass(kind, Exception):
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


def _lost(cfg: RunConfig, run_dir: Path, notes: Path, rank: int, exitcode: int) -> str:
    """What to say of a process that was lost once too often."""
    said = sorted(notes.glob("lost-*"), key=lambda path: path.stat().st_mtime_ns)
    if exitcode < 0:
        what = f"process {rank} of {cfg.gpus} was ended by {signal.Signals(-exitcode).name}"
    elif said:
        what = said[-1].read_text()
    else:
        what = f"process {rank} of {cfg.gpus} ended with code {exitcode}"
    again = f", after {cfg.max_restarts} restarts" if cfg.max_restarts else ""
    if not has_state(run_dir):
        return f"{what}{again}; nothing was saved by then: find the cause, then start again"
    return f"{what}{again}; what was saved is in {run_dir}: train.py --resume {run_dir}"


@contextmanager
def _passing_on_signals(notes: Path) -> Iterator[Callable[[], int]]:
    """While it lasts, Ctrl-C and SIGTERM go to the processes. Gives a function that tells which came first, 0: none."""

    def pass_on(signum: int, frame: FrameType | None) -> None:
        if not (notes / STOP).exists():
            (notes / STOP).write_text(str(int(signum)))
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, signum)

    before: dict[int, Any] = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: _stop_wanted(notes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_wanted(notes: Path) -> int:
    """The signal that the user has sent, 0 if none."""
    return int((notes / STOP).read_text()) if (notes / STOP).exists() else 0


def _quiet_launcher() -> None:
    """Before PyTorch's launcher is imported: errors are ours to tell, once, and the way is through this machine."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
