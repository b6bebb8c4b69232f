"""Resume is exact: a run that was killed, at any moment and any number of times, ends as if it had not been."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from stylegan.cli.train import main
from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.progan import ProGANConfig
from torch_utils.checkpoint import load_state, load_tensors, save_state
from training.config import AUGMENTATIONS, RunConfig
from training.loop import train
from training.runs.report import LOG, STATS
from training.runs.run_dir import OPTIONS, STATE, locked, write_options
from training.schedule import PerResolution

PRELOADED = ["training.loop", "torch._dynamo", "torch.utils.tensorboard"]  # seconds each, but only once

# What is about to happen, for the how-manieth time in the process, when it is killed. Of the files that are put in
# place only networks and states count.
IN_A_FADE = ("training.loop.train_step", 9)
FILE_WRITTEN_NOT_YET_IN_PLACE = ("torch_utils.files.put_in_place", 4)
PICTURES_DRAWN_NOTHING_SAVED = ("training.runs.checkpointing.store", 2)
NETWORK_SAVED_STATE_NOT = ("training.state.save_state", 1)
OLD_STATE_MOVED_NEW_ONE_NOT = ("torch_utils.files.put_in_place", 2)
STATE_SAVED_FILM_NOT = ("training.runs.checkpointing.save_growth", 1)
MOMENTS = (IN_A_FADE, FILE_WRITTEN_NOT_YET_IN_PLACE, PICTURES_DRAWN_NOTHING_SAVED, NETWORK_SAVED_STATE_NOT,
           OLD_STATE_MOVED_NEW_ONE_NOT, STATE_SAVED_FILM_NOT)  # fmt: skip


def train_until(
    moment: tuple[str, int] | None, cfg: RunConfig, run_dir: Path, resume: bool, signum: int = signal.SIGKILL
) -> None:
    """Train in this process, and get a signal at the given moment."""
    # The server that this was forked from may have been started by a launcher, and then hears no signals.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if moment:
        dotted, count = moment
        module, name = import_module(dotted.rpartition(".")[0]), dotted.rpartition(".")[2]
        original, calls = getattr(module, name), 0

        def deadly(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += name != "put_in_place" or args[1].suffix in (".safetensors", ".pt")
            if calls == count:
                os.kill(os.getpid(), signum)
            return original(*args, **kwargs)

        setattr(module, name, deadly)
    train(cfg, run_dir, resume=resume)


def in_a_process(*arguments: Any) -> int:
    """train_until in a process of its own, without importing torch each time. Returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=train_until, args=arguments)
    process.start()
    process.join(300)  # patient, as cores may be shared
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture
def run_dirs(tmp_path: Path) -> Callable[[str, RunConfig], Path]:
    def make(name: str, cfg: RunConfig) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_options(folder, cfg)
        return folder

    return make


def assert_same_end(one: Path, other: Path) -> None:
    """Everything two runs leave behind is the same, but for times, memory, and lines that tell of stops."""
    a, b = (torch.load(folder / STATE, weights_only=True) for folder in (one, other))
    assert_same(a, b, "")
    for pattern in ("network-snapshot-*.safetensors", "*.png", "growth.webp", "fakes.json"):
        files = sorted(path.name for path in one.glob(pattern))
        assert files and files == sorted(path.name for path in other.glob(pattern))
        assert [name for name in files if content(one / name) != content(other / name)] == []
    assert stats_of(one) == stats_of(other)
    assert log_of(one) == log_of(other)
    assert not list(other.glob(".*.tmp")), "scratch files of killed processes must not pile up"


