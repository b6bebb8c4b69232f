"""One metric as it was asked for by name: fid5k_full, pr50k3_full, ppl1k_wend, swd500."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """name: as typed, without what it looks through   title: what its numbers are called, that included
    count: of fakes, pairs or paths   k: neighbours   whole: against all reals?   part: of paths, "zfull" to "wend"
    features: what it looks through, a feature network as `pick_features` knows it, or a distance; "" for neither
    """

    name: str
    title: str
    count: int = 0
    k: int = 0
    whole: bool = False
    part: str = ""
    features: str = ""


def parse_count(text: str) -> int:
    """ "50k" -> 50000."""
    return int(text[:-1]) * 1000 if text.endswith("k") else int(text)
