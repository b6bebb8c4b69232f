"""What the parts of a run cost here and now, found by doing each of them a few times with networks to throw away.

Everything is as it will be in the run: its data, its batches, its number format, its threads and its processes.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from stylegan.networks.config import Stage
from torch_utils.distributed import SINGLE_PROCESS, DistContext, all_reduce_max, broadcast_from_rank0, on_rank0
from torch_utils.settings import from_plain, to_plain
from torch_utils.text import say
from training.config import RunConfig
from training.data.dataset import Dataset
from training.loop import labels_on, next_reals, open_data, set_up
from training.runs.checkpointing import disk_trouble, save_networks
from training.runs.hours import Costs
from training.runs.live_metrics import NO_METRICS, measure_snapshot
from training.runs.processes import process, train_in_processes
from training.runs.report import growth_frame, save_fakes, save_film, save_reals
from training.schedule import TrainingStage
from training.state import TrainState, fresh_state
from training.step import train_step

SECONDS, SHARE = 5.0, 0.05  # for each resolution, but no more than this share of the hours
FRAMES = 4  # of a film to learn what one of them costs
COSTS = "costs.json"
CPU = torch.device("cpu")  # where files are written, whatever has made their contents


@dataclass(frozen=True)
class Sample:
    """A kind of step. nimg: of one with, or without, penalties   weight: its share among the steps at its resolution"""

    stage: TrainingStage
    nimg: int
    weight: float


def costs_of(cfg: RunConfig) -> Costs:
    """What a run of `cfg` costs, with as many processes as it will have. Takes some seconds for each resolution.

    Raises UserError for bad data, a full disk, and a process that was lost.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), time.perf_counter()
        if cfg.gpus == 1:
            try_out(cfg, folder)
            return read_costs(folder)
        train_in_processes(replace(cfg, max_restarts=0), folder, False, None, trial_process)
        costs = read_costs(folder)
        return replace(costs, launch=time.perf_counter() - begin - costs.launch)


def trial_process(
    cfg: RunConfig, folder: Path, resume: bool, init_from: str | None, notes: Path, launcher: Connection
) -> int:
    """One of the processes."""
    return process(cfg, folder, resume, init_from, notes, launcher, try_out)


