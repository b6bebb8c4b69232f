"""Metrics of picture quality: each takes a `Context` and what was asked for, and gives its results by name."""

from __future__ import annotations

from training.metrics.context import Context
from training.metrics.image_stats import levels, mean_and_error, sliced_wasserstein
from training.metrics.quality import agreement, frechet_distance, inception_score, kid, moments, require_enough
from training.metrics.request import Request

Results = dict[str, float]


def measure_fid(context: Context, request: Request) -> Results:
    """Raises UserError where a covariance cannot be had of so few pictures."""
    dims = context.network.dims
    require_enough(request.count, dims, "fakes", request.name)
    wanted = context.reals.limit if request.whole else min(request.count, context.reals.limit)
    require_enough(wanted, dims, "reals", request.name)
    reals = moments(context.of_reals(wanted))
    return {request.title: frechet_distance(reals, moments(context.of_fakes(request.count)))}


def measure_kid(context: Context, request: Request) -> Results:
    reals = context.of_reals(None if request.whole else request.count)
    value, error = kid(reals, context.of_fakes(request.count), context.seed)
    name = request.title
    return {name: value, f"{name}_error": error}


def measure_precision_recall(context: Context, request: Request) -> Results:
    reals = context.of_reals(None if request.whole else request.count)
    found = agreement(reals, context.of_fakes(request.count), request.k)
    name = request.title
    return {f"{name}_precision": found.precision, f"{name}_recall": found.recall}


def measure_density_coverage(context: Context, request: Request) -> Results:
    reals = context.of_reals(None if request.whole else request.count)
    found = agreement(reals, context.of_fakes(request.count), request.k)
    name = request.title
    return {f"{name}_density": found.density, f"{name}_coverage": found.coverage}


def measure_inception_score(context: Context, request: Request) -> Results:
    mean, spread = inception_score(context.of_fakes(request.count, "probabilities"))
    name = request.title
    return {f"{name}_mean": mean, f"{name}_std": spread}


def measure_swd(context: Context, request: Request) -> Results:
    """Of as many reals as fakes, and so of no more than there are. The mean over levels, and each of them."""
    reals = context.of_reals(request.count, "patches")
    fakes = context.of_fakes(len(reals), "patches")
    found = sliced_wasserstein(reals, fakes, context.snapshot.config.channels, context.seed)
    names = [f"{request.name}_{height}" for height in levels(*context.reals.size)]
    return {request.name: sum(found) / len(found), **dict(zip(names, found, strict=True))}


def measure_ms_ssim(context: Context, request: Request) -> Results:
    """Of `count` pairs, so twice as many fakes."""
    pairs = context.of_fakes(2 * request.count, "pairs")[0 : 2 * request.count][::2, 0]
    mean, error = mean_and_error(pairs)
    return {request.title: mean, f"{request.title}_error": error}
