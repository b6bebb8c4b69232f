"""The snapshots of a run measured as it goes, with the numbers of calc_metrics.py, and the best of them kept."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stylegan.checkpoints.locate import snapshots
from stylegan.checkpoints.snapshot import load_snapshot
from torch_utils.device import GENERATING, gpu_math, pick_device
from torch_utils.errors import UserError
from torch_utils.files import atomic_write
from torch_utils.text import counted
from torch_utils.untrusted import parse_json, read_plain
from training.config import RunConfig
from training.data.archive import Archive
from training.metrics.context import Aids, Context
from training.metrics.evaluate import append, evaluate, table
from training.metrics.feature_store import Compute
from training.metrics.features import NAMES, pick_features, runs_code
from training.metrics.path_length import DISCRIMINATOR
from training.metrics.registry import (
    measure_dci,
    measure_overfitting,
    measure_purity,
    measure_separability,
    parse,
    parse_names,
    require_possible,
)
from training.metrics.requirements import Subject, check_paths

NO_METRICS = "none"
BEST = "best.safetensors"


BY_CLASSIFIER = (measure_separability, measure_dci, measure_purity)
# What a measurement may fail with besides: no memory, or a feature function of the user's own.
TROUBLE = (RuntimeError, ValueError, MemoryError)
Say = Callable[[str], object]


def check_metrics(cfg: RunConfig) -> None:
    """Raises UserError for a metric that is none or takes what there is not, and for a --best that cannot choose."""
    names = names_of(cfg)
    for name in names:
        kind, request = parse(name)
        if kind.measure in BY_CLASSIFIER:
            raise UserError(f"--metrics {name} takes a classifier of attributes; measure it with calc_metrics.py")
        if (kind.measure is measure_overfitting or request.features == DISCRIMINATOR) and not cfg.snap_d:
            raise UserError(f"--metrics {name} takes the discriminator, which --snap-d 0 leaves out; use --snap-d 1")
        try:
            check_paths(request, _full_size(cfg))
        except UserError as error:
            raise UserError(f"--metrics {name}: {error}") from None
    if cfg.best and cfg.best not in names:
        raise UserError(f"--best {cfg.best} is none of --metrics {cfg.metrics}; name it there, too")
    if cfg.best and parse(cfg.best)[0].worse is None:
        raise UserError(f"--best {cfg.best} does not tell better from worse; use one like kid5k_full")


def require_measurable(cfg: RunConfig, device: torch.device) -> None:
    """Raises UserError for validation images and features of one's own that cannot be had or do not fit."""
    if cfg.val and Archive.open(cfg.val).channels != cfg.model.channels:
        raise UserError(f"--val {cfg.val} has images of other channels than the {cfg.model.channels} of --data")
    if names_of(cfg) and runs_code(cfg.features):
        pick_features(cfg.features, device)


def require_no_program(cfg: RunConfig, run_dir: str) -> None:
    """Raises UserError if measuring would run code that only the files of a run ask for, which may be a stranger's."""
    if names_of(cfg) and runs_code(cfg.features):
        raise UserError(
            f"{run_dir} wants to measure with --features {cfg.features}, which is a program, and programs run only "
            "where the command names them; if you trust it, add that option, otherwise --features "
            f"{NAMES[0]} or --metrics {NO_METRICS}"
        )


def require_possible_metrics(cfg: RunConfig) -> None:
    """Raises UserError for metrics that these networks and data cannot have, not even when they have grown."""
    names = names_of(cfg)
    subject = replace(
        _full_size(cfg), reals=len(Archive.open(cfg.data.path, cfg.data.cache)) if names else 0, data=cfg.data.path
    )
    for name in names:
        try:
            require_possible(*parse(name, cfg.features), subject)
        except UserError as error:
            raise UserError(f"--metrics {name}: {error}") from None


def _full_size(cfg: RunConfig) -> Subject:
    """What will be measured in the end, without the data."""
    return Subject(cfg.model, cfg.model.size(cfg.model.resolution), cfg.snap_d)


def names_of(cfg: RunConfig) -> Sequence[str]:
    return [] if cfg.metrics == NO_METRICS else parse_names(cfg.metrics)


