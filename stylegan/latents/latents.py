"""Latents: points in the latent space of one network, their mixtures, and the file format of all tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.bound import Kind, in_turn, load_bound, numbered, save_bound
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.notation import LATENTS, layer_ranges
from stylegan.networks.arguments import sensible
from stylegan.networks.sampling import mix_layers
from torch_utils.errors import UserError
from torch_utils.text import as_stem


@dataclass(frozen=True)
class Crop:
    """The part of a photograph that an image shows.

    photo: hash of the photograph's file   size: width and height of the photograph, turned upright
    corners: of the part, top left, bottom left, bottom right, top right, as (x, y) in pixels from the photograph's top
    left corner; they may lie outside
    """

    photo: str
    size: tuple[int, int]
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Latents:
    """N latents, ready for the synthesis network: truncation, if any, is already applied.

    ws: a w for each layer, [N,L,w_dim]
    names: one for each, usable as file names
    origins: where each comes from ("seed 17", "photo eva.jpg")
    z: what ws were mapped from, [N,z_dim]
    c: classes [N], int64
    noise: a map [N,1,H,W] for each layer if they were optimised, else empty
    psi: the truncation that was applied; None if unknown
    styles: added to the style of each layer, [N,style_dim] each (see `Synthesis.forward`), else empty
    crops: the part of a photograph that each is of, None for other images; empty if none is of a photograph
    """

    ws: Tensor
    names: tuple[str, ...]
    origins: tuple[str, ...]
    z: Tensor | None = None
    c: Tensor | None = None
    noise: tuple[Tensor, ...] = ()
    psi: float | None = None
    styles: tuple[Tensor, ...] = ()
    crops: tuple[Crop | None, ...] = ()

    def __len__(self) -> int:
        return len(self.ws)

    def __getitem__(self, part: slice) -> Latents:
        return replace(
            self, ws=self.ws[part], names=self.names[part], origins=self.origins[part],
            z=None if self.z is None else self.z[part], c=None if self.c is None else self.c[part],
            noise=tuple(m[part] for m in self.noise), styles=tuple(s[part] for s in self.styles),
            crops=self.crops[part],
        )  # fmt: skip

    @property
    def known_classes(self) -> set[int]:
        """The classes that occur."""
        return set() if self.c is None else set(self.c.tolist())

    @property
    def plus(self) -> bool:
        """Whether any of them is in W+, with different w in different layers."""
        return bool((self.ws != self.ws[:, :1]).any())


def joined(parts: Sequence[Latents]) -> Latents:
    """Concatenates latents. What only some parts have is left out, but changes of styles are zero for the others."""
    first = parts[0]
    if len(parts) == 1:
        return first
    layers = min(len(p.noise) for p in parts)
    z, c = [p.z for p in parts if p.z is not None], [p.c for p in parts if p.c is not None]
    like = next((p.styles for p in parts if p.styles), ())
    styles = [p.styles or [s.new_zeros(len(p), s.shape[1]) for s in like] for p in parts]
    return Latents(
        ws=torch.cat([p.ws for p in parts]),
        names=tuple(name for p in parts for name in p.names),
        origins=tuple(origin for p in parts for origin in p.origins),
        z=torch.cat(z) if len(z) == len(parts) else None,
        c=torch.cat(c) if len(c) == len(parts) else None,
        noise=tuple(torch.cat([p.noise[layer] for p in parts]) for layer in range(layers)),
        psi=first.psi if all(p.psi == first.psi for p in parts) else None,
        styles=tuple(torch.cat(layer) for layer in zip(*styles, strict=True)),
        crops=tuple(crop for p in parts for crop in p.crops or (None,) * len(p)) if any(p.crops for p in parts) else (),
    )


def distinct(wishes: Sequence[str]) -> list[str]:
    """Names without repetition: the second eva becomes eva-2."""
    names: list[str] = []
    taken: set[str] = set()
    for wish in wishes:
        name, number = wish, 2
        while name in taken:
            name, number = f"{wish}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


# Style mixing


Pair = tuple[int, int]
"""A cell of a style-mixing matrix: row and column."""


def pairs_of(rows: Latents, cols: Latents) -> list[Pair]:
    """All cells of the matrix, row by row."""
    return [(row, col) for row in range(len(rows)) for col in range(len(cols))]


def mixed(rows: Latents, cols: Latents, layers: Sequence[int], pairs: Sequence[Pair]) -> Latents:
    """Style mixing (StyleGAN, figure 3): for each of `pairs`, the row with the styles of the column in `layers`.

    The noise is that of the row.
    """
    a = joined([rows[row : row + 1] for row, _ in pairs])
    b = joined([cols[col : col + 1] for _, col in pairs])
    both = joined([a, b]).styles
    return replace(
        a,
        ws=mix_layers(a.ws, b.ws, layers),
        names=mixed_names(rows, cols, pairs),
        origins=tuple(
            f"{row}, with layers {layer_ranges(layers)} of {col}" for row, col in zip(a.origins, b.origins, strict=True)
        ),
        z=None,
        c=None,
        psi=a.psi if a.psi == b.psi else None,
        styles=tuple(s[len(pairs) :] if layer in layers else s[: len(pairs)] for layer, s in enumerate(both)),
    )


def mixed_names(rows: Latents, cols: Latents, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Names of cells, such as row85-col55."""

    def short(latents: Latents) -> list[str]:  # for a seed its number
        named = zip(latents.origins, latents.names, strict=True)
        return distinct([origin[5:] if origin.startswith("seed ") else name for origin, name in named])

    row_names, col_names = short(rows), short(cols)
    return tuple(distinct([as_stem(f"row{row_names[row]}-col{col_names[col]}") for row, col in pairs]))