def costs_in_group(cfg: RunConfig, dist: DistContext, began: float) -> tuple[Costs, float]:
    """The same, asked by all processes of a group that another launcher has started; and the seconds since `began`.

    All get the same answer, after a restart as well.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try_out(cfg, folder, dist=dist)

        def find() -> str:
            costs = replace(read_costs(folder), launch=0.0)
            return json.dumps([to_plain(costs), time.perf_counter() - began])

        costs, gone = json.loads(broadcast_from_rank0(dist, "the costs", find))
    return from_plain(Costs, costs), gone


def try_out(
    cfg: RunConfig, folder: Path, resume: bool = False, init_from: str | None = None, dist: DistContext = SINGLE_PROCESS
) -> None:
    """Process 0 writes the `Costs` to `folder`, `launch` being the seconds that this took. Called as `train` is."""
    began = time.perf_counter()
    device, dtype, _ = set_up(cfg, dist)
    data = open_data(cfg, dist.rank == 0)
    state = fresh_state(cfg, device)
    ready = time.perf_counter() - began
    step = step_seconds(state, cfg, data, dtype, dist)

    def finish() -> None:
        with disk_trouble(folder):
            costs = costs_besides(state, cfg, folder, data)
            spent = time.perf_counter() - began if cfg.gpus > 1 else 0.0
            costs = replace(costs, step=step, begin=costs.begin + ready, launch=spent)
            (folder / COSTS).write_text(json.dumps(to_plain(costs)))

    on_rank0(dist, "the trial of saving", finish)
    if device.type == "cuda":
        del state
        torch.cuda.empty_cache()


def read_costs(folder: Path) -> Costs:
    return from_plain(Costs, json.loads((folder / COSTS).read_text()))


def step_seconds(
    state: TrainState, cfg: RunConfig, data: Dataset, dtype: torch.dtype, dist: DistContext
) -> dict[int, float]:  # fmt: skip
    """Of a step, by resolution: the mean over its fade and the time it is held, with and without lazy penalties.

    All kinds of steps take turns, so that other work on the machine slows each of them alike. All processes count the
    same steps, and the slowest process has the word.
    """
    samples = list(samples_of(cfg))
    device = next(state.G.parameters()).device
    labels = labels_on(data, cfg, device)
    limit = min(SECONDS * len(cfg.growth.resolutions), SHARE * 3600 * (cfg.hours or 1.0))

    def step(sample: Sample, turn: int) -> None:
        stage = sample.stage
        state.nimg = sample.nimg + turn * cfg.loss.r1_interval * stage.batch
        train_step(state, next_reals(data, state.nimg, stage, cfg, device, dist), stage, cfg, labels, dtype, dist)

    for sample in samples:  # to warm up
        step(sample, 0)
    sums, rounds, begin = [0.0] * len(samples), 0, time.perf_counter()
    while rounds == 0 or _agreed(dist, time.perf_counter() - begin) < limit:
        rounds += 1
        for index, sample in enumerate(samples):
            sums[index] += _timed(lambda: step(sample, rounds), device)  # noqa: B023
    means = [_agreed(dist, total / rounds) for total in sums]
    seconds = dict.fromkeys(cfg.growth.resolutions, 0.0)
    for sample, mean in zip(samples, means, strict=True):
        seconds[sample.stage.resolution] += sample.weight * mean
    return seconds


def _agreed(dist: DistContext, seconds: float) -> float:
    """The most of all processes."""
    return all_reduce_max(dist, "seconds", round(1e9 * seconds)) / 1e9


def _timed(work: Callable[[], object], device: torch.device = CPU) -> float:
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def samples_of(cfg: RunConfig) -> Iterator[Sample]:
    """Every kind of step there is at each resolution; the weights of each resolution add up to 1.

    A resolution that the preset does not reach is taken as held.
    """
    growth, interval = cfg.growth, cfg.loss.r1_interval
    penalties = [(0, 1 / interval), (1, 1 - 1 / interval)]
    for resolution in growth.resolutions:
        phases = [phase for phase in growth.phases(cfg.total_kimg) if phase.resolution == resolution]
        kimg = {0.5 if phase.kind == "fade" else 1.0: phase.end_kimg - phase.start_kimg for phase in phases} or {
            1.0: 1.0
        }
        for alpha, length in kimg.items():
            batch = growth.batch.at(resolution)
            stage = TrainingStage(resolution, alpha, phase=0, batch=batch, lr=growth.lr.at(resolution))
            for number, share in penalties:
                if share:
                    yield Sample(stage, number * batch, share * length / sum(kimg.values()))


def costs_besides(state: TrainState, cfg: RunConfig, folder: Path, data: Dataset) -> Costs:
    """All costs but those of steps; `begin` is that of the first images. Leaves files in `folder`."""
    fakes = {}
    for resolution in cfg.growth.resolutions:
        path = folder / f"fakes{resolution:06d}.png"
        save_fakes(path, state.G_ema, Stage(resolution))  # to warm up
        fakes[resolution] = _timed(lambda: save_fakes(path, state.G_ema, Stage(resolution)))  # noqa: B023
    reals = _timed(lambda: save_reals(folder / "reals.png", data, cfg.model))
    film = _timed(lambda: save_film(folder / "film.webp", [path] * FRAMES, *growth_frame(cfg.model)))
    state_s = _timed(lambda: state.save(folder / "state.pt", cfg, folder / "state.previous.pt"))
    snapshot = folder / "network-snapshot-000000.safetensors"
    final = cfg.growth.final
    last = TrainingStage(final, phase=0, batch=cfg.growth.batch.at(final), lr=0.0)
    snapshot_s = _timed(lambda: save_networks(snapshot, state, cfg, last))
    first, again = _metric_seconds(state, cfg, snapshot, last)
    return Costs(
        {}, fakes, state_s + snapshot_s, film / FRAMES, again, max(0.0, first - again),
        begin=reals + fakes[cfg.growth.initial] + state_s,
    )  # fmt: skip


def _metric_seconds(state: TrainState, cfg: RunConfig, snapshot: Path, stage: TrainingStage) -> tuple[float, float]:
    """Of all --metrics: the first time, which also looks at the reals, and when these are known."""
    if cfg.metrics == NO_METRICS:
        return 0.0, 0.0
    say(f"Measuring {cfg.metrics} twice, to know how long it takes")
    times = []
    for _ in range(2):
        with torch.no_grad():  # another network, of which nothing is known yet
            next(iter(state.G_ema.parameters())).mul_(1.001)
        save_networks(snapshot, state, cfg, stage)
        times.append(_timed(lambda: measure_snapshot(cfg, snapshot, _hush, print, _hush)))
    return times[0], times[1]


def _hush(said: object) -> None:
    """Of a network to throw away, nobody wants to know."""
