"""Random latents and pictures of a network, each a function of (seed, its number) and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.config import NoiseMode
from stylegan.networks.sampling import generator
from torch_utils.errors import UserError
from torch_utils.images import to_float
from training.data.archive import Archive
from training.data.dataset import fade
from training.data.packed import packed
from training.inputs import Inputs, draw

AT_ONCE = 16
STREAM = "metrics"  # of random numbers


@dataclass(frozen=True)
class Sampling:
    """How a network is sampled.

    seed: of all that is random   psi: truncation (metrics are published without any, 1)
    noise: "random" is another one for each picture, as published; "const" the network's own   batch: pictures at once
    labels: classes of the training pictures, [M], among which classes are drawn; None for all classes alike
    quiet: without a progress bar
    """

    seed: int = 0
    psi: float = 1.0
    noise: NoiseMode = "random"
    batch: int = AT_ONCE
    labels: np.ndarray | None = None
    quiet: bool = False


AS_PUBLISHED = Sampling()


def inputs_at(snapshot: Snapshot, sampling: Sampling, positions: range) -> Inputs:
    """What the pictures numbered `positions` are drawn from. A second z and a uniform number are there for paths.

    Raises UserError where the training pictures have classes that the network has not.
    """
    config, classes = snapshot.config, None
    if config.num_classes:
        classes = np.arange(config.num_classes) if sampling.labels is None else np.sort(sampling.labels)
        if classes[-1] >= config.num_classes:
            raise UserError(
                f"the data has class {classes[-1]}, and the network 0 to {config.num_classes - 1}; measure with the "
                "data that it was trained on"
            )
    return draw(config, sampling.seed, STREAM, positions, snapshot.stage.resolution, classes, torch.device("cpu"))


def noise_of(inputs: Inputs, sampling: Sampling) -> str | list[Tensor]:
    """As `Renderer.draw` takes it: a map [N,1,H,W] for each layer, or the name of another kind."""
    if sampling.noise != "random":
        return sampling.noise
    return inputs.noise or "none"


def drawn(snapshot: Snapshot, ws: Tensor, noise: str | Sequence[Tensor], batch: int) -> Tensor:
    """Pictures [N,channels,H,W] in the network's range, where the network is, of ws [N,L,w_dim].

    On a CPU each alone, so that they are the same in any batch; elsewhere `batch` at once, which is many times faster.
    """
    if snapshot.device.type == "cpu":
        return snapshot.renderer.draw(ws, noise, batch)
    with torch.inference_mode():
        return torch.cat([_drawn_at_once(snapshot, ws, noise, slice(i, i + batch)) for i in range(0, len(ws), batch)])


def _drawn_at_once(snapshot: Snapshot, ws: Tensor, noise: str | Sequence[Tensor], part: slice) -> Tensor:
    maps = noise if isinstance(noise, str) else [(m if len(m) == 1 else m[part]).to(snapshot.device) for m in noise]
    pictures: Tensor = snapshot.G.synthesis(ws[part].to(snapshot.device), snapshot.stage, maps)
    return pictures


@dataclass(frozen=True)
class Fakes:
    """z: [N,z_dim]   w: [N,w_dim], without truncation   c: classes [N], or None   images: [N,channels,H,W]"""

    z: Tensor
    w: Tensor
    c: Tensor | None
    images: Tensor


def fakes_at(snapshot: Snapshot, sampling: Sampling, positions: range) -> Fakes:
    """The pictures numbered `positions`, with values from -1 to 1, and what they were drawn from.

    Of ProGAN, which has no w, `w` is what the network is fed with. Raises UserError, see `inputs_at`.
    """
    renderer, inputs = snapshot.renderer, inputs_at(snapshot, sampling, positions)
    w = renderer.map(inputs.z, inputs.c, psi=1.0)[:, 0]
    ws = renderer.map(inputs.z, inputs.c, psi=sampling.psi) if sampling.psi != 1 else snapshot.G.broadcast(w)
    images = drawn(snapshot, ws, noise_of(inputs, sampling), sampling.batch)
    return Fakes(inputs.z, w, inputs.c, images.clamp(-1, 1))


# Real pictures as a network is compared with them: at its size, faded as it fades, chosen by a seed


def pages(archive: Archive, snapshot: Snapshot) -> np.ndarray:
    """All pictures of the archive at the size that the network draws at: uint8 [M,C,H,W], mapped from disk.

    Raises UserError for an archive of other channels, and of pictures that no halving brings to that size.
    """
    config = snapshot.config
    if archive.channels != config.channels:
        raise UserError(f"{archive.path} has pictures of {archive.channels} channels, this network draws "
                        f"{config.channels}; give the data that it was trained on")  # fmt: skip
    return packed(archive, *config.size(snapshot.stage.resolution))


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
    return fade(images.to(snapshot.device), snapshot.stage.alpha)


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