def measure_snapshot(
    cfg: RunConfig, path: Path, say: Say, warn: Say, draw: Callable[[Mapping[str, float]], object],
    micro_batch: int | None = None,
) -> None:  # fmt: skip
    """Measure the snapshot at `path` by cfg.metrics, those excepted of which its run already has a line.

    micro_batch: images drawn at once, as many as in training, where more would not fit; the batch if None
    say: takes what is to be read   warn: takes what need not be read twice   draw: takes the numbers, for curves
    A metric that cannot be measured is left out, with a word.
    """
    snapshot = load_snapshot(path, pick_device(cfg.device))
    archive, run_dir = Archive.open(cfg.data.path, cfg.data.cache), path.parent
    compute = Compute(snapshot.device, micro_batch or cfg.growth.batch.at(snapshot.stage.resolution), quiet=True)
    aids = Aids(validation=Archive.open(cfg.val, cfg.data.cache) if cfg.val else None, sheets=run_dir, say=say)
    context = Context(snapshot, archive, cfg.features, compute=compute, file=str(path), aids=aids)
    network = snapshot.fingerprint
    noted_before = {name: noted(cfg, run_dir, name, warn) for name in names_of(cfg)}
    missing = [name for name, lines in noted_before.items() if all(line["network"] != network for line in lines)]
    if missing:
        say(f"Measuring {', '.join(missing)}")
    for name in missing:
        try:
            with gpu_math(GENERATING, snapshot.device):  # with the numbers of calc_metrics.py
                results = list(evaluate([name], context, lambda name, why: warn(f"{name} was skipped: {why}")))
            for result in results:
                append(run_dir, result)
                say(table([result]))
                draw({f"Metrics/{number}": value for number, value in result.results.items()})
        except TROUBLE as error:
            warn(f"{name} was skipped: {(str(error).splitlines() or [type(error).__name__])[0]}")


def keep_best(cfg: RunConfig, run_dir: Path, say: Say) -> None:
    """Copy the snapshot that did best in --best, or in the first metric that can choose, unless that has been done."""
    able = (name for name in names_of(cfg) if parse(name)[0].worse is not None)
    name = cfg.best or next(able, "")
    best = best_line(cfg, run_dir, name) if name else None
    if best is None or _is(run_dir / BEST, best["network"]):
        return
    source = run_dir / Path(best["snapshot_pkl"]).name  # in this directory, whatever the line says
    if _is(source, best["network"]):
        with atomic_write(run_dir / BEST) as scratch:
            shutil.copyfile(source, scratch)
        say(f"{source.name} is the best by {name} so far: {BEST}")


def best_line(cfg: RunConfig, run_dir: Path, name: str) -> dict[str, Any] | None:
    """Of the network that did best in a metric, the first of equals.

    Only of those that had grown as far as any: small images are easier.
    """
    lines, worse = noted(cfg, run_dir, name), parse(name)[0].worse
    if worse is None or not lines:
        return None
    grown = [line for line in lines if line["resolution"] == max(other["resolution"] for other in lines)]
    return min(grown, key=lambda line: worse([*line["results"].values()]))


def noted(cfg: RunConfig, run_dir: Path, name: str, warn: Say = lambda text: None) -> list[dict[str, Any]]:
    """The lines of a metric that were measured as a run measures: with its data, seed 0, in fp32, and no truncation.

    One that a crash cut off, or that is no result, is left out, with a word, and so are those with numbers that are
    none. Raises UserError for a file that cannot be read.
    """
    path = run_dir / f"metric-{parse(name, cfg.features)[1].title}.jsonl"
    as_here = {"data_hash": cfg.data.content_hash, "seed": 0, "psi": 1.0, "mirror": False, "precision": "fp32"}
    try:
        lines = [_result(text) for text in read_plain(path, "table_mib").splitlines() if text.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); move it away, and its snapshots are "
                        "measured again") from None  # fmt: skip
    whole = [line for line in lines if line is not None]
    if len(whole) < len(lines):
        warn(f"{path.name}: {counted(len(lines) - len(whole), 'line')} without a result left out")
    return [line for line in whole
            if as_here.items() <= line.items() and all(map(math.isfinite, line["results"].values()))]  # fmt: skip


def _result(text: bytes) -> dict[str, Any] | None:
    """A line of `evaluate.append`, as far as it is used here; None for anything else."""
    try:
        line = parse_json(text)
        results = {str(name): float(value) for name, value in line["results"].items()}
        words = [line[name] for name in ("network", "snapshot_pkl")]
        fits = results and all(isinstance(word, str) for word in words) and type(line["resolution"]) is int
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None
    return {"precision": "fp32"} | line | {"results": results} if fits else None  # older lines do not name it


def prune(cfg: RunConfig, run_dir: Path) -> None:
    """Delete all but the newest `cfg.keep` snapshots. The best has a file of its own, which stays."""
    for path in snapshots(run_dir)[: -cfg.keep] if cfg.keep else []:
        path.unlink()


def _is(path: Path, network: str) -> bool:
    """Is it a file of that network, and whole?"""
    try:
        return load_snapshot(path).fingerprint == network
    except UserError:
        return False
