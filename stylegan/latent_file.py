"""Latents in a file: the one format that every tool reads and writes, tied to the network that they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from stylegan.snapshot import Snapshot
from stylegan.start import LATENTS
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError
from torch_utils.settings import from_plain

FORMAT = "stylegan-latents-1"
SUFFIX = LATENTS


@dataclass(frozen=True)
class Latents:
    """N points of a network's latent space, ready to be drawn: truncation, if any, is already applied.

    ws: a w for each layer, [N,L,w_dim]   z: what they were mapped from, [N,z_dim]   c: classes [N], int64
    noise: a map [N,1,H,W] for each layer, where they were optimised; else empty
    names: one each, good for a file's name   origins: where each comes from, in words ("seed 17", "photo eva.jpg")
    psi: the truncation that was applied, None where there is no telling
    """

    ws: Tensor
    names: tuple[str, ...]
    origins: tuple[str, ...]
    z: Tensor | None = None
    c: Tensor | None = None
    noise: tuple[Tensor, ...] = ()
    psi: float | None = None

    def __len__(self) -> int:
        return len(self.ws)

    def __getitem__(self, part: slice) -> Latents:
        """Some of them."""
        return replace(
            self, ws=self.ws[part], names=self.names[part], origins=self.origins[part],
            z=None if self.z is None else self.z[part], c=None if self.c is None else self.c[part],
            noise=tuple(m[part] for m in self.noise),
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
    )


def fingerprint(snapshot: Snapshot) -> str:
    """What tells a network from any other: a hash of its generator's config and weights."""
    found = hashlib.sha256(json.dumps(snapshot.config.to_json(), sort_keys=True).encode())
    for name, value in sorted(snapshot.G.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class _Header:
    """What the file holds beside the tensors."""

    format: str = FORMAT
    model: str = ""
    data: str = ""
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    psi: float | None = None


def save_latents(path: Path, latents: Latents, snapshot: Snapshot) -> None:
    """Write them, whole or not at all. Raises UserError when the disk is full, or the name does not end in SUFFIX."""
    if not path.name.endswith(SUFFIX):
        raise UserError(f"{path} is no name for latents: it must end in {SUFFIX}")
    tensors = {"ws": latents.ws.float()}
    tensors |= {name: value for name in ("z", "c") if (value := getattr(latents, name)) is not None}
    tensors |= {f"noise.{layer}": value for layer, value in enumerate(latents.noise)}
    header = _Header(FORMAT, fingerprint(snapshot), snapshot.data, latents.names, latents.origins, latents.psi)
    save_tensors(path, tensors, {field.name: getattr(header, field.name) for field in fields(_Header)})


def load_latents(path: Path, snapshot: Snapshot, force: bool = False) -> Latents:
    """Open what `save_latents` wrote. Runs no code from the file.

    Raises UserError if it is something else or does not fit the network, and unless `force` if it is of another one.
    """
    try:
        tensors, plain = load_tensors(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if plain.get("format") != FORMAT:
        raise UserError(f"{path} holds no latents; they are in files that end in {SUFFIX}")
    try:
        header = from_plain(_Header, {name: plain[name] for name in plain if name in _Header.__dataclass_fields__})
        latents = _checked(tensors, header)
    except (UserError, KeyError, AttributeError) as error:
        raise UserError(f"the latents in {path} cannot be read: {error}") from error
    mine = fingerprint(snapshot)
    if header.model not in (mine, snapshot.tuned_from or mine) and not force:
        raise UserError(f"{path} belongs to another network: it is for {header.model} ({header.data}), this one is "
                        f"{mine} ({snapshot.data}); --force uses it all the same")  # fmt: skip
    some = torch.zeros(1, snapshot.config.z_dim, device=snapshot.device)
    some_class = torch.zeros(1, dtype=torch.int64, device=snapshot.device) if snapshot.config.num_classes else None
    wanted = list(snapshot.G.latents(some, some_class).shape[1:])
    if list(latents.ws.shape[1:]) != wanted:
        raise UserError(f"{path} has {list(latents.ws.shape[1:])} numbers per picture, this network needs {wanted}")
    return latents


def _checked(tensors: dict[str, Tensor], header: _Header) -> Latents:
    maps = sorted((name for name in tensors if name.startswith("noise.")), key=lambda name: int(name[6:]))
    latents = Latents(
        tensors["ws"], header.names, header.origins, tensors.get("z"), tensors.get("c"),
        tuple(tensors[name] for name in maps), header.psi,
    )  # fmt: skip
    every = [latents.ws, *(t for t in (latents.z, latents.c) if t is not None), *latents.noise]
    if latents.ws.ndim != 3 or any(len(t) != len(latents.names) for t in every):
        raise UserError("its parts are of different lengths")
    for name in latents.names:  # files are called so, and must stay where they belong
        if not name.isprintable() or set(name) & set("/\\:") or name.strip(". ") == "":
            raise UserError(f"{name!r} is no name for a picture")
    if not all(t.isfinite().all() for t in every if t.is_floating_point()):
        raise UserError("it holds numbers that are not finite")
    return latents
