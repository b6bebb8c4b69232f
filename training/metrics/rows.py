"""Features as the metrics take them: a tensor [N,D], or anything that gives tensors for slices and lists of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from torch import Tensor

BLOCK = 4096


class Rows(Protocol):
    """N rows of D numbers, of which a part is in memory at a time. A tensor [N,D] is that as well."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice | np.ndarray, /) -> Tensor: ...


def blocks(rows: Rows, size: int = BLOCK) -> Iterator[Tensor]:
    """All rows, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : min(start + size, len(rows))]
