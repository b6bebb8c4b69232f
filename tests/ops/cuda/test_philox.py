"""philox's CUDA kernel, emulated, against the one of the CPU."""

from __future__ import annotations

import pytest
import torch

from ops.philox import philox


@pytest.mark.parametrize(
    "rows, normals, uniforms", [(0, 4, 4), (1, 1, 0), (3, 0, 5), (5, 1024, 18), (2, 7, 3), (1, 4099, 1)]
)
def test_it_gives_the_same_numbers_to_the_last_bit(emulated, rows, normals, uniforms):
    places = torch.randint(-(2**63), 2**63 - 1, (rows, 2))
    for stream in (0, 2**32 - 2):
        found = emulated("philox", places, stream, normals, uniforms)
        assert torch.equal(found, philox(places, normals, uniforms, stream))
