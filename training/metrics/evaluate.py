"""Measures a network by several metrics, and keeps a line of each with all that it takes to repeat it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.features.lpips import NETS
from torch_utils.download import digest_of
from torch_utils.errors import UserError
from torch_utils.untrusted import regular_here
from training.data.archive import Archive
from training.metrics.context import MISSING, Context, Request
from training.metrics.features import pick_features
from training.metrics.registry import FEATURES, Kind, compares, parse, reals_of, require_possible
from training.metrics.requirements import subject_of


@dataclass(frozen=True)
class Result:
    """What one metric gave. The first seven are named as the published tools name them.

    num_gpus: processes that shared the work   num_images: fakes   num_reals: real images, 0 for none
    k: neighbours, 0 for none   c: the class, None for all together   fakes_hash: of images in files, see `Archive`
    class_name: where the data has names
    aids: the files that it took, and their hashes, and whether it looked at the middle of images only
    precision: in which the fakes were generated
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
    num_reals: int
    seed: int
    psi: float
    mirror: bool
    k: int
    aids: dict[str, str | bool]
    c: int | None = None
    class_name: str = ""
    fakes_hash: str = ""
    precision: str = "fp32"


def evaluate(names: Sequence[str], context: Context, skipped: Callable[[str, str], object]) -> Iterator[Result]:
    """Each metric of `names`, as soon as it is known.

    One that cannot be measured, such as FID without Inception, does not keep the others from it: skipped(name, why) is
    called instead, before anything is drawn if it is known by then. Raises UserError for a name that is none, before
    anything is measured.
    """
    contexts: dict[str, Context] = {context.features: context}
    asked = {name: parse(name, context.features) for name in names}
    unable = dict(refused(names, context))
    for name, reason in unable.items():
        skipped(name, reason)
    for name, (kind, request) in asked.items():
        if name in unable:
            continue
        if kind.lens is FEATURES and request.features not in contexts:
            contexts[request.features] = replace(context, features=request.features, weights=None)
        try:
            found = measure(kind, request, contexts.get(request.features, context))
        except UserError as error:
            skipped(name, str(error))
        else:
            yield found


def refused(names: Sequence[str], context: Context) -> Iterator[tuple[str, str]]:
    """The metrics that cannot be measured, each with the reason, as far as it is known before anything is drawn."""
    for name in names:
        kind, request = parse(name, context.features)
        try:
            require_aids(kind, context)
            require_possible(kind, request, subject_of(context))
        except UserError as error:
            yield name, str(error)


def measure(kind: Kind, request: Request, context: Context) -> Result:
    """One metric. Raises UserError where it cannot be measured."""
    begun, together = time.time(), request.title
    if context.c is not None:
        together, request = f"{together}-perclass", replace(request, title=f"{request.title}-class{context.c}")
    results = _numbers(kind.measure(context, request), context)
    seconds = time.time() - begun
    features, sha256 = looked_through(kind, request, context)
    source, data = context.source, context.data
    return Result(
        results=results, metric=together, total_time=seconds, total_time_str=in_words(seconds),
        num_gpus=context.compute.processes if kind.shared else 1, snapshot_pkl=context.file, timestamp=time.time(),
        network=source.fingerprint if isinstance(source, Snapshot) else "",
        kimg=source.kimg if isinstance(source, Snapshot) else 0.0, resolution=max(context.size),
        features=features, features_sha256=sha256,
        data="" if data is None else str(data.path), data_hash="" if data is None else data.content_hash,
        num_images=fakes_of(kind, request), num_reals=reals_of(kind, request, subject_of(context)),
        seed=context.seed, psi=context.psi, mirror=context.mirror, k=request.k,
        aids=aids_of(kind, context), c=context.c,
        class_name=name_of_class(context, context.c),
        fakes_hash=source.content_hash if isinstance(source, Archive) else "",
        precision=source.execution.precision if isinstance(source, Snapshot) else "fp32",
    )  # fmt: skip


# Classes by themselves


def classes_to_measure(context: Context) -> tuple[list[int], list[int]]:
    """The classes that both sides have, and those that only one has.

    Raises UserError for a side without classes, and where a class has two names.
    """
    source, data = context.source, context.data
    sides: list[set[int]] = []
    named: list[tuple[object, Sequence[str]]] = []
    if isinstance(source, Snapshot):
        if not source.config.num_classes:
            raise UserError("--per-class: this network is unconditional and has no classes; leave the option out")
        sides.append(set(range(source.config.num_classes)))
        named.append(("this network", source.class_names))
    for archive in (source, data):
        if not isinstance(archive, Archive):
            continue
        if archive.labels is None:
            raise UserError(
                f"--per-class: {archive.path} has no labels; give images of classes, or leave the option out"
            )
        sides.append(set(np.unique(archive.labels).tolist()))
        named.append((archive.path, archive.class_names or ()))
    for number, (one, other) in enumerate(zip(named[0][1], named[-1][1], strict=False)):
        if one != other:
            sides_named = f"{one} in {named[0][0]} and {other} in {named[-1][0]}"
            raise UserError(f"--per-class: class {number} is {sides_named}; give images of the same classes")
    both = set.intersection(*sides)
    if not both:
        raise UserError("--per-class: the two sides have no class in common; give others")
    return sorted(both), sorted(set.union(*sides) - both)


def name_of_class(context: Context, c: int | None) -> str:
    """The name that the data or the images in files have for a class; "" if none has one."""
    for side in (context.data, context.source):
        names = (side.class_names if side is not None else None) or ()
        if c is not None and c < len(names):
            return names[c]
    return ""


def worst_first(results: Sequence[Result]) -> str:
    """For the terminal: the classes by each metric that tells better from worse, "" where there are not several."""
    lines: list[str] = []
    for metric in dict.fromkeys(result.metric for result in results):
        own = [result for result in results if result.metric == metric]
        worse = parse(metric.partition("-")[0])[0].worse
        if worse is None or len(own) < 2:
            continue
        own.sort(key=lambda result: -worse([*result.results.values()]))
        names = [" ".join(dict.fromkeys([str(result.c), result.class_name])).strip() for result in own]
        numbers = ["  ".join(f"{value:.5g}" for value in result.results.values()) for result in own]
        width = max(map(len, names))
        lines += [f"Classes by {metric.removesuffix('-perclass')}, the worst first:"]
        lines += [f"  {name:<{width}}  {number}" for name, number in zip(names, numbers, strict=True)]
    return "\n".join(lines)


# How many images, and which files


def fakes_of(kind: Kind, request: Request) -> int:
    """How many fakes a metric takes; for purity, how many it moves."""
    return kind.each * request.count


def require_aids(kind: Kind, context: Context) -> None:
    """Raises UserError for a metric without what it needs, and of one class where it looks at all of the data."""
    aids = context.aids
    if context.c is not None and compares(kind) and not kind.shared:
        raise UserError("it compares with all classes; leave --per-class out")
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
    """For the terminal: a line for each number, with the time, and how many images it is of."""
    rows = [
        (name, f"{value:.5g}", found.total_time_str, images_of(found))
        for found in results for name, value in found.results.items()
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
    return "\n".join(
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {seconds:>{widths[2]}}  {images}"
        for name, value, seconds, images in rows
    )


def images_of(found: Result) -> str:
    """ "500 generated, 3000 real" """
    return f"{found.num_images} generated" + (f", {found.num_reals} real" if found.num_reals else "")
