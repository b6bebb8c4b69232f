"""The cells of a style-mixing matrix."""

from __future__ import annotations

from dataclasses import replace

import torch

from stylegan.latents.latents import Latents, mixed, pairs_of


def sources(count: int, seed: int, **changes: object) -> Latents:
    ws = torch.randn(count, 6, 4, generator=torch.Generator().manual_seed(seed))
    names = tuple(f"seed{seed + i:04d}" for i in range(count))
    latents = Latents(ws, names, tuple(f"seed {seed + i}" for i in range(count)), psi=0.7)
    return replace(latents, **changes)  # type: ignore[arg-type]


def test_no_layers_are_the_rows_and_all_layers_the_columns():
    rows, cols = sources(2, 10), sources(3, 20)
    pairs = pairs_of(rows, cols)
    assert pairs == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert torch.equal(mixed(rows, cols, [], pairs).ws, rows.ws[[0, 0, 0, 1, 1, 1]])
    assert torch.equal(mixed(rows, cols, range(6), pairs).ws, cols.ws[[0, 1, 2, 0, 1, 2]])


def test_a_cell_is_the_same_whatever_is_made_beside_it_and_says_where_it_comes_from():
    noise = (torch.randn(2, 1, 4, 4),)
    rows, cols = (
        sources(2, 10, noise=noise),
        sources(3, 20, psi=0.5, names=("eva",) * 3, origins=("photo eva.jpg",) * 3),
    )
    cell = mixed(rows, cols, [0, 1, 4], [(1, 2)])
    every = mixed(rows, cols, [0, 1, 4], pairs_of(rows, cols))
    assert torch.equal(cell.ws, every.ws[5:]) and cell.names == every.names[5:] == ("row11-coleva-3",)
    assert cell.origins == ("seed 11, with layers 0-1,4 of photo eva.jpg",)
    assert torch.equal(cell.noise[0], noise[0][1:]) and cell.psi is None
    assert len(set(every.names)) == 6


def test_edits_of_styles_are_mixed_as_the_styles_are():
    rows, cols = sources(2, 10), sources(1, 20, styles=tuple(torch.full((1, 8), 1.0 + layer) for layer in range(6)))
    found = mixed(rows, cols, [0, 4], pairs_of(rows, cols)).styles
    assert [float(layer.max()) for layer in found] == [1, 0, 0, 0, 5, 0] and found[0].shape == (2, 8)
    assert [float(layer.max()) for layer in mixed(cols, rows, [0, 4], [(0, 1)]).styles] == [0, 2, 3, 4, 0, 6]
    assert mixed(rows, rows, [0], [(0, 1)]).styles == ()
