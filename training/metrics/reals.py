"""Real pictures as a network is compared with them: at its size, faded as it fades, chosen by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stylegan.discriminator import fade
from stylegan.snapshot import Snapshot
from torch_utils.errors import UserError
from torch_utils.images import to_float
from torch_utils.rng import generator
from training.archive import Archive
from training.metrics.samples import Sampling
from training.packed import packed


def pages(archive: Archive, snapshot: Snapshot) -> np.ndarray:
    """All pictures of the archive at the size that the network draws at: uint8 [M,C,H,W], mapped from disk.

    Raises UserError for an archive of other channels, and of pictures that no halving brings to that size.
    """
    config = snapshot.config
    if archive.channels != config.channels:
        raise UserError(f"{archive.path} has pictures of {archive.channels} channels, this network draws "
                        f"{config.channels}; give the data that it was trained on")  # fmt: skip
    return packed(archive, *config.size(snapshot.G.synthesis.grown[0]))


def shuffled(count: int, seed: int) -> np.ndarray:
    """The numbers 0 to `count` in an order that belongs to the seed: int64."""
    return generator(seed, "reals", 0).permutation(count)


def chosen(archive: Archive, count: int, seed: int) -> np.ndarray:
    """`count` places in the archive, all different, in order: int64. Raises UserError if it has not so many."""
    if count > len(archive):
        raise UserError(f"{archive.path} has {len(archive)} pictures, {count} are asked for; ask for fewer")
    return np.sort(shuffled(len(archive), seed)[:count])


def real_pictures(stored: np.ndarray, places: Sequence[int] | np.ndarray, snapshot: Snapshot) -> Tensor:
    """Some of `pages`, float [N,C,H,W] in [-1, 1], where the network is, blended as its own are where it is fading."""
    images = to_float(torch.from_numpy(np.array(stored[np.asarray(places)])))
    return fade(images.to(snapshot.device), snapshot.G.synthesis.grown[1])


def classes_of(archive: Archive, places: np.ndarray, snapshot: Snapshot) -> Tensor | None:
    """The classes int64 [N] of real pictures, None for a network without. Raises UserError if they have none."""
    if not snapshot.config.num_classes:
        return None
    if archive.labels is None:
        raise UserError(f"this network knows classes and {archive.path} has no labels; give the data that it was "
                        "trained on")  # fmt: skip
    return torch.from_numpy(archive.labels[places])


def in_proportion(sampling: Sampling, archive: Archive, snapshot: Snapshot) -> Sampling:
    """The sampling with classes as often as the archive has them, unless it says so already."""
    if sampling.labels is not None or not snapshot.config.num_classes:
        return sampling
    return replace(sampling, labels=archive.labels)
