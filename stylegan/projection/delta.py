"""What pivotal tuning changed in a network, in a small file of its own, tied to the network that it changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from stylegan.generator import Generator
from stylegan.latent_file import fingerprint
from stylegan.projection.settings import DELTA
from stylegan.snapshot import Snapshot
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError

FORMAT = "stylegan-delta-1"


@dataclass(frozen=True)
class Delta:
    """Differences by name of a generator's weights, in the numbers that are kept, and the photos that they are for."""

    changes: Mapping[str, Tensor]
    origins: tuple[str, ...] = ()


def delta_between(before: Generator, after: Generator, dtype: torch.dtype, origins: Sequence[str] = ()) -> Delta:
    """after - before, of the weights that differ, rounded to `dtype`; so far `with_delta` gives `after`."""
    old = before.state_dict()
    changes = {name: (value - old[name]).to(dtype) for name, value in after.state_dict().items()}
    return Delta({name: change for name, change in changes.items() if bool(change.any())}, tuple(origins))


@torch.no_grad()
def with_delta(snapshot: Snapshot, delta: Delta) -> Snapshot:
    """A snapshot of its own with these weights changed. It takes the latents of the network that it came from."""
    G = copy.deepcopy(snapshot.G)
    weights = G.state_dict()
    for name, change in delta.changes.items():
        weights[name] += change.to(weights[name].device, weights[name].dtype)
    return replace(snapshot, G=G, tuned_from=fingerprint(snapshot))


def save_delta(path: Path, delta: Delta, snapshot: Snapshot) -> None:
    """Write it, whole or not at all; snapshot: the network before. Raises UserError for a name without DELTA."""
    if not path.name.endswith(DELTA):
        raise UserError(f"{path} is no name for tuned weights: it must end in {DELTA}")
    header = {"format": FORMAT, "model": fingerprint(snapshot), "data": snapshot.data, "origins": list(delta.origins)}
    save_tensors(path, delta.changes, header)


def load_delta(path: Path, snapshot: Snapshot, force: bool = False) -> Delta:
    """Open what `save_delta` wrote. Raises UserError if it is something else, or of another network unless `force`."""
    try:
        tensors, header = load_tensors(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path} holds no tuned weights; they are in files that end in {DELTA}")
    mine = fingerprint(snapshot)
    if header.get("model") != mine and not force:
        raise UserError(f"{path} changes another network: it is for {header.get('model')} ({header.get('data')}), this "
                        f"one is {mine} ({snapshot.data})")  # fmt: skip
    weights = snapshot.G.state_dict()
    for name, change in tensors.items():
        if name not in weights or weights[name].shape != change.shape or not bool(change.isfinite().all()):
            raise UserError(f"{path} does not fit this network: {name} has other numbers")
    return Delta(tensors, tuple(map(str, header.get("origins") or ())))


def apply_delta(snapshot: Snapshot, path: Path, force: bool = False) -> Snapshot:
    """`with_delta` of `load_delta`."""
    return with_delta(snapshot, load_delta(path, snapshot, force))
