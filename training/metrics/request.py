"""One metric as it was asked for by name: fid5k_full, pr50k3_full, swd500."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.metrics.context import Context


@dataclass(frozen=True)
class Request:
    """name: as typed, without the features' name   count: of fakes   k: neighbours   whole: against all reals?
    features: the feature network that the name asked for (as `pick_features` knows it), "" for the context's
    """

    name: str
    count: int = 0
    k: int = 0
    whole: bool = False
    features: str = ""

    def title(self, context: Context) -> str:
        """The name with that of the features in use. Only what is measured in Inception has the plain one."""
        return self.titled(context.network.name)

    def titled(self, features: str) -> str:
        """features: the feature network's short name, "" where none is looked at."""
        return self.name if features in ("inception", "") else f"{self.name}-{features}"


def parse_count(text: str) -> int:
    """ "50k" -> 50000."""
    return int(text[:-1]) * 1000 if text.endswith("k") else int(text)
