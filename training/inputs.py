"""What a training step is fed with: real images, and for the generator numbers drawn from seed and position only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan.networks.config import NetworkConfig
from stylegan.networks.sampling import generator
from training.augment import DRAWS

Reals = tuple[Tensor, Tensor | None]
"""Real images [N,C,H,W] in [-1, 1], already faded, and their classes [N] or None."""


@dataclass(frozen=True)
class Inputs:
    """z, z_mix: [N,z_dim]   crossover: first layer that takes its style from z_mix, [N]   c: classes [N] or None
    noise: a map [N,1,H,W] per layer   blend: uniform weights [N], for the WGAN-GP penalty
    views: what `augment` makes of each real, and of each fake, [N,2,7], on the CPU; None where it is not asked for
    reals, real_c: see `Reals`; no images where nothing but fakes is asked for
    """

    z: Tensor
    z_mix: Tensor
    crossover: Tensor
    c: Tensor | None
    noise: list[Tensor]
    blend: Tensor
    views: Tensor | None = None
    reals: Tensor = field(default_factory=lambda: torch.empty(0))
    real_c: Tensor | None = None

    def split(self, parts: int) -> Iterator[Inputs]:
        """The same inputs in equal parts, each of every parts-th image.

        Members of a group of the minibatch standard deviation lie equally far apart, so whole groups stay together.
        """
        for start in range(parts):
            yield Inputs(*(_part(getattr(self, f.name), slice(start, None, parts)) for f in fields(self)))


def _part(value: Any, rows: slice) -> Any:
    if isinstance(value, list):
        return [tensor[rows] for tensor in value]
    return None if value is None else value[rows]


def draw(
    model: NetworkConfig, seed: int, stream: str, positions: range, resolution: int, classes: np.ndarray | None,
    device: torch.device, augmented: bool = False,
) -> Inputs:  # fmt: skip
    """The inputs of the images at `positions` of `stream`.

    classes: the labels of the data set, from which those of the fakes are drawn with their frequencies.
    augmented: with `views`; all else is the same without.
    """
    sizes = model.noise_shapes(resolution)
    areas = [h * w for h, w in sizes]
    num_layers = sum(layer.kind == "conv" for layer in model.layers_at(resolution))
    rows = []
    for position in positions:
        rng = generator(seed, stream, position)
        # In this order, and the growing noise last, so that z does not depend on the resolution.
        z = rng.standard_normal((2, model.z_dim), np.float32)
        mixed = rng.random() < model.mixing_probability
        crossover = int(rng.integers(1, num_layers)) if mixed else num_layers
        c = int(classes[rng.integers(len(classes))]) if classes is not None else -1
        rows.append((z, crossover, c, rng.random(), rng.standard_normal(sum(areas), np.float32)))
    views = [generator(seed, f"{stream}/views", p).random((2, DRAWS)) for p in positions] if augmented else None
    latents, crossovers, labels, blends, pixels = zip(*rows, strict=True)
    both = torch.from_numpy(np.stack(latents)).to(device)
    flat = torch.from_numpy(np.stack(pixels)).to(device)
    split = zip(flat.split(areas, dim=1) if areas else (), sizes, strict=True)
    maps = [noise.reshape(len(rows), 1, h, w) for noise, (h, w) in split]
    return Inputs(
        z=both[:, 0], z_mix=both[:, 1], crossover=torch.tensor(crossovers, device=device),
        c=torch.tensor(labels, device=device) if classes is not None else None,
        noise=maps, blend=torch.tensor(blends, dtype=torch.float32, device=device),
        views=None if views is None else torch.from_numpy(np.stack(views)),
    )  # fmt: skip
