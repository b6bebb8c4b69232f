"""Which metrics there are, by name. To add one, add a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_utils.errors import UserError
from training.metrics import quality
from training.metrics.context import Context
from training.metrics.features import NAMES, short_name
from training.metrics.request import Request, parse_count

Measure = Callable[[Context, Request], dict[str, float]]


@dataclass(frozen=True)
class Kind:
    """A family of metrics.

    pattern: of its names, with the groups count, k and full where they have such   example: one of them
    about: what it is   k: neighbours where the name does not say
    featured: does it look at features, whose name it then carries?
    worse: from its numbers one that is larger for a worse network, None for what does not tell better from worse
    """

    pattern: str
    example: str
    about: str
    measure: Measure
    k: int = 0
    featured: bool = True
    worse: Callable[[Sequence[float]], float] | None = None


def _first(values: Sequence[float]) -> float:
    return values[0]


def _less(values: Sequence[float]) -> float:
    """For two of which more is better: the smaller one counts."""
    return -min(values)


_N = r"(?P<count>[1-9]\d*k?)"
KINDS = (
    Kind(rf"fid{_N}(?P<full>_full)?", "fid50k_full", "Frechet distance", quality.measure_fid, worse=_first),
    Kind(rf"kid{_N}(?P<full>_full)?", "kid50k_full", "kernel distance, unbiased", quality.measure_kid,
         worse=_first),
    Kind(rf"pr{_N}(?P<k>[1-9])(?P<full>_full)?", "pr50k3_full", "precision and recall",
         quality.measure_precision_recall, worse=_less),
    Kind(rf"dc{_N}(?P<full>_full)?", "dc50k_full", "density and coverage", quality.measure_density_coverage, k=5,
         worse=_less),
    Kind(rf"is{_N}", "is50k", "inception score", quality.measure_inception_score,
         worse=lambda values: -values[0]),
    Kind(rf"swd{_N}", "swd16k", "sliced Wasserstein distance x1000", quality.measure_swd, featured=False,
         worse=_first),
    Kind(rf"msssim{_N}", "msssim10k", "similarity of pairs of fakes", quality.measure_ms_ssim, featured=False),
)  # fmt: skip
# How the names of metrics say what features they are of, and what `pick_features` calls those.
SHORT = {short_name(name): name for name in NAMES}


def parse(name: str) -> tuple[Kind, Request]:
    """What a name asks for: "fid5k_full", or "fid5k_full-effnetlite0". Raises UserError for a name that is none."""
    plain, dash, short = name.strip().partition("-")
    for kind in KINDS:
        match = re.fullmatch(kind.pattern, plain)
        if match is None or (dash and not kind.featured):
            continue
        if dash and short not in SHORT:
            raise UserError(f"{name}: there are no features {short!r}; they are {', '.join(SHORT)}, or --features")
        found = match.groupdict()
        count, k = parse_count(found.get("count") or "0"), int(found.get("k") or kind.k)
        return kind, Request(plain, count, k, bool(found.get("full")), SHORT[short] if dash else "")
    raise UserError(
        f"there is no metric {name!r}; there are {', '.join(kind.example for kind in KINDS)}, with any number (5k, 500)"
    )


def title(name: str, features: str) -> str:
    """What the numbers of a metric are called, where it does not say itself in which features it is measured."""
    kind, request = parse(name)
    return request.titled(short_name(request.features or features) if kind.featured else "")


def parse_names(text: str) -> Sequence[str]:
    """ "fid5k_full,kid5k_full" -> both. Raises UserError for a name that is none, and for none at all."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UserError("no metric is named; one is kid5k_full")
    for name in names:
        parse(name)
    return names