def content(path: Path) -> object:
    """The bytes of a file, or of what it holds: safetensors writes its header in any order."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    tensors, header = load_tensors(path)
    return header, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def assert_same(a: Any, b: Any, name: str) -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), name
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            if key not in ("seconds", "log_bytes"):
                assert_same(a[key], b[key], f"{name}.{key}")
    else:
        assert a == b, name


def stats_of(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / STATS).read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("Timing/", "Resources/"))} for line in lines]


def log_of(run_dir: Path) -> list[str]:
    """The lines on phases and ticks, without times and memory."""
    lines = (run_dir / LOG).read_text().splitlines()
    told = [line for line in lines if line.startswith(("phase", "tick"))]
    return [re.sub(r"\d+\.\d+ s/kimg.*?ETA phase .*? run \S+( \d+\S)?  |mem \d+ MB", "", line) for line in told]


VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "lazy penalties in two rounds": {
        "loss__r1_interval": 3, "loss__r2_gamma": PerResolution(0.5), "batch_gpu": 4,
        "data__mirror": True, "ema_ramp": 0.05,
    },
    "augmented": {"loss__diffaugment": AUGMENTATIONS, "loss__name": "relativistic"},
    "classes in bf16": {"data__cond": True, "precision": "bf16", "model__mbstd_group": 2},
    "without w, images shared": {
        "model": ProGANConfig(resolution=16, z_dim=16, fmap_max=16), "loss__name": "wgan-gp",
        "loss__r1_gamma": PerResolution(0.0), "loss__share_fakes": True,
    },
    "batch norm, no growth": {
        "model": DCGANConfig(resolution=16, z_dim=8, fmap_base=64, fmap_max=8), "growth__initial": 16,
        "loss__r1_gamma": PerResolution(0.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_ends_as_if_it_had_not_been(variant, straight, tiny, run_dirs) -> None:
    cfg = tiny(**VARIANTS[variant])
    killed = run_dirs("killed", cfg)
    if cfg != tiny():
        straight = run_dirs("straight", cfg)
        assert in_a_process(None, cfg, straight, False) == 0
    deaths = MOMENTS if variant == "as published" else MOMENTS[:1] * 2
    codes = [in_a_process(moment, cfg, killed, number > 0) for number, moment in enumerate(deaths)]
    assert codes == [-signal.SIGKILL] * len(deaths)
    assert in_a_process(None, cfg, killed, True) == 0
    assert_same_end(straight, killed)


def test_a_damaged_state_costs_what_came_after_the_one_before_and_nothing_else(
    straight, tiny, run_dirs, capsys
) -> None:
    """Also where the snapshot that belongs to it is damaged, so that it must be written anew."""
    cfg = tiny()
    spoilt = run_dirs("spoilt", cfg)
    assert in_a_process(NETWORK_SAVED_STATE_NOT[:1] + (4,), cfg, spoilt, False) == -signal.SIGKILL
    for path in (spoilt / STATE, *spoilt.glob("network-snapshot-*")):
        path.write_bytes(path.read_bytes()[:1000])
    capsys.readouterr()
    train(cfg, spoilt, resume=True)
    said = capsys.readouterr().out.splitlines()[:3]
    assert [line.partition(" ")[0] for line in said] == [STATE, "network-snapshot-000000.safetensors", "Going"]
    assert_same_end(straight, spoilt)


def test_ctrl_c_saves_and_says_how_to_go_on(tiny, run_dirs) -> None:
    cfg = tiny(snap=100, tick_kimg=PerResolution(100.0))
    straight, stopped = run_dirs("straight", cfg), run_dirs("stopped", cfg)
    train(cfg, straight)
    code = in_a_process(("training.loop.train_step", 12), cfg, stopped, False, signal.SIGINT)
    assert code == 0
    said, last = (stopped / LOG).read_text().splitlines()[-2:]
    assert said == f"Stopped by Ctrl-C at 0.1 of 0.24 kimg: saving network-snapshot-000000.safetensors and {STATE}"
    assert last == f"All is saved. To go on: train.py --resume {stopped}"
    assert torch.load(stopped / STATE, weights_only=True)["nimg"] == 12 * 8, "the step begun is finished"
    result = CliRunner().invoke(main, ["--resume", str(stopped)])
    assert result.exit_code == 0, result.output
    assert_same_end(straight, stopped)


def prolong(run_dir: Path, kimg: float) -> None:
    result = CliRunner().invoke(main, ["--resume", str(run_dir), "--kimg", str(kimg)])
    assert result.exit_code == 0, result.output
    assert json.loads((run_dir / OPTIONS).read_text())["total_kimg"] == kimg


def test_a_run_of_two_ticks_prolonged_to_three_is_a_run_of_three(straight, tiny, run_dirs) -> None:
    shorter = tiny(total_kimg=0.16)
    prolonged = run_dirs("prolonged", shorter)
    train(shorter, prolonged)
    prolong(prolonged, 0.24)
    assert_same_end(straight, prolonged)


def test_a_first_end_within_a_tick_and_a_fade_leaves_nothing_but_a_line(straight, tiny, run_dirs) -> None:
    shorter = tiny(total_kimg=0.1)
    prolonged = run_dirs("prolonged", shorter)
    train(shorter, prolonged)
    prolong(prolonged, 0.24)
    a, b = (torch.load(folder / STATE, weights_only=True) for folder in (straight, prolonged))
    for part in ("G", "D", "G_ema", "opt_g", "opt_d", "nimg", "phase", "config"):
        assert_same(a[part], b[part], part)
    assert [line["Progress/kimg"] for line in stats_of(prolonged)] == [0.08, 0.104, 0.184, 0.24]


def test_a_run_of_before_goes_on_with_other_random_numbers_and_says_so_once(tiny, run_dirs) -> None:
    run_dir = run_dirs("older", tiny(total_kimg=0.08))
    train(tiny(total_kimg=0.08), run_dir)
    state = load_state(run_dir / STATE)
    del state["numbers"]
    save_state(run_dir / STATE, state)
    for kimg in (0.16, 0.24):
        prolong(run_dir, kimg)
        assert (run_dir / LOG).read_text().count("made by an older version") == 1


def test_a_run_that_is_being_trained_is_not_resumed_beside_that(tiny, run_dirs) -> None:
    """Whoever tries is told, and disturbs nothing: the run ends as if nobody had."""
    cfg = tiny(total_kimg=0.16)
    straight, run_dir = run_dirs("straight", cfg), run_dirs("shared", cfg)
    train(cfg, straight)
    train(tiny(total_kimg=0.08), run_dir)
    with locked(run_dir):
        before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
        second = CliRunner().invoke(main, ["--resume", str(run_dir), "--kimg", "0.24"])
        assert (second.exit_code, len(second.stderr.splitlines())) == (2, 1) and "another training" in second.stderr
        assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before
    assert CliRunner().invoke(main, ["--resume", str(run_dir)]).exit_code == 0
    assert_same_end(straight, run_dir)
