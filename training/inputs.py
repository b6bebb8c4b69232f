"""What a training step is fed with: real images, and for the generator numbers drawn from seed and position only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ops.philox import philox
from stylegan.networks.config import NetworkConfig
from stylegan.networks.sampling import places_of
from training.augment import DRAWS

NUMBERS = "philox4x32"  # how the random numbers of a step are made; older runs had NumPy make them
LATENTS = 1 << 16  # the stream of z, followed by that of what is chosen; smaller ones are the noise of layers

Reals = tuple[Tensor, Tensor | None]
"""Real images [N,C,H,W] in [-1, 1], already faded, and their classes [N] or None."""


@dataclass(frozen=True)
class Inputs:
    """z, z_mix: [N,z_dim]   crossover: first layer that takes its style from z_mix, [N]   c: classes [N] or None
    places: of which the layers make their noise, int64 [N,2]   blend: uniform weights [N], for the WGAN-GP penalty
    views: what `augment` makes of each real, and of each fake, [N,2,7]; None where it is not asked for
    reals, real_c: see `Reals`; no images where nothing but fakes is asked for
    """

    z: Tensor
    z_mix: Tensor
    crossover: Tensor
    c: Tensor | None
    places: Tensor
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
    return None if value is None else value[rows]


def draw(
    model: NetworkConfig, seed: int, stream: str, positions: range, resolution: int, classes: Tensor | None,
    device: torch.device, augmented: bool = False,
) -> Inputs:  # fmt: skip
    """The inputs of the images at `positions` of `stream`. For the other arguments see `draw_at`."""
    return draw_at(model, places_of(seed, stream, positions, device), resolution, classes, augmented)


def draw_at(
    model: NetworkConfig, places: Tensor, resolution: int, classes: Tensor | None, augmented: bool = False
) -> Inputs:
    """The inputs of images, from their places [N,2]; made where they are used, by one kernel.

    classes: the labels of the data set on the device, from which those of the fakes are drawn with their frequencies
    augmented: with `views`; all else is the same without.
    """
    num_layers = model.rows_at(resolution)
    chances = 4 + (2 * DRAWS if augmented else 0)
    z, z_mix, chosen = philox(places, 2 * model.z_dim, chances, LATENTS).split([model.z_dim, model.z_dim, chances], 1)
    mixing, crossover, c, blend = chosen[:, :4].unbind(1)
    at = (crossover * (num_layers - 1)).long() + 1
    return Inputs(
        z=z, z_mix=z_mix, crossover=torch.where(mixing < model.mixing_probability, at, num_layers),
        c=None if classes is None else classes[(c.double() * len(classes)).long()],
        places=places, blend=blend, views=chosen[:, 4:].unflatten(1, (2, DRAWS)) if augmented else None,
    )  # fmt: skip
