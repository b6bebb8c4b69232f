"""The growth that fits into a given time. Pure: what the parts of a run cost comes from `training.runs.speed_probe`.

Every phase keeps its share of the images; how many there are in all follows from the time. The plan becomes numbers of
the configuration before the first step, so that a run in a given time is an ordinary run: it grows by images seen, and
resumes to the last bit. The clock has one say, in the loop: a run that is late ends before its last image. That leaves
every step before as it was, and `--resume RUNDIR --kimg N` makes up for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch_utils.errors import UserError
from training.config import RunConfig
from training.runs.live_metrics import NO_METRICS
from training.runs.plan import duration
from training.schedule import PerResolution, Phase

MIN_STEPS = 20  # of a phase: with fewer, nothing is learned in it
LATE = 1.04  # of the hours asked for: then a run ends at the clock; with the last save, that is within 5 %
LONGEST = 1e9  # times the preset's images; no machine gets there


@dataclass(frozen=True)
class Costs:
    """What the parts of a run take on this machine, in seconds.

    step: of training, by resolution, with its data and its share of the lazy penalties   fakes: the grid of a tick
    save: a snapshot and the state   frame: one image of growth.webp   metrics: all of --metrics, of one snapshot
    reals: of the metrics, what is needed once for each resolution   begin: networks and first images
    launch: processes, until they begin
    """

    step: Mapping[int, float]
    fakes: Mapping[int, float]
    save: float = 0.0
    frame: float = 0.0
    metrics: float = 0.0
    reals: float = 0.0
    begin: float = 0.0
    launch: float = 0.0

    def images_per_second(self, cfg: RunConfig, resolution: int) -> float:
        return cfg.growth.batch.at(resolution) / self.step[resolution]


def plan(cfg: RunConfig, costs: Costs, seconds: float) -> RunConfig:
    """`cfg` with the growth that takes `seconds`, as nearly as whole steps allow, and not more.

    seconds: what is left of cfg.hours. The run will be ended if it is not done after LATE times the hours.
    Raises UserError, which names the least time, if that is too little.
    """
    assert cfg.hours is not None
    gone = 3600 * cfg.hours - seconds
    least = sum(parts(scaled(cfg, 0.0), costs).values())
    if least > seconds:
        raise UserError(
            f"--hours {cfg.hours:g} is too little: {duration(gone)} went by before training, and {MIN_STEPS} steps in "
            f"each phase take {duration(least)} with all that is saved; give at least {_hours(least + gone)}"
        )
    low, high = 0.0, 1.0
    while sum(parts(scaled(cfg, high), costs).values()) <= seconds and high < LONGEST:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        fits = sum(parts(scaled(cfg, middle), costs).values()) <= seconds
        low, high = (middle, high) if fits else (low, middle)
    planned = scaled(cfg, low)
    end = _snapshot(planned, costs, _ticks(planned, planned.growth.phases(planned.total_kimg)))
    return replace(planned, time_limit=round(LATE * 3600 * cfg.hours - gone - costs.launch - end, 3))


def _hours(seconds: float) -> str:
    """Rounded up to two digits that count."""
    hours, unit = 1.02 * seconds / 3600, 1.0  # the next try will not be measured to be exactly the same
    while hours < 10 * unit:
        unit /= 10
    return f"{(int(hours / unit) + 1) * unit:.6g}"


def scaled(cfg: RunConfig, factor: float) -> RunConfig:
    """`cfg` with all its phases `factor` times as long, in whole steps and no less than MIN_STEPS of them.

    Phases of no length stay out, and those that are not reached as well.
    """
    growth = cfg.growth
    lengths: dict[tuple[str, int], float] = {}
    for phase in growth.phases(cfg.total_kimg):
        batch = growth.batch.at(phase.resolution)
        steps = max(MIN_STEPS, round(factor * 1000 * (phase.end_kimg - phase.start_kimg) / batch))
        lengths[phase.kind, phase.resolution] = steps * batch / 1000

    def table(kind: str, kimg: PerResolution[float]) -> PerResolution[float]:
        found = {r: lengths.get((kind, r), factor * kimg.at(r)) for r in growth.resolutions}
        return PerResolution(found.pop(growth.final), found)

    stable, fade = table("stable", growth.stable_kimg), table("fade", growth.fade_kimg)
    total = round(1000 * sum(lengths.values())) / 1000
    growth = replace(
        growth, stable_kimg=stable, fade_kimg=fade,
        anneal_from=factor * growth.anneal_from, anneal_kimg=factor * growth.anneal_kimg,
    )  # fmt: skip
    return replace(cfg, growth=growth, total_kimg=total)


def parts(cfg: RunConfig, costs: Costs) -> dict[str, float]:
    """Seconds of a whole run of `cfg`, by what they are spent on."""
    spent = {"start": costs.launch + costs.begin, "training": 0.0, "images": 0.0, "snapshots": 0.0, "metrics": 0.0}
    ticks, measured = 0.0, {cfg.growth.final}  # the reals of the final resolution are known from the trial
    for phase in cfg.growth.phases(cfg.total_kimg):
        resolution, before = phase.resolution, ticks
        here = _ticks(cfg, [phase])
        ticks += here
        images = 1000 * (phase.end_kimg - phase.start_kimg)
        spent["training"] += images / costs.images_per_second(cfg, resolution)
        spent["images"] += here * costs.fakes[resolution]
        spent["snapshots"] += here / cfg.snap * costs.save + here * costs.frame
        if cfg.metrics != NO_METRICS:
            spent["metrics"] += here / cfg.snap * costs.metrics
            if int(ticks / cfg.snap) > int(before / cfg.snap) and resolution not in measured:
                measured.add(resolution)
                spent["metrics"] += costs.reals
    spent["snapshots"] += _snapshot(cfg, costs, ticks) - costs.metrics
    spent["metrics"] += costs.metrics
    return {name: seconds for name, seconds in spent.items() if seconds}


def _ticks(cfg: RunConfig, phases: list[Phase]) -> float:
    """About how many status lines fall into the phases. None is shorter than a step."""
    growth = cfg.growth
    return sum(
        (phase.end_kimg - phase.start_kimg)
        / max(cfg.tick_kimg.at(phase.resolution), growth.batch.at(phase.resolution) / 1000)
        for phase in phases
    )


def _snapshot(cfg: RunConfig, costs: Costs, ticks: float) -> float:
    """Of the last snapshot: it, the frames of its film that are new, and its metrics."""
    return costs.save + costs.frame * min(cfg.snap, ticks) + costs.metrics


def budget_lines(cfg: RunConfig, costs: Costs) -> list[str]:
    """How the time of a planned run is spent, in words."""
    assert cfg.hours is not None
    spent = parts(cfg, costs)
    gone = 3600 * cfg.hours - sum(spent.values())
    listed = [f"{duration(gone)} went by before", *(f"{name} {duration(seconds)}" for name, seconds in spent.items())]
    speeds = [f"{resolution}: {costs.images_per_second(cfg, resolution):.3g}" for resolution in costs.step]
    return [
        f"Planned for {cfg.hours:g} h: {cfg.total_kimg:g} kimg ({', '.join(listed)})",
        f"Measured, in images per second at a resolution: {', '.join(speeds)}",
        f"If this machine slows down, the run ends by the clock, at most {LATE - 1:.0%} late.",
    ]
