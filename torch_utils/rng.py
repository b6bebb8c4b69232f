"""Randomness keyed by position: what picture number 17 gets depends on the seed and on 17, and on nothing else.

No generator state has to be saved, and the way a batch is split over rounds or processes cannot matter.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stream: str, position: int) -> np.random.Generator:
    """A generator of its own for (seed, stream, position), by the counter-based Philox. position >= 0."""
    key = (seed % 2**64) << 64 | zlib.crc32(stream.encode())
    # The position takes the upper half of the 256-bit counter, so that streams of different positions never overlap.
    return np.random.Generator(np.random.Philox(key=key, counter=position << 128))
