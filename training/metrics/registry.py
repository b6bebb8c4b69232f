"""Which metrics there are, by name; to add one, add a line to KINDS.

Each is a function of a `Context` and a `Request`, and returns its results by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from stylegan.editing.directions import load_directions
from stylegan.projection.distance import PIXELS, Distance, pick_distance
from stylegan.projection.settings import DISTANCES
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.images import encode
from torch_utils.output import writing_to
from torch_utils.text import MAX_COUNT, counted, shortened
from training.metrics import requirements
from training.metrics.context import MISSING, Context, Request
from training.metrics.discriminator import overfitting
from training.metrics.diversity import diversity
from training.metrics.features import DEFAULT, NAMES, short_name
from training.metrics.image_stats import levels, mean_and_error, sliced_wasserstein
from training.metrics.latent_structure import dci, purity, purity_table
from training.metrics.memorisation import nearest_training, sheet
from training.metrics.path_length import DISCRIMINATOR, PUBLISHED, path_length, paths_of
from training.metrics.quality import SPLITS, agreement, frechet_distance, inception_score, kid, moments, require_enough
from training.metrics.requirements import NEIGHBOURS, Check, Subject, anything_goes
from training.metrics.separability import classified, separability, separability_table

Results = dict[str, float]
Measure = Callable[[Context, Request], Results]


# Metrics of quality: images compared with the data, or with each other


def measure_fid(context: Context, request: Request) -> Results:
    """Raises UserError where a covariance cannot be had of so few images."""
    wanted = context.reals.limit if request.whole else request.count
    for count, whose in ((request.count, "fakes"), (wanted, "reals")):
        require_enough(count, context.network.dims, whose, request.name)
    reals = moments(context.of_reals(wanted))
    return {request.title: frechet_distance(reals, moments(context.of_fakes(request.count)))}


def measure_kid(context: Context, request: Request) -> Results:
    reals = context.of_reals(None if request.whole else request.count)
    value, error = kid(reals, context.of_fakes(request.count), context.seed)
    return {request.title: value, f"{request.title}_error": error}


def measure_agreement(context: Context, request: Request, parts: Sequence[str]) -> Results:
    """parts: which fields of `Agreement`."""
    reals = context.of_reals(None if request.whole else request.count)
    found = agreement(reals, context.of_fakes(request.count), request.k)
    return {f"{request.title}_{part}": getattr(found, part) for part in parts}


measure_precision_recall = partial(measure_agreement, parts=("precision", "recall"))
measure_density_coverage = partial(measure_agreement, parts=("density", "coverage"))


def measure_inception_score(context: Context, request: Request) -> Results:
    mean, spread = inception_score(context.of_fakes(request.count, "probabilities"))
    return {f"{request.title}_mean": mean, f"{request.title}_std": spread}


def measure_swd(context: Context, request: Request) -> Results:
    """Of as many reals as fakes. The mean over levels, and each of them."""
    reals = context.of_reals(request.count, "patches")
    fakes = context.of_fakes(request.count, "patches")
    found = sliced_wasserstein(reals, fakes, context.reals.archive.channels, context.seed)
    names = [f"{request.title}_{height}" for height in levels(*context.reals.size)]
    return {request.title: sum(found) / len(found), **dict(zip(names, found, strict=True))}


def measure_ms_ssim(context: Context, request: Request) -> Results:
    """Of `count` pairs, so twice as many fakes."""
    pairs = context.of_fakes(2 * request.count, "pairs")[0 : 2 * request.count][::2, 0]
    mean, error = mean_and_error(pairs)
    return {request.title: mean, f"{request.title}_error": error}


# Metrics of latents


def measure_path_length(context: Context, request: Request) -> Results:
    """Of paths in z or w, full or at their ends. Raises UserError where the distance is not to be had."""
    paths = paths_of(request.part, request.features, context.aids.crop)
    found = path_length(context.snapshot, distance_of(context, request), request.count, paths, context.sampling)
    return {request.title: found.value, f"{request.title}_error": found.error}


def measure_separability(context: Context, request: Request) -> Results:
    """In z and in w, as published and of held-out samples; and the bits of each attribute."""
    found = separability(context.snapshot, context.classifier, request.count, context.sampling)
    context.aids.say("\n".join(separability_table(found)))
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
        raise UserError(MISSING["directions"])
    directions = load_directions(path, context.snapshot)
    classifier, sampling = context.classifier, context.sampling
    found = purity(context.snapshot, directions, classifier, request.count, sampling)
    context.aids.say("\n".join(purity_table(found)))
    scores = {
        f"{request.title}_{name}": float(score) for name, score in zip(found.directions, found.scores, strict=True)
    }
    return {request.title: float(np.nanmean(found.scores)), **scores}


def measure_dci(context: Context, request: Request) -> Results:
    """Of z and of w, the classifier's answers taken for the factors."""
    spaces, answers = classified(context.snapshot, context.classifier, request.count, context.sampling)
    results: Results = {}
    for space, codes in spaces.items():
        found = dci(codes.astype(np.float64), answers, context.compute.quiet)
        results |= {
            f"{request.title}_{space}_disentanglement": found.disentanglement,
            f"{request.title}_{space}_completeness": found.completeness,
            f"{request.title}_{space}_informativeness": float(found.informativeness.mean()),
        }
    return results


