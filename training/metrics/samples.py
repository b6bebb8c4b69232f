"""Random latents, noise and pictures of a network, each a function of (seed, its number) and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan.config import ModelConfig, NoiseMode
from stylegan.snapshot import Snapshot
from torch_utils.errors import UserError
from torch_utils.rng import generator

AT_ONCE = 16


@dataclass(frozen=True)
class Sampling:
    """How a network is sampled.

    seed: of all that is random   psi: truncation (metrics are published without any, 1)
    noise: "random" is another one for each picture, as published; "const" the network's own   batch: pictures at once
    labels: classes of the training pictures, [M], among which classes are drawn; None for all classes alike
    """

    seed: int = 0
    psi: float = 1.0
    noise: NoiseMode = "random"
    batch: int = AT_ONCE
    labels: np.ndarray | None = None


AS_PUBLISHED = Sampling()


def z_at(config: ModelConfig, sampling: Sampling, positions: Sequence[int], stream: str = "z") -> Tensor:
    """Latents of the pictures numbered `positions`, float32 [N,z_dim]."""
    rows = [generator(sampling.seed, stream, position).standard_normal(config.z_dim) for position in positions]
    return torch.from_numpy(np.asarray(rows, np.float32).reshape(-1, config.z_dim))


def classes_at(config: ModelConfig, sampling: Sampling, positions: Sequence[int]) -> Tensor | None:
    """Their classes, int64 [N]; None for a network without.

    Raises UserError where the training pictures have classes that the network has not.
    """
    if not config.num_classes:
        return None
    choices = np.arange(config.num_classes) if sampling.labels is None else sampling.labels
    if choices.max() >= config.num_classes:
        raise UserError(f"the data has class {choices.max()}, and the network 0 to {config.num_classes - 1}; "
                        "measure with the data that it was trained on")  # fmt: skip
    drawn = [choices[generator(sampling.seed, "class", position).integers(len(choices))] for position in positions]
    return torch.tensor(drawn, dtype=torch.int64)


def noise_at(snapshot: Snapshot, sampling: Sampling, positions: Sequence[int]) -> str | list[Tensor]:
    """Their noise: a map [N,1,H,W] for each layer, as far as the network has grown, or the name of another kind."""
    if sampling.noise != "random":
        return sampling.noise
    synthesis = snapshot.G.synthesis
    sizes = synthesis.noise_sizes(synthesis.grown[0])
    each = [generator(sampling.seed, "noise", position) for position in positions]
    return [
        torch.from_numpy(np.stack([g.standard_normal((1, *size), np.float32) for g in each])) for size in sizes
    ]  # fmt: skip


def drawn(snapshot: Snapshot, ws: Tensor, noise: str | Sequence[Tensor], batch: int) -> Tensor:
    """Pictures [N,channels,H,W] in the network's range, where the network is, of ws [N,L,w_dim].

    On a CPU each alone, so that they are the same in any batch; elsewhere at once, as that is many times faster.
    """
    G = snapshot.G
    if snapshot.device.type == "cpu":
        return G.draw(ws, noise, batch)
    with torch.inference_mode():
        maps = noise if isinstance(noise, str) else [m.to(snapshot.device) for m in noise]
        return G.synthesis(ws.to(snapshot.device), noise=maps)


@dataclass(frozen=True)
class Fakes:
    """z: [N,z_dim]   w: [N,w_dim], without truncation   c: classes [N], or None   images: [N,channels,H,W]"""

    z: Tensor
    w: Tensor
    c: Tensor | None
    images: Tensor


def fakes_at(snapshot: Snapshot, sampling: Sampling, positions: Sequence[int]) -> Fakes:
    """The pictures numbered `positions`, with values from -1 to 1, and what they were drawn from.

    Of ProGAN, which has no w, `w` is what the network is fed with. Raises UserError, see `classes_at`.
    """
    G, config = snapshot.G, snapshot.config
    z, c = z_at(config, sampling, positions), classes_at(config, sampling, positions)
    w = G.map(z, 1.0, None, c)[:, 0]
    ws = G.map(z, sampling.psi, None, c) if sampling.psi != 1 else G.broadcast(w)
    images = drawn(snapshot, ws, noise_at(snapshot, sampling, positions), sampling.batch)
    return Fakes(z, w, c, images.clamp(-1, 1))
