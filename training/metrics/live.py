"""The snapshots of a run measured as it goes, with the numbers of calc_metrics.py, and the best of them kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stylegan.bound_file import fingerprint
from stylegan.locate import snapshots
from stylegan.snapshot import load_snapshot
from torch_utils.device import pick_device
from torch_utils.errors import UserError
from training.archive import Archive
from training.config import RunConfig
from training.metrics.aids import Aids
from training.metrics.catalogue import parse, parse_names
from training.metrics.context import Context
from training.metrics.evaluate import append, evaluate, table
from training.metrics.workers import Crew

NO_METRICS = "none"
BEST = "best.safetensors"


def check_metrics(cfg: RunConfig) -> None:
    """Raises UserError for names of no metric, and for a --best that cannot choose."""
    names = [] if cfg.metrics == NO_METRICS else parse_names(cfg.metrics)
    if cfg.best and cfg.best not in names:
        raise UserError(f"--best {cfg.best} is none of --metrics {cfg.metrics}; name it there, too")
    if cfg.best and parse(cfg.best)[0].worse is None:
        raise UserError(f"--best {cfg.best} does not tell better from worse; use one like kid5k_full")


def chooser(cfg: RunConfig) -> str:
    """The metric that chooses the best snapshot, "" if none can."""
    able = (name for name in parse_names(cfg.metrics) if parse(name)[0].worse is not None)
    return cfg.best or next(able, "")


def measure_snapshot(
    cfg: RunConfig, path: Path, say: Callable[[str], object], draw: Callable[[Mapping[str, float]], object]
) -> None:
    """Measure the snapshot at `path` by cfg.metrics, those excepted of which its run already has a line.

    say: takes what is to be read   draw: takes the numbers, for curves
    A metric that cannot be measured is left out, with a word.
    """
    snapshot = load_snapshot(path, pick_device(cfg.device))
    archive, run_dir = Archive.open(cfg.data.path), path.parent
    crew = Crew(snapshot.device, cfg.growth.batch.at(snapshot.resolution), quiet=True)
    aids = Aids(validation=Archive.open(cfg.val) if cfg.val else None, sheets=run_dir, say=say)
    context = Context(snapshot, archive, cfg.features, crew=crew, file=str(path), aids=aids)
    network = fingerprint(snapshot)
    for name in parse_names(cfg.metrics):
        earlier = next((line for line in noted(cfg, run_dir, name) if line["network"] == network), None)
        if earlier is not None:
            draw(_curves(earlier["results"]))
            continue
        for result in evaluate([name], context, lambda name, why: say(f"{name} was skipped: {why}")):
            append(run_dir, result)
            say(table([result]))
            draw(_curves(result.results))
    name = chooser(cfg)
    best = best_network(cfg, run_dir, name) if name else ""
    if best == network:
        _copy(path, run_dir / BEST)
        say(f"The best by {name} so far; kept as {BEST}")


def best_network(cfg: RunConfig, run_dir: Path, name: str) -> str:
    """The fingerprint of the network that did best in a metric, the first of equals, "" if there is none.

    Only of those that had grown as far as any: small pictures are easier.
    """
    lines, worse = noted(cfg, run_dir, name), parse(name)[0].worse
    grown = [line for line in lines if line["resolution"] == max(other["resolution"] for other in lines)]
    found = [] if worse is None else [(worse([*line["results"].values()]), line["network"]) for line in grown]
    return str(min(found, key=lambda entry: entry[0])[1]) if found else ""


def noted(cfg: RunConfig, run_dir: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a metric of this run. One that a crash cut off is left out."""
    path = run_dir / f"metric-{parse(name, cfg.features)[1].title}.jsonl"
    found = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def prune(cfg: RunConfig, run_dir: Path) -> None:
    """Delete all but the newest `cfg.keep` snapshots. The best has a file of its own, which stays."""
    for path in snapshots(run_dir)[: -cfg.keep] if cfg.keep else []:
        path.unlink()


def _curves(results: Mapping[str, float]) -> dict[str, float]:
    return {f"Metrics/{name}": value for name, value in results.items()}


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all."""
    scratch = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, scratch)
    scratch.replace(target)