def distance_of(context: Context, request: Request) -> Distance:
    """Raises UserError where its weights are not to be had, and names the way without."""
    try:
        return pick_distance(request.features, context.snapshot)
    except UserError as error:
        if request.features == DISCRIMINATOR:
            raise
        raise UserError(f"{error}; {request.name}-{DISCRIMINATOR} needs none") from error


# Is a training well?


def measure_diversity(context: Context, request: Request) -> Results:
    """Of a fixed batch, beside as many reals where there are data; says so where the network has collapsed.

    Of pixels as well, for the alarm: deep features may see differences in what is all the same image to the eye.
    """
    kinds = {request.title: distance_of(context, request)}
    kinds.setdefault(f"{request.name}-{PIXELS.name}", PIXELS)
    results: Results = {}
    for title, distance in kinds.items():
        found = diversity(context.snapshot, distance, context.data, request.count, context.sampling)
        results |= {title: found.fakes.value, f"{title}_error": found.fakes.error}
        if found.reals is not None:
            results |= {f"{title}_reals": found.reals.value, f"{title}_ratio": found.ratio}
        if found.collapsed:
            context.aids.say(f"Collapsed: images differ by {found.ratio:.0%} of what real ones do ({distance.name})")
    return results


def measure_nearest(context: Context, request: Request) -> Results:
    """How near fakes are to training images; and a sheet of the nearest."""
    found = nearest_training(
        context.snapshot, context.reals.archive, context.network.embed, request.count, NEIGHBOURS, context.sampling
    )
    if context.aids.sheets is None:
        context.aids.say("No sheet of the fakes nearest to training images; --outdir writes one")
    else:
        path = context.aids.sheets / f"{request.title}-{context.snapshot.kimg:06.0f}.png"
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, encode(sheet(found), "png"))
        context.aids.say(f"The fakes nearest to training images: {path}")
    closeness = found.found.closeness
    return {f"{request.title}_share": found.found.share, f"{request.title}_closest": float(closeness.min()),
            f"{request.title}_median": float(np.median(closeness))}  # fmt: skip


def measure_overfitting(context: Context, request: Request) -> Results:
    """What the discriminator makes of images trained on, of fakes, and of others held out (--val)."""
    found = overfitting(
        context.snapshot, context.reals.archive, context.aids.validation, request.count, context.sampling
    )
    name = request.title
    results = {f"{name}_rt": found.r_t, f"{name}_pairs": found.r_pairs, f"{name}_train": float(found.train.mean()),
               f"{name}_fake": float(found.fake.mean())}  # fmt: skip
    if len(found.validation):
        results |= {f"{name}_rv": found.r_v, f"{name}_rv_error": found.r_v_error,
                    f"{name}_validation": float(found.validation.mean())}  # fmt: skip
    return results


# Which metrics there are, by name


@dataclass(frozen=True)
class Lens:
    """What metrics look through, as their names have it: "fid5k_full-effnetlite0", "ppl_wfull-discriminator".

    about: in a word   full: short name -> what it stands for   plain: the short name that is left out, as published
    """

    about: str
    full: Mapping[str, str]
    plain: str


FEATURES = Lens("features", {short_name(name): name for name in NAMES}, "inception")
DISTANCE = Lens("distance", {name: name for name in DISTANCES}, PUBLISHED)


@dataclass(frozen=True)
class Kind:
    """A family of metrics.

    pattern: of its names, with the groups count, k, full and part where they have such   example: one of them
    about: what it is   lens: what it looks through, None for the images themselves
    count, k: where the name does not say
    worse: from its numbers one that is larger for a worse network, None for what does not tell better from worse
    needs: what it is refused without, see `require_aids`   uses: what it takes besides, where it is given
    each: fakes drawn for each of count   shared: may several processes share the work?
    of_network: not of images in files   fewest: images without which there is no number
    whole: always compared with all of the data   check: of what else it is refused for, see `require_possible`
    """

    pattern: str
    example: str
    about: str
    measure: Measure
    lens: Lens | None = None
    count: int = 0
    k: int = 0
    worse: Callable[[Sequence[float]], float] | None = None
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    each: int = 1
    shared: bool = False
    of_network: bool = False
    fewest: int = 1
    whole: bool = False
    check: Check = anything_goes


