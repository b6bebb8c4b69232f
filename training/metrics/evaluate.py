"""Measures a network by several metrics, and keeps a line of each with all that it takes to repeat it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from stylegan.features.lpips import NETS
from torch_utils.download import digest_of
from torch_utils.errors import UserError
from torch_utils.untrusted import regular_here
from training.metrics.context import MISSING, Context, Request
from training.metrics.features import pick_features
from training.metrics.registry import FEATURES, Kind, measure_swd, parse


@dataclass(frozen=True)
class Result:
    """What one metric gave. The first seven are named as the published tools name them.

    num_gpus: processes that shared the work   num_images: fakes drawn   k: neighbours, 0 for none
    aids: the files that it took, and their hashes, and whether it looked at the middle of images only
    """

    results: dict[str, float]
    metric: str
    total_time: float
    total_time_str: str
    num_gpus: int
    snapshot_pkl: str
    timestamp: float
    network: str
    kimg: float
    resolution: int
    features: str
    features_sha256: str
    data: str
    data_hash: str
    num_images: int
    seed: int
    psi: float
    mirror: bool
    k: int
    aids: dict[str, str | bool]


def evaluate(names: Sequence[str], context: Context, skipped: Callable[[str, str], object]) -> Iterator[Result]:
    """Each metric of `names`, as soon as it is known.

    One that cannot be measured, such as FID without Inception, does not keep the others from it: skipped(name, why) is
    called instead, before anything is drawn if it is known by then. Raises UserError for a name that is none, before
    anything is measured.
    """
    contexts: dict[str, Context] = {context.features: context}
    able = []
    for name, (kind, request) in [(name, parse(name, context.features)) for name in names]:
        try:
            require_aids(kind, context)
        except UserError as error:
            skipped(name, str(error))
        else:
            able.append((name, kind, request))
    for name, kind, request in able:
        if kind.lens is FEATURES and request.features not in contexts:
            contexts[request.features] = replace(context, features=request.features, weights=None)
        try:
            found = measure(kind, request, contexts.get(request.features, context))
        except UserError as error:
            skipped(name, str(error))
        else:
            yield found


def measure(kind: Kind, request: Request, context: Context) -> Result:
    """One metric. Raises UserError where it cannot be measured."""
    begun = time.time()
    results = _numbers(kind.measure(context, request), context)
    seconds = time.time() - begun
    features, sha256 = looked_through(kind, request, context)
    snapshot, data = context.snapshot, context.data
    return Result(
        results=results, metric=request.title, total_time=seconds, total_time_str=in_words(seconds),
        num_gpus=context.compute.processes if kind.shared else 1, snapshot_pkl=context.file, timestamp=time.time(),
        network=snapshot.fingerprint, kimg=snapshot.kimg, resolution=snapshot.stage.resolution,
        features=features, features_sha256=sha256,
        data="" if data is None else str(data.path), data_hash="" if data is None else data.content_hash,
        num_images=fakes_of(kind, request, context), seed=context.seed, psi=context.psi, mirror=context.mirror,
        k=request.k, aids=aids_of(kind, context),
    )  # fmt: skip


def fakes_of(kind: Kind, request: Request, context: Context) -> int:
    """How many fakes a metric draws; for purity, how many it moves."""
    if kind.measure is measure_swd and context.data is not None:  # as many as there are reals
        return min(request.count, len(context.data) * (2 if context.mirror else 1))
    return kind.each * request.count


def require_aids(kind: Kind, context: Context) -> None:
    """Raises UserError for a metric without what it needs."""
    aids = context.aids
    there = {"data": context.data, "classifier": aids.classifier or aids.table, "directions": aids.directions}
    for need in kind.needs:
        if there[need] is None:
            raise UserError(MISSING[need])


def aids_of(kind: Kind, context: Context) -> dict[str, str | bool]:
    """What a metric took besides the network and its data, for the records."""
    aids, found = context.aids, dict[str, str | bool]()
    files: dict[str, Path | None] = {}
    if "classifier" in kind.needs:
        files = {"classifier": aids.classifier} if aids.classifier else {"labels": aids.table}
    if "directions" in kind.needs:
        files["directions"] = aids.directions
    for name, path in files.items():
        if path is not None:
            found |= {name: str(path), f"{name}_sha256": digest_of(path, "sha256")}
    if "labels" in found and aids.attributes:
        found["attributes"] = ",".join(map(str, aids.attributes))
    if "val" in kind.uses and aids.validation is not None:
        found |= {"val": str(aids.validation.path), "val_hash": aids.validation.content_hash}
    if "crop" in kind.uses:
        found["crop"] = aids.crop
    return found


def _numbers(results: dict[str, float], context: Context) -> dict[str, float]:
    """Those that are finite. Of the rest, such as the purity of a direction that changes nothing, it is said.

    Raises UserError where the first, which the metric is named after, is among the rest.
    """
    bad = [name for name, value in results.items() if not math.isfinite(value)]
    if bad and bad[0] == next(iter(results)):
        raise UserError(f"{bad[0]} is not a number; the network is broken, or these images are too few or all alike")
    if bad:
        context.aids.say(f"Not a number, and left out: {', '.join(bad)}")
    return {name: value for name, value in results.items() if name not in bad}


def looked_through(kind: Kind, request: Request, context: Context) -> tuple[str, str]:
    """The name of the feature network or distance and the hash of its weights, both "" where there is none."""
    if kind.lens is FEATURES:
        return context.network.name, context.network.sha256
    weights = pick_features(request.features, torch.device("cpu")).sha256 if request.features in NETS else ""
    return request.features, weights


def append(folder: Path, result: Result) -> Path:
    """Add a line to `metric-NAME.jsonl`, in one piece. Raises UserError if it cannot be written."""
    path = folder / f"metric-{result.metric}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0, opener=regular_here) as file:
            file.write((json.dumps(asdict(result)) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --outdir") from error
    return path


def in_words(seconds: float) -> str:
    """A length of time: "45s", "3m 05s", "1h 12m 40s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole // 60 % 60:02d}m {whole % 60:02d}s"


def table(results: Sequence[Result]) -> str:
    """For the terminal: a line for each number."""
    rows = [(name, f"{value:.5g}", found.total_time_str) for found in results for name, value in found.results.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
    return "\n".join(
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {seconds:>{widths[2]}}" for name, value, seconds in rows
    )
