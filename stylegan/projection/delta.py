"""What pivotal tuning changed in a network, in a small file of its own, tied to the network that it changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.bound_file import Kind, fingerprint, load_bound, save_bound
from stylegan.generator import Generator
from stylegan.projection.settings import DELTA
from stylegan.snapshot import Snapshot
from torch_utils.errors import UserError

KIND = Kind("stylegan-delta-1", DELTA, "tuned weights")


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


@dataclass(frozen=True)
class _Header:
    """What the file holds beside the tensors."""

    origins: tuple[str, ...] = ()


def save_delta(path: Path, delta: Delta, snapshot: Snapshot) -> None:
    """Write it, whole or not at all; snapshot: the network before. Raises UserError for a name without DELTA."""
    save_bound(path, KIND, delta.changes, _Header(delta.origins), snapshot)


def load_delta(path: Path, snapshot: Snapshot, force: bool = False) -> Delta:
    """Open what `save_delta` wrote. Runs no code from the file.

    Raises UserError if it is something else or does not fit the network, and unless `force` if it is of another one,
    which a network that was tuned already is as well.
    """
    untuned = replace(snapshot, tuned_from="")
    return load_bound(path, KIND, _Header, _checked, untuned, force, partial(_require_fit, path))


def _checked(tensors: dict[str, Tensor], header: _Header) -> Delta:
    if not all(change.isfinite().all() for change in tensors.values()):
        raise UserError("it holds numbers that are not finite")
    return Delta(tensors, header.origins)


def _require_fit(path: Path, delta: Delta, snapshot: Snapshot) -> None:
    weights = snapshot.G.state_dict()
    for name, change in delta.changes.items():
        if name not in weights or weights[name].shape != change.shape:
            raise UserError(f"{path} does not fit this network: {name!r} has other numbers")


def apply_delta(snapshot: Snapshot, path: Path, force: bool = False) -> Snapshot:
    """`with_delta` of `load_delta`."""
    return with_delta(snapshot, load_delta(path, snapshot, force))