def _less(numbers: Sequence[float]) -> float:
    return numbers[0]


def _more(numbers: Sequence[float]) -> float:
    return -numbers[0]


def _more_of_both(numbers: Sequence[float]) -> float:
    return -min(numbers[:2])


_N = r"(?P<count>[1-9]\d*k?)"
KINDS = (
    Kind(rf"fid{_N}(?P<full>_full)?", "fid50k_full", "Frechet distance", measure_fid, FEATURES, worse=_less,
         needs=("data",), shared=True, fewest=2, check=requirements.check_fid),
    Kind(rf"kid{_N}(?P<full>_full)?", "kid50k_full", "kernel distance, unbiased", measure_kid, FEATURES,
         worse=_less, needs=("data",), shared=True, fewest=2),
    Kind(rf"pr{_N}(?:_|(?<=k))(?P<k>[1-9]\d*)(?P<full>_full)?", "pr50k3_full", "precision and recall",
         measure_precision_recall, FEATURES, worse=_more_of_both, needs=("data",), shared=True),
    Kind(rf"dc{_N}(?P<full>_full)?", "dc50k_full", "density and coverage", measure_density_coverage, FEATURES,
         k=5, worse=_more_of_both, needs=("data",), shared=True),
    Kind(rf"is{_N}", "is50k", "inception score", measure_inception_score, FEATURES, worse=_more, shared=True,
         fewest=SPLITS, check=requirements.check_inception_score),
    Kind(rf"swd{_N}", "swd16k", "sliced Wasserstein distance x1000", measure_swd, worse=_less,
         needs=("data",), shared=True, check=requirements.check_patches),
    Kind(rf"msssim{_N}", "msssim10k", "similarity of pairs of fakes", measure_ms_ssim, each=2, shared=True,
         check=requirements.check_pairs),
    Kind(rf"ppl{_N}?_(?P<part>[zw](?:full|end))", "ppl50k_wend", "perceptual path length", measure_path_length,
         DISTANCE, count=50_000, worse=_less, uses=("crop",), each=2, of_network=True, fewest=2,
         check=requirements.check_paths),
    Kind(rf"ls{_N}?", "ls200k", "linear separability of z and w", measure_separability, count=200_000,
         needs=("classifier",), of_network=True, fewest=4, check=requirements.check_w),
    Kind(rf"dci{_N}", "dci1k", "disentanglement, completeness, informativeness", measure_dci,
         needs=("classifier",), of_network=True),
    Kind(rf"purity{_N}", "purity200", "of directions: what else they change", measure_purity, worse=_more,
         needs=("directions", "classifier"), of_network=True, check=requirements.check_w),
    Kind(rf"diversity{_N}", "diversity128", "distance of pairs of fakes", measure_diversity, DISTANCE,
         worse=_more, uses=("data",), of_network=True, fewest=2, check=requirements.check_distance),
    Kind(rf"nearest{_N}", "nearest256", "are fakes copies?", measure_nearest, FEATURES, needs=("data",),
         of_network=True, whole=True, check=requirements.check_nearest),
    Kind(rf"overfit{_N}", "overfit500", "has the discriminator memorised its data?", measure_overfitting,
         needs=("data",), uses=("val",), of_network=True, check=requirements.check_overfitting),
)  # fmt: skip


EXAMPLES = tuple(
    kind.example.replace("_wend", f"_{part}") for kind in KINDS
    for part in (("wend", "wfull", "zend", "zfull") if kind.example.endswith("_wend") else ("",))
)  # fmt: skip
"""A name of every metric, and of each part of paths, as it can be typed."""


def require_possible(kind: Kind, request: Request, subject: Subject) -> None:
    """Raises UserError for a metric that such images or such a network cannot have, at least not under its name."""
    if subject.config is None and kind.of_network:
        raise UserError(MISSING["network"])
    if subject.fakes is not None and kind.each * request.count > subject.fakes:
        raise UserError(f"it takes {kind.each * request.count} generated images and there are {subject.fakes}; "
                        f"{_instead(kind, request, subject.fakes // kind.each)}")  # fmt: skip
    if request.count < kind.fewest:
        raise UserError(f"it takes {kind.fewest} images or more, and means something with thousands")
    if subject.reals is not None and compares(kind):
        there, reals = reals_there(kind, subject), reals_of(kind, request, subject)
        if reals > there:
            raise UserError(f"it takes {reals} real images and {subject.data} has {there}; "
                            f"{_instead(kind, request, there)}")  # fmt: skip
        if reals <= request.k:
            raise UserError(f"none of {counted(reals, 'real image')} has {request.k} neighbours; give more data")
        if reals < kind.fewest:
            raise UserError(f"it takes {kind.fewest} real images or more, and {subject.data} has {there}; give others")
    kind.check(request, subject)


