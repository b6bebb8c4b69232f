"""Is a training well? Each takes a `Context` and what was asked for, and gives its results by name."""

from __future__ import annotations

import numpy as np

from stylegan.projection.distance import PIXELS
from torch_utils.files import write_atomically
from torch_utils.images import encode
from torch_utils.output import writing_to
from training.metrics import diversity, overfitting
from training.metrics import memorisation as nearest
from training.metrics.context import Context
from training.metrics.latent import Results, distance_of, sampling_of
from training.metrics.memorisation import sheet
from training.metrics.request import Request

NEIGHBOURS = 5


def measure_diversity(context: Context, request: Request) -> Results:
    """Of a fixed batch, beside as many reals where there are data; says so where the network has collapsed.

    Of pixels as well, for the alarm: deep features may see differences in what is all the same picture to the eye.
    """
    kinds = {request.title: distance_of(context, request)}
    kinds.setdefault(f"{request.name}-{PIXELS.name}", PIXELS)
    results: Results = {}
    for title, distance in kinds.items():
        found = diversity.diversity(context.snapshot, distance, context.data, request.count, sampling_of(context))
        results |= {title: found.fakes.value, f"{title}_error": found.fakes.error}
        if found.reals is not None:
            results |= {f"{title}_reals": found.reals.value, f"{title}_ratio": found.ratio}
        if found.collapsed:
            context.aids.say(f"Collapsed: pictures differ by {found.ratio:.0%} of what real ones do ({distance.name})")
    return results


def measure_nearest(context: Context, request: Request) -> Results:
    """How near fakes are to training pictures; and a sheet of the nearest."""
    found = nearest.nearest_training(
        context.snapshot, context.reals.archive, context.network.embed, request.count, NEIGHBOURS, sampling_of(context)
    )
    if context.aids.sheets is None:
        context.aids.say("No sheet of the fakes nearest to training pictures; --outdir writes one")
    else:
        path = context.aids.sheets / f"{request.title}-{context.snapshot.kimg:06.0f}.png"
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, encode(sheet(found), "png"))
        context.aids.say(f"The fakes nearest to training pictures: {path}")
    closeness = found.found.closeness
    return {f"{request.title}_share": found.found.share, f"{request.title}_closest": float(closeness.min()),
            f"{request.title}_median": float(np.median(closeness))}  # fmt: skip


def measure_overfitting(context: Context, request: Request) -> Results:
    """What the discriminator makes of pictures trained on, of fakes, and of others held out (--val)."""
    found = overfitting.overfitting(
        context.snapshot, context.reals.archive, context.aids.validation, request.count, sampling_of(context)
    )
    name = request.title
    results = {f"{name}_rt": found.r_t, f"{name}_pairs": found.r_pairs, f"{name}_train": float(found.train.mean()),
               f"{name}_fake": float(found.fake.mean())}  # fmt: skip
    if len(found.validation):
        results |= {f"{name}_rv": found.r_v, f"{name}_rv_error": found.r_v_error,
                    f"{name}_validation": float(found.validation.mean())}  # fmt: skip
    return results
