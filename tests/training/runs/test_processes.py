"""Runs of several processes: one run, and no end of one of them that leaves the others hanging."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import training.loop
import training.runs.checkpointing
import training.runs.processes
from stylegan.cli.train import main
from torch_utils.distributed import from_environment
from torch_utils.errors import UserError
from training.config import AUGMENTATIONS, RunConfig
from training.loop import train
from training.runs.processes import check_devices, train_in_processes
from training.runs.report import LOG, STATS
from training.runs.run_dir import STATE

FAULT = "fault.json"
LONGEST = 1e6  # seconds


def faulty(
    cfg: RunConfig, run_dir: Path, resume: bool, init_from: str | None, notes: Path, launcher: Connection
) -> int:
    """A process of a run, to one of which something happens in the first attempt, as `FAULT` says: in a step, or at
    another call of the loop ("at").
    """
    dist = from_environment(os.environ)
    assert dist
    fault = json.loads((run_dir / FAULT).read_text()) if (run_dir / FAULT).exists() else {}
    if fault and dist.rank in fault["ranks"] and dist.attempt <= fault["attempts"]:
        module = training.loop if hasattr(training.loop, fault["at"]) else training.runs.checkpointing
        healthy, calls = getattr(module, fault["at"]), 0

        def sick(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fault["step"]:
                happen(fault["what"], arguments[0], run_dir)
            return healthy(*arguments)

        setattr(module, fault["at"], sick)
    return training.runs.processes.process(cfg, run_dir, resume, init_from, notes, launcher)


def happen(what: str, state: Any, run_dir: Path) -> None:
    if what == "raise":
        raise ZeroDivisionError("a bug")
    if what == "mistake":
        raise UserError("the disk is full; make room")
    if what == "sleep":
        time.sleep(5)
    if what == "infinite":
        with torch.no_grad():
            state.D.head.dense1.bias.fill_(float("inf"))
    if what.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[what])
    launcher = int((run_dir / "pid").read_text())
    if what == "stop":
        os.kill(launcher, signal.SIGTERM)
    if what == "hang up":
        for _ in range(2):
            os.kill(launcher, signal.SIGHUP)
            time.sleep(0.05)
    if what == "deaf":  # as while it waits within PyTorch
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for _ in range(2):
            os.kill(launcher, signal.SIGINT)
            time.sleep(0.5)
        time.sleep(3600)
    if what == "unread":
        reader, writer = os.pipe()
        os.close(reader)
        for descriptor in (1, 2):
            os.dup2(writer, descriptor)
    if what == "listen":
        found = {pid: listening(pid) for pid in (launcher, os.getpid())}
        (run_dir / "listening.json").write_text(json.dumps(found))


def listening(pid: int) -> list[str]:
    """The addresses on which a process listens, in the hexadecimal digits of /proc."""
    links = [os.readlink(it) for it in Path(f"/proc/{pid}/fd").iterdir() if it.is_symlink()]
    rows = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """crew(cfg, what="SIGKILL", step=12) trains in processes, in a directory of its own, and returns that."""
    monkeypatch.setattr(training.runs.processes, "process", faulty)
    number = 0

    def run(cfg: RunConfig, run_dir: Path | None = None, **fault: Any) -> Path:
        nonlocal number
        resume = run_dir is not None
        if run_dir is None:
            number += 1
            run_dir = tmp_path / str(number)
            run_dir.mkdir()
        (run_dir / "pid").write_text(str(os.getpid()))
        (run_dir / FAULT).unlink(missing_ok=True)
        if fault:
            (run_dir / FAULT).write_text(json.dumps({"ranks": [1], "attempts": 0, "at": "train_step"} | fault))
        train_in_processes(cfg, run_dir, resume, None)
        return run_dir

    return run


def two(tiny: Callable[..., RunConfig], **changes: Any) -> RunConfig:
    return tiny(gpus=2, **changes)


def saved(run_dir: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run_dir / STATE, weights_only=True)
    return state


def same_end(one: Path, other: Path) -> bool:
    a, b = saved(one), saved(other)
    assert a["nimg"] == b["nimg"]
    return all(torch.equal(a[net][name], b[net][name]) for net in ("G", "D", "G_ema") for name in a[net])


def log(run_dir: Path) -> list[str]:
    return (run_dir / LOG).read_text().splitlines()


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory) -> Path:
    """A run of two processes that nothing happens to."""
    run_dir = tmp_path_factory.mktemp("undisturbed")
    train_in_processes(two(tiny), run_dir, False, None)
    return run_dir


def test_a_run_of_two_processes_is_one_run(undisturbed, straight) -> None:
    """It leaves what one process leaves, each line once, and the same curves."""
    names = [{path.name for path in folder.iterdir() if not path.name.startswith("events.")}
             for folder in (undisturbed, straight)]  # fmt: skip
    assert names[0] == names[1]
    assert len(list(undisturbed.glob("events.*"))) == 1
    assert "2 processes" in log(undisturbed)[0]
    assert [line.split("  ")[0] for line in log(undisturbed)[1:-1]] == [
        line.split("  ")[0] for line in log(straight)[1:-1]
    ]
    ours, single = (
        [json.loads(line) for line in (d / STATS).read_text().splitlines()] for d in (undisturbed, straight)
    )
    for a, b in zip(ours, single, strict=True):
        assert a["Loss/D/loss"] == pytest.approx(b["Loss/D/loss"], rel=0.05)


def test_processes_agree_on_the_average_of_each_class(crew, tiny) -> None:
    cfg = two(tiny, data__cond=True, loss__diffaugment=AUGMENTATIONS, loss__name="relativistic")
    together, single = (crew(it) for it in (cfg, replace(cfg, gpus=1)))
    ours, theirs = (saved(run_dir)["G"]["mapping.w_avg"] for run_dir in (together, single))
    assert ours.ndim == 2 and (ours != 0).any(dim=1).all()
    torch.testing.assert_close(ours, theirs, rtol=0.2, atol=0.02)


def test_a_killed_process_costs_nothing(undisturbed, crew, tiny) -> None:
    """All start again from the last state, of 80 images, and end as if nothing had been."""
    killed = crew(two(tiny), what="SIGKILL", step=14)
    assert same_end(undisturbed, killed)
    said = log(killed)
    assert "A process was lost: restart 1" in said
    assert any(line.startswith(f"Going on with {killed} at 0.1 of") for line in said)


def test_a_silent_process_is_given_up_and_all_start_again(undisturbed, crew, tiny) -> None:
    slow = crew(two(tiny, timeout=1.5), what="sleep", step=14)
    assert same_end(undisturbed, slow)


@pytest.mark.parametrize(("at", "rank"), [("tick", 1), ("save_fakes", 0)])
def test_a_process_that_is_stuck_at_a_tick_is_given_up(at, rank, undisturbed, crew, tiny, capfd) -> None:
    """Before what the first one does alone, or while it does it."""
    stuck = crew(two(tiny, timeout=3), what="SIGSTOP", at=at, step=2, ranks=[rank])
    assert same_end(undisturbed, stuck)
    assert "all start again from what was saved" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux lists its sockets")
def test_a_run_listens_on_the_loopback_address_only(crew, tiny) -> None:
    """Its launcher, with the store, and its processes."""
    found = json.loads((crew(two(tiny), what="listen", step=2) / "listening.json").read_text())
    assert len(found) == 2 and all(found.values())
    assert {address for addresses in found.values() for address in addresses} == {"0100007F"}


def test_the_second_ctrl_c_ends_also_processes_that_do_not_hear_it(crew, tiny, monkeypatch) -> None:
    monkeypatch.setattr(training.runs.processes, "ORDER_S", 1.0)
    with pytest.raises(KeyboardInterrupt):
        crew(two(tiny, timeout=LONGEST), what="deaf", step=2, ranks=[0, 1])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_start_ends_it_at_once(number, tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training.runs.processes, "load_beforehand", lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped:
        train_in_processes(two(tiny), tmp_path, False, None)
    assert getattr(stopped.value, "code", 143) == 143 and signal.getsignal(number) is before
    assert not multiprocessing.active_children() and not list(tmp_path.iterdir())


def test_a_process_that_is_lost_once_too_often_is_named(crew, tiny) -> None:
    """At once, and not when the time for an answer is over, which is set to the longest there is."""
    with pytest.raises(UserError, match=r"process 1 of 2 was ended by SIGKILL; what was saved is in .*--resume"):
        crew(two(tiny, max_restarts=0, timeout=LONGEST), what="SIGKILL", step=3)


def test_an_error_in_one_ends_all_with_its_traceback_once(crew, tiny, capfd) -> None:
    with pytest.raises(SystemExit) as stopped:
        crew(two(tiny), what="raise", step=3)
    assert stopped.value.code == 1
    errors = capfd.readouterr().err
    assert errors.count("Traceback") == 1 and "ZeroDivisionError: a bug" in errors
    assert errors.splitlines()[-1] == "Error: process 1 ended with the error above, and so did all."


def test_a_mistake_met_by_one_is_told_as_such(crew, tiny) -> None:
    with pytest.raises(UserError, match="^the disk is full; make room$"):
        crew(two(tiny), what="mistake", step=3)


@pytest.mark.parametrize(("what", "ranks"), [("stop", [0]), ("hang up", [0]), ("SIGTERM", [1])])
def test_a_wish_to_stop_stops_all_at_the_same_step(what, ranks, undisturbed, crew, tiny, tmp_path) -> None:
    """Whoever hears it, the launcher or a process; also if it is told twice that the terminal closes."""
    with pytest.raises(SystemExit) as stopped:
        crew(two(tiny), what=what, step=12, ranks=ranks)
    number = signal.SIGHUP if what == "hang up" else signal.SIGTERM
    assert stopped.value.code == 128 + number
    (run_dir,) = tmp_path.iterdir()
    nimg = saved(run_dir)["nimg"]
    assert 12 * 8 <= nimg < 240
    saving = f"saving network-snapshot-000000.safetensors and {STATE}"
    said = f"Stopped by {number.name} at {nimg / 1000:.1f} of 0.24 kimg: {saving}"
    assert log(run_dir)[-2] == said and log(run_dir)[-1].startswith("All is saved. To go on:")
    assert same_end(undisturbed, crew(two(tiny), run_dir))
    assert said in log(run_dir), "it stays in the log"


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGHUP, 2)])
def test_a_single_process_obeys_signals_too(number, times, tiny, tmp_path, monkeypatch) -> None:
    healthy = training.loop.train_step

    def interrupted(*arguments: Any) -> Any:
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0)  # where Python gets to see the signal
        return healthy(*arguments)

    monkeypatch.setattr(training.loop, "train_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        train(tiny(), tmp_path)
    assert (stopped.value.code, saved(tmp_path)["nimg"]) == (128 + number, 8)


def test_a_run_goes_on_with_another_number_of_processes(tiny, tmp_path, crew) -> None:
    train(tiny(total_kimg=0.16), tmp_path)
    crew(two(tiny), tmp_path)
    assert saved(tmp_path)["nimg"] == 240 and any("2 processes" in line for line in log(tmp_path))


def test_what_is_not_finite_in_one_is_skipped_by_all(crew, tiny) -> None:
    run_dir = crew(two(tiny), what="infinite", step=29)
    (line,) = [line for line in log(run_dir) if " steps skipped" in line]
    assert line.startswith("2 steps skipped between 0.16 and 0.24 kimg") and line.endswith("2 in a row, 2 in all")
    assert (saved(run_dir)["skipped"], saved(run_dir)["bad_steps"]) == (2, 2)


def test_a_run_goes_on_when_nobody_reads_its_output(undisturbed, crew, tiny) -> None:
    unread = crew(two(tiny, max_restarts=0), what="unread", step=2, ranks=[0, 1])
    assert same_end(undisturbed, unread) and len(log(unread)) == len(log(undisturbed))


def test_processes_run_the_code_of_the_checkout_they_were_started_from(tmp_path) -> None:
    """Also where another copy is installed: here, one of a single line, first on Python's own paths.

    And a signal for all that a terminal has started does not end the server that knows what becomes of them.
    """
    installed = tmp_path / "installed" / "training"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    (installed / "loop.py").write_text("")
    checkout = Path(training.runs.processes.__file__).parents[2]
    (tmp_path / "start.py").write_text(
        f"import sys; sys.path.insert(0, {str(checkout)!r})\n"
        "import multiprocessing, os\n"
        "from training.runs import processes\n"
        "def tell() -> None: print(sys.modules['training.loop'].__file__)\n"
        "if __name__ == '__main__':\n"
        "    processes.load_beforehand()\n"
        "    for number in processes.stopping_signals():\n"
        "        os.kill(multiprocessing.forkserver._forkserver._forkserver_pid, number)\n"
        "    child = multiprocessing.get_context('forkserver').Process(target=tell)\n"
        "    child.start(); child.join()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "start.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split() == [str(checkout / "training" / "loop.py")], done.stderr


def test_as_many_devices_as_processes(tiny, monkeypatch) -> None:
    check_devices(two(tiny))
    check_devices(tiny(device="auto"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="--gpus 2, but there is no GPU here; --device cpu"):
        check_devices(two(tiny, device="auto"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--gpus 2, but torch sees 1 here; use --gpus 1"):
        check_devices(two(tiny, device="auto"))
    with pytest.raises(UserError, match="--device cuda:1 is one GPU"):
        check_devices(two(tiny, device="cuda:1"))


def test_who_is_started_by_another_launcher_must_not_ask_for_other_numbers(images, tmp_path, monkeypatch) -> None:
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 2,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    asked = ["--data", str(images), "--outdir", str(tmp_path / "runs"), "--device", "cpu", "--cfg", "digits32"]
    result = CliRunner().invoke(main, [*asked, "--resolution", "16", "--gpus", "3"])
    assert result.exit_code == 2 and "--gpus 3, but 2 processes were started" in result.output
    assert not (tmp_path / "runs").exists()
