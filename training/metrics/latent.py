"""Metrics of latents: each takes a `Context` and what was asked for, and gives its results by name."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stylegan.editing.directions import load_directions
from stylegan.projection.distance import Distance, pick_distance
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.attributes import AttributeClassifier
from training.metrics import latent_structure as factors
from training.metrics import latent_structure as purity
from training.metrics import path_length, separability
from training.metrics.aids import judge_of
from training.metrics.context import Context
from training.metrics.images import AT_ONCE, Sampling, fakes_at
from training.metrics.request import Request

Results = dict[str, float]


def measure_path_length(context: Context, request: Request) -> Results:
    """Of paths in z or w, full or at their ends. Raises UserError where the distance is not to be had."""
    paths = path_length.paths_of(f"ppl_{request.part}", request.features, context.aids.crop)
    found = path_length.path_length(
        context.snapshot, distance_of(context, request), request.count, paths, sampling_of(context)
    )
    return {request.title: found.value, f"{request.title}_error": found.error}


def measure_separability(context: Context, request: Request) -> Results:
    """In z and in w, as published and of held-out samples; and the bits of each attribute."""
    found = separability.separability(context.snapshot, _judge(context), request.count, sampling_of(context))
    context.aids.say("\n".join(separability.in_lines(found)))
    results: Results = {}
    for space, one in found.spaces.items():
        results |= {f"{request.title}_{space}": one.score, f"{request.title}_{space}_heldout": one.held_out_score}
    for space, one in found.spaces.items():
        for name, bits, held_out in zip(found.names, one.entropies, one.held_out, strict=True):
            results |= {f"bits_{space}_{name}": float(bits), f"bits_{space}_{name}_heldout": float(held_out)}
    return results


def measure_purity(context: Context, request: Request) -> Results:
    """Of the directions of a file, each by its own attribute."""
    path = context.aids.directions
    if path is None:
        raise UserError("it takes directions: give --directions FILE of directions.py find")
    directions = load_directions(path, context.snapshot)
    found = purity.purity(context.snapshot, directions, _judge(context), request.count, sampling=sampling_of(context))
    context.aids.say("\n".join(purity.in_lines(found)))
    scores = {
        f"{request.title}_{name}": float(score) for name, score in zip(found.directions, found.scores, strict=True)
    }
    return {request.title: float(np.nanmean(found.scores)), **scores}


def measure_dci(context: Context, request: Request) -> Results:
    """Of z and of w, the classifier's answers taken for the factors."""
    snapshot, judge, sampling = context.snapshot, _judge(context), sampling_of(context)
    spaces: dict[str, list[Tensor]] = {"z": [], "w": []}
    answers = []
    with Progress("Judging pictures", request.count, quiet=sampling.quiet) as bar:
        for start in range(0, request.count, AT_ONCE):
            pictures = fakes_at(snapshot, sampling, range(start, min(start + AT_ONCE, request.count)))
            spaces["z"].append(pictures.z)
            spaces["w"].append(pictures.w)
            answers.append(judge.values(pictures.images.to(snapshot.device)).double().cpu())
            bar.advance(len(pictures.z))
    results: Results = {}
    for space, codes in spaces.items():
        found = factors.dci(torch.cat(codes).double().numpy(), torch.cat(answers).numpy(), quiet=sampling.quiet)
        results |= {
            f"{request.title}_{space}_disentanglement": found.disentanglement,
            f"{request.title}_{space}_completeness": found.completeness,
            f"{request.title}_{space}_informativeness": float(found.informativeness.mean()),
        }
    return results


def sampling_of(context: Context) -> Sampling:
    """How the network is sampled, with the classes of the data."""
    labels = None if context.data is None else context.data.labels
    return Sampling(context.seed, context.psi, batch=context.crew.batch, labels=labels, quiet=context.crew.quiet)


def _judge(context: Context) -> AttributeClassifier:
    return judge_of(context.aids, context.data, context.snapshot.device)


def distance_of(context: Context, request: Request) -> Distance:
    """Raises UserError where its weights are not to be had, and names the way without."""
    try:
        return pick_distance(request.features, context.snapshot)
    except UserError as error:
        if request.features == path_length.DISCRIMINATOR:
            raise
        raise UserError(f"{error}; {request.name}-{path_length.DISCRIMINATOR} needs none") from error