def compares(kind: Kind) -> bool:
    """Whether a metric compares with real images, at least where there are some."""
    return "data" in (*kind.needs, *kind.uses)


def reals_there(kind: Kind, subject: Subject) -> int:
    """How many real images it could compare with. Only metrics of features look at mirror images."""
    return (subject.reals or 0) * (2 if subject.mirror and kind.shared else 1)


def reals_of(kind: Kind, request: Request, subject: Subject) -> int:
    """How many real images a metric compares with: 0 for none."""
    if subject.reals is None or not compares(kind):
        return 0
    return reals_there(kind, subject) if request.whole else request.count


def _instead(kind: Kind, request: Request, count: int) -> str:
    """What to ask for where there are only `count` images of a kind."""
    match = re.fullmatch(kind.pattern, request.name)
    if match is None or count < max(kind.fewest, request.k + 1):
        return "give more of them"
    found = match.groupdict()
    k, full = (f"_{found['k']}" if found.get("k") else ""), found.get("full") or ""
    other = f", or {request.name}_full for all of them" if "full" in found and not full else ""
    return f"ask for {request.name[: match.start('count')]}{count}{k}{full}{other}"


def parse(name: str, features: str = DEFAULT) -> tuple[Kind, Request]:
    """What a name asks for: "fid5k_full", or "fid5k_full-effnetlite0". features: for names that do not say.

    Raises UserError for a name that is none.
    """
    plain, dash, short = name.strip().partition("-")
    for kind in KINDS:
        match = re.fullmatch(kind.pattern, plain)
        if match is None or (dash and kind.lens is None):
            continue
        found = match.groupdict()
        if found.get("k"):
            plain = f"pr{found['count']}{'' if found['count'].endswith('k') else '_'}{found['k']}{found['full'] or ''}"
        title, through = plain, ""
        if kind.lens is not None:
            if dash and short not in kind.lens.full:
                raise UserError(f"{name}: there is no {kind.lens.about} {short!r}; there are "
                                f"{', '.join(kind.lens.full)}")  # fmt: skip
            short = short or (kind.lens.plain if kind.lens is DISTANCE else short_name(features))
            title = plain if short == kind.lens.plain else f"{plain}-{short}"
            through = kind.lens.full.get(short, features)
        digits = found["count"] or str(kind.count)
        count, k = _number(digits, name), _number(found.get("k") or str(kind.k), name)
        part = found.get("part") or ""
        if kind.lens is FEATURES and k and count <= k:
            raise UserError(f"{name}: none of {count} images has {k} neighbours; ask for more images")
        return kind, Request(plain, title, count, k, kind.whole or bool(found.get("full")), part, through)
    _require_neighbours(plain)
    raise UserError(f"there is no metric {shortened(name, 80)!r}; there are {', '.join(EXAMPLES)}, each with any "
                    "number (500, 5k), and those with _full without it too")  # fmt: skip


def _number(digits: str, name: str) -> int:
    """ "5k" -> 5000. Raises UserError if it is too large for a number of images."""
    plain = digits.removesuffix("k")
    number = int(plain) * (1000 if digits.endswith("k") else 1) if len(plain) < 12 else MAX_COUNT + 1
    if number > MAX_COUNT:
        raise UserError(f"{shortened(name, 80)} is for too many images; metrics take up to {MAX_COUNT:,}")
    return number


def _require_neighbours(name: str) -> None:
    """Raises UserError for precision and recall where nothing tells how many neighbours: "pr200", "pr5003_full"."""
    match = re.fullmatch(rf"pr{_N}(_full)?", name)
    if match:
        count, full = match["count"], match[2] or ""
        other = f", or pr{count[:-1]}_{count[-1]}{full}" if re.fullmatch(r"\d+[1-9]", count) else ""
        raise UserError(f"{name} does not say how many neighbours; write pr{count}_3{full} for 3{other}")


def parse_names(text: str) -> Sequence[str]:
    """ "fid5k_full,kid5k_full" -> both. Raises UserError for a name that is none, and for none at all."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UserError("no metric is named; one is kid5k_full")
    for name in names:
        parse(name)
    return names
