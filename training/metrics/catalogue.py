"""Which metrics there are, by name. To add one, add a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from stylegan.projection.settings import DISTANCES
from torch_utils.errors import UserError
from training.metrics import health, latent
from training.metrics import quality_terms as quality
from training.metrics.context import Context
from training.metrics.features import DEFAULT, NAMES, short_name
from training.metrics.path_length import PUBLISHED
from training.metrics.request import Request, parse_count

Measure = Callable[[Context, Request], dict[str, float]]


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
    about: what it is   lens: what it looks through, None for the pictures themselves
    count, k: where the name does not say
    worse: from its numbers one that is larger for a worse network, None for what does not tell better from worse
    needs: what it is refused without, see `require_aids`   uses: what it takes besides, where it is given
    each: fakes drawn for each of count   shared: may several processes share the work?
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


def _less(values: Sequence[float]) -> float:
    """The first."""
    return values[0]


def _more(values: Sequence[float], among: int = 1) -> float:
    """The first, or the smaller one of the first two, if more of it is better."""
    return -min(values[:among])


_N = r"(?P<count>[1-9]\d*k?)"
KINDS = (
    Kind(rf"fid{_N}(?P<full>_full)?", "fid50k_full", "Frechet distance", quality.measure_fid, FEATURES, worse=_less,
         needs=("data",), shared=True),
    Kind(rf"kid{_N}(?P<full>_full)?", "kid50k_full", "kernel distance, unbiased", quality.measure_kid, FEATURES,
         worse=_less, needs=("data",), shared=True),
    Kind(rf"pr{_N}(?:_|(?<=k))(?P<k>[1-9]\d*)(?P<full>_full)?", "pr50k3_full", "precision and recall",
         quality.measure_precision_recall, FEATURES, worse=partial(_more, among=2), needs=("data",), shared=True),
    Kind(rf"dc{_N}(?P<full>_full)?", "dc50k_full", "density and coverage", quality.measure_density_coverage, FEATURES,
         k=5, worse=partial(_more, among=2), needs=("data",), shared=True),
    Kind(rf"is{_N}", "is50k", "inception score", quality.measure_inception_score, FEATURES, worse=_more, shared=True),
    Kind(rf"swd{_N}", "swd16k", "sliced Wasserstein distance x1000", quality.measure_swd, worse=_less,
         needs=("data",), shared=True),
    Kind(rf"msssim{_N}", "msssim10k", "similarity of pairs of fakes", quality.measure_ms_ssim, each=2, shared=True),
    Kind(rf"ppl{_N}?_(?P<part>[zw](?:full|end))", "ppl_wend", "perceptual path length", latent.measure_path_length,
         DISTANCE, count=50_000, worse=_less, uses=("crop",), each=2),
    Kind(rf"ls{_N}?", "ls", "linear separability of z and w", latent.measure_separability, count=200_000,
         needs=("classifier",)),
    Kind(rf"dci{_N}", "dci1k", "disentanglement, completeness, informativeness", latent.measure_dci,
         needs=("classifier",)),
    Kind(rf"purity{_N}", "purity200", "of directions: what else they change", latent.measure_purity, worse=_more,
         needs=("directions", "classifier")),
    Kind(rf"diversity{_N}", "diversity128", "distance of pairs of fakes", health.measure_diversity, DISTANCE,
         worse=_more),
    Kind(rf"nearest{_N}", "nearest256", "are fakes copies?", health.measure_nearest, FEATURES, needs=("data",)),
    Kind(rf"overfit{_N}", "overfit500", "has the discriminator learnt by heart?", health.measure_overfitting,
         needs=("data",), uses=("val",)),
)  # fmt: skip


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
        if kind.lens is None:
            title, through = plain, ""
        else:
            if dash and short not in kind.lens.full:
                raise UserError(f"{name}: there is no {kind.lens.about} {short!r}; there are "
                                f"{', '.join(kind.lens.full)}")  # fmt: skip
            short = short or (kind.lens.plain if kind.lens is DISTANCE else short_name(features))
            title, through = (
                plain if short == kind.lens.plain else f"{plain}-{short}",
                kind.lens.full.get(short, features),
            )
        count = parse_count(found["count"]) if found["count"] else kind.count
        k, part = int(found.get("k") or kind.k), found.get("part") or ""
        if kind.lens is FEATURES and k and count <= k:
            raise UserError(f"{name}: none of {count} pictures has {k} neighbours; ask for more pictures")
        return kind, Request(plain, title, count, k, bool(found.get("full")), part, through)
    _require_neighbours(plain)
    raise UserError(
        f"there is no metric {name!r}; there are {', '.join(kind.example for kind in KINDS)}, with any number (5k, 500)"
    )


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
