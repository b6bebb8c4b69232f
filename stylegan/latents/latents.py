"""Latents in a file: the one format that every tool reads and writes, tied to the network that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.bound import Kind, in_turn, load_bound, numbered, save_bound
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.notation import LATENTS
from torch_utils.errors import UserError

FORMAT = "stylegan-latents-1"
SUFFIX = LATENTS
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
KIND = Kind(FORMAT, SUFFIX, "latents")


@dataclass(frozen=True)
class Latents:
    """N points of a network's latent space, ready to be drawn: truncation, if any, is already applied.

    ws: a w for each layer, [N,L,w_dim]   z: what they were mapped from, [N,z_dim]   c: classes [N], int64
    noise: a map [N,1,H,W] for each layer, where they were optimised; else empty
    names: one each, good for a file's name   origins: where each comes from, in words ("seed 17", "photo eva.jpg")
    psi: the truncation that was applied, None where there is no telling
    styles: what is added to each layer's style (see `SynthesisNetwork.forward`), [N,2C] for each; else empty
    """

    ws: Tensor
    names: tuple[str, ...]
    origins: tuple[str, ...]
    z: Tensor | None = None
    c: Tensor | None = None
    noise: tuple[Tensor, ...] = ()
    psi: float | None = None
    styles: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.ws)

    def __getitem__(self, part: slice) -> Latents:
        """Some of them."""
        return replace(
            self, ws=self.ws[part], names=self.names[part], origins=self.origins[part],
            z=None if self.z is None else self.z[part], c=None if self.c is None else self.c[part],
            noise=tuple(m[part] for m in self.noise), styles=tuple(s[part] for s in self.styles),
        )  # fmt: skip

    @property
    def plus(self) -> bool:
        """Is any of them in W+: with another w in one layer than in another?"""
        return bool((self.ws != self.ws[:, :1]).any())


def joined(parts: Sequence[Latents]) -> Latents:
    """All of several, in their order. What only some of them have is left out."""
    first = parts[0]
    layers = min(len(p.noise) for p in parts)
    if len(parts) == 1:
        return first
    z, c = [p.z for p in parts if p.z is not None], [p.c for p in parts if p.c is not None]
    return Latents(
        ws=torch.cat([p.ws for p in parts]),
        names=tuple(name for p in parts for name in p.names),
        origins=tuple(origin for p in parts for origin in p.origins),
        z=torch.cat(z) if len(z) == len(parts) else None,
        c=torch.cat(c) if len(c) == len(parts) else None,
        noise=tuple(torch.cat([p.noise[layer] for p in parts]) for layer in range(layers)),
        psi=first.psi if all(p.psi == first.psi for p in parts) else None,
        styles=_joined_styles(parts),
    )


def _joined_styles(parts: Sequence[Latents]) -> tuple[Tensor, ...]:
    """Those of all, and zeros for whoever adds nothing."""
    like = next((p.styles for p in parts if p.styles), ())
    filled = [p.styles or [s.new_zeros(len(p), s.shape[1]) for s in like] for p in parts]
    return tuple(torch.cat(layer) for layer in zip(*filled, strict=True))


@dataclass(frozen=True)
class _Header:
    """What the file holds beside the tensors."""

    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    psi: float | None = None


def save_latents(path: Path, latents: Latents, snapshot: Snapshot) -> None:
    """Write them, whole or not at all. Raises UserError when the disk is full, or the name does not end in SUFFIX."""
    tensors = {"ws": latents.ws.float()}
    tensors |= {name: value for name in ("z", "c") if (value := getattr(latents, name)) is not None}
    tensors |= numbered("noise", latents.noise) | numbered("styles", latents.styles)
    save_bound(path, KIND, tensors, _Header(latents.names, latents.origins, latents.psi), snapshot)


def load_latents(path: Path, snapshot: Snapshot, force: bool = False) -> Latents:
    """Open what `save_latents` wrote. Runs no code from the file.

    Raises UserError if it is something else or does not fit the network, and unless `force` if it is of another one.
    """
    return load_bound(path, KIND, _Header, _checked, snapshot, force, partial(_require_fit, path))


def _require_fit(path: Path, latents: Latents, snapshot: Snapshot) -> None:
    wanted = [snapshot.config.num_ws, snapshot.config.ws_dim]
    if list(latents.ws.shape[1:]) != wanted:
        raise UserError(f"{path} has {list(latents.ws.shape[1:])} numbers per picture, this network needs {wanted}")
    if latents.c is not None and snapshot.config.num_classes and int(latents.c.max()) >= snapshot.config.num_classes:
        raise UserError(f"{path} has class {int(latents.c.max())}, this network 0 to {snapshot.config.num_classes - 1}")
    maps = [(1, *size) for size in snapshot.config.noise_shapes(snapshot.config.resolution)]
    if [tuple(m.shape[1:]) for m in latents.noise] != maps[: len(latents.noise)]:
        raise UserError(f"{path} has noise maps of other sizes than this network's")
    sizes = snapshot.config.style_dims()
    if latents.styles and [s.shape[1] for s in latents.styles] != sizes:
        raise UserError(f"{path} edits styles of {[s.shape[1] for s in latents.styles]} numbers, this network's have "
                        f"{sizes}")  # fmt: skip


def _checked(tensors: dict[str, Tensor], header: _Header) -> Latents:
    latents = Latents(
        tensors["ws"], header.names, header.origins, tensors.get("z"), tensors.get("c"),
        in_turn("noise", tensors), header.psi, in_turn("styles", tensors),
    )  # fmt: skip
    every = [latents.ws, *(t for t in (latents.z, latents.c) if t is not None), *latents.noise, *latents.styles]
    flat = all(s.ndim == 2 for s in latents.styles)
    if latents.ws.ndim != 3 or not flat or any(len(t) != len(latents.names) for t in every):
        raise UserError("its parts are of different lengths")
    floats = [latents.ws, *latents.noise, *latents.styles, *([] if latents.z is None else [latents.z])]
    if not all(t.dtype in FLOATS for t in floats):
        raise UserError("its numbers are of a kind that latents have not")
    if latents.c is not None and (latents.c.dtype != torch.int64 or latents.c.ndim != 1 or bool((latents.c < 0).any())):
        raise UserError("its classes are no numbers from 0")
    for name in latents.names:  # files are called so, and must stay where they belong
        if not name.isprintable() or set(name) & set("/\\:") or not name.strip(". ") or len(name) > 200:
            raise UserError(f"{name!r} is no name for a picture")
    if not all(t.isfinite().all() for t in every if t.is_floating_point()):
        raise UserError("it holds numbers that are not finite")
    return latents
