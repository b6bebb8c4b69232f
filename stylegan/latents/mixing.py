"""Styles of one picture in another: the cells of a style-mixing matrix (StyleGAN, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stylegan.latents.latents import Latents, joined
from stylegan.latents.notation import layers_in_words
from stylegan.latents.sources import distinct
from stylegan.networks.sampling import mix_layers

Pair = tuple[int, int]


def pairs_of(rows: Latents, cols: Latents) -> list[Pair]:
    """Every cell of the matrix, row by row: (number of the row, number of the column)."""
    return [(row, col) for row in range(len(rows)) for col in range(len(cols))]


def mixed(rows: Latents, cols: Latents, layers: Sequence[int], pairs: Sequence[Pair]) -> Latents:
    """One picture for each of `pairs`: the row's, with the styles of the column's in `layers`, and the row's noise."""
    a = joined([rows[row : row + 1] for row, _ in pairs])
    b = joined([cols[col : col + 1] for _, col in pairs])
    edits = joined([a, b]).styles  # of all if of any
    return replace(
        a,
        ws=mix_layers(a.ws, b.ws, layers),
        names=names_of(rows, cols, pairs),
        origins=tuple(
            f"{ours}, with layers {layers_in_words(layers)} of {theirs}"
            for ours, theirs in zip(a.origins, b.origins, strict=True)
        ),
        z=None,
        c=None,
        psi=a.psi if a.psi == b.psi else None,
        styles=tuple(s[len(pairs) :] if layer in layers else s[: len(pairs)] for layer, s in enumerate(edits)),
    )


def names_of(rows: Latents, cols: Latents, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """What the pictures of `pairs` are called."""
    row_names, col_names = short_names(rows), short_names(cols)
    return tuple(f"row{row_names[row]}-col{col_names[col]}" for row, col in pairs)


def short_names(latents: Latents) -> list[str]:
    """A name for each, no two alike: of a seed its number."""
    named = zip(latents.origins, latents.names, strict=True)
    return distinct([origin[5:] if origin.startswith("seed ") else name for origin, name in named])