# Files


SUFFIX = LATENTS
KIND = Kind("stylegan-latents-1", SUFFIX, "latents")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_NAME = 236  # bytes; file systems allow 255
MAX_SIDE = 1 << 20  # pixels of a photograph


@dataclass(frozen=True)
class _Header:
    """The content of the file besides its tensors."""

    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    psi: float | None = None
    crops: tuple[Crop | None, ...] = ()


def save_latents(path: Path, latents: Latents, snapshot: Snapshot) -> None:
    """Write latents of a network, atomically.

    Raises UserError if the disk is full, or if the name does not end in SUFFIX.
    """
    tensors = {"ws": latents.ws.float()}
    tensors |= {name: value for name in ("z", "c") if (value := getattr(latents, name)) is not None}
    tensors |= numbered("noise", latents.noise) | numbered("styles", latents.styles)
    save_bound(path, KIND, tensors, _Header(latents.names, latents.origins, latents.psi, latents.crops), snapshot)


def load_latents(path: Path, snapshot: Snapshot | None, force: bool = False) -> Latents:
    """Open a file of `save_latents`. Runs no code from it. snapshot: None to accept any network's.

    Raises UserError for any other file, for latents that do not fit the network, and for those of another network,
    which `force` accepts.
    """
    return load_bound(path, KIND, _Header, _built, snapshot, force, partial(require_fit, path))


def _built(tensors: dict[str, Tensor], header: _Header) -> Latents:
    return checked(Latents(
        tensors["ws"], header.names, header.origins, tensors.get("z"), tensors.get("c"),
        in_turn("noise", tensors), header.psi, in_turn("styles", tensors), header.crops,
    ))  # fmt: skip


def checked(latents: Latents) -> Latents:
    """The latents themselves. Raises UserError for tensors that are none. Names become file names and must be plain."""
    floats = [latents.ws, *latents.noise, *latents.styles, *([] if latents.z is None else [latents.z])]
    every = floats if latents.c is None else [*floats, latents.c]
    matrices = all(s.ndim == 2 for s in latents.styles)
    if latents.ws.ndim != 3 or not matrices or any(len(t) != len(latents.names) for t in every):
        raise UserError("its tensors have different lengths, or are not latents")
    if len(latents.crops) not in (0, len(latents)) or not all(map(_is_plausible, latents.crops)):
        raise UserError("its parts of photographs are not numbers of pixels")
    for t in floats:
        if t.dtype not in FLOATS:
            raise UserError(f"its tensors must be floating-point numbers, got {t.dtype}")
        if not t.isfinite().all():
            raise UserError("it contains numbers that are not finite")
        sensible(t, "its tensors")
    c = latents.c
    if c is not None and (c.dtype != torch.int64 or c.ndim != 1 or bool((c < 0).any())):
        raise UserError("its classes must be integers from 0")
    for name in latents.names:
        if not name.isprintable() or set(name) & set("/\\:") or not name.strip(". ") or len(name.encode()) > MAX_NAME:
            raise UserError(f"{name!r} cannot be the name of an image")
    return latents


def _is_plausible(crop: Crop | None) -> bool:
    """Whether these are corners of some part of an image."""
    if crop is None:
        return True
    points = len(crop.corners) == 4 and all(abs(v) < MAX_SIDE for corner in crop.corners for v in corner)
    return points and all(0 < side < MAX_SIDE for side in crop.size)


def require_fit(path: Path | str, latents: Latents, snapshot: Snapshot) -> None:
    """Raises UserError for latents that do not fit the network. path: their file, or what messages call them"""
    config = snapshot.config
    found, wanted = list(latents.ws.shape[1:]), [config.num_ws, config.ws_dim]
    if found != wanted:
        raise UserError(f"{path}: ws of shape {found} for each image, but this network needs {wanted}")
    if latents.c is not None and config.num_classes and int(latents.c.max()) >= config.num_classes:
        raise UserError(f"{path}: class {int(latents.c.max())}, but this network has 0 to {config.num_classes - 1}")
    maps = [(1, *size) for size in config.noise_shapes(config.resolution)]
    if [tuple(m.shape[1:]) for m in latents.noise] != maps[: len(latents.noise)]:
        raise UserError(f"{path}: the noise maps have other sizes than those of this network")
    sizes = [s.shape[1] for s in latents.styles]
    if sizes and sizes != config.style_dims():
        raise UserError(f"{path}: edits styles of lengths {sizes}, but those of this network are {config.style_dims()}")
