"""The public face: `stylegan.load` returns a `Model`, which generates, mixes, moves and projects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import torch
from PIL import Image
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.directions import Directions, layers_to_move, moved, moved_ws
from stylegan.latents.latents import Latents
from stylegan.latents.notation import layers_of
from stylegan.latents.render import class_numbers
from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.sampling import mix_layers, z_for_seeds
from stylegan.projection.photos import project_photos
from stylegan.projection.settings import ProjectionSettings
from torch_utils.images import to_pil, to_uint8
from torch_utils.text import Class

Classes = Class | Sequence[Class] | None
"""A class for all, or one for each: numbers or names."""
Points = Sequence[int] | Tensor
"""Seeds, or ws [N,num_ws,w_dim]."""


@dataclass(frozen=True)
class Model:
    """A trained network: generates images, mixes styles, moves latents along directions, projects photographs."""

    snapshot: Snapshot

    @property
    def G(self) -> Generator:
        """The averaged generator."""
        return self.snapshot.G

    @property
    def D(self) -> Discriminator | None:
        """The discriminator, if the file contains it."""
        return self.snapshot.D

    @property
    def config(self) -> NetworkConfig:
        return self.snapshot.config

    @property
    def stage(self) -> Stage:
        """How far the network has grown."""
        return self.snapshot.stage

    @property
    def kimg(self) -> float:
        """Thousands of real images that the network was trained on."""
        return self.snapshot.kimg

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, as far as the data set has names for them."""
        return self.snapshot.class_names

    @property
    def data(self) -> str:
        """The name of the data set that the network was trained on."""
        return self.snapshot.data

    def generate(
        self, seeds: Points | Latents, psi: float | None = None, cutoff: int | None = None, c: Classes = None
    ) -> list[Image.Image]:
        """A PIL image for each seed. Ws [N,num_ws,w_dim] and latents are used as they are.

        psi: truncation; None for 0.7 (1 for networks without w). cutoff: truncate only the first layers. c: the class,
        or one for each seed. Raises UserError for classes that the network does not have, and for missing classes.
        """
        renderer = self.snapshot.renderer
        if isinstance(seeds, Latents):
            images = renderer.draw(seeds.ws, seeds.noise or "const", edits=seeds.styles)
        else:
            images = renderer.draw(self.ws(seeds, psi, cutoff, c))
        return [to_pil(image) for image in to_uint8(images)]

    def mix(
        self, a: Points, b: Points, layers: str | Sequence[int | str], psi: float | None = None, c: Classes = None
    ) -> Tensor:
        """Style mixing: a with the styles of b in `layers`, as ws [N,num_ws,w_dim] for `generate`.

        a, b: seeds or ws, equally many, or one of them single. layers: "coarse", "middle", "fine", "0-3,6", or numbers.
        Raises UserError for layers that the network does not have.
        """
        chosen = layers_of(layers, self.config, self.stage.resolution)
        return mix_layers(self.ws(a, psi, None, c), self.ws(b, psi, None, c), chosen)

    @overload
    def move(
        self, points: Latents, direction: Directions, strength: float, layers: str | Sequence[int | str] | None = None,
        psi: float | None = None, c: Classes = None,
    ) -> Latents: ...  # fmt: skip

    @overload
    def move(
        self, points: Points, direction: Directions, strength: float, layers: str | Sequence[int | str] | None = None,
        psi: float | None = None, c: Classes = None,
    ) -> Tensor: ...  # fmt: skip

    def move(
        self, points: Points | Latents, direction: Directions, strength: float,
        layers: str | Sequence[int | str] | None = None, psi: float | None = None, c: Classes = None,
    ) -> Tensor | Latents:  # fmt: skip
        """Move by `strength` standard deviations along one direction. Returns latents for latents, ws for seeds and ws.

        layers: as for `mix`; None for those of the direction. Raises UserError as `directions.moved` does.
        """
        chosen = None
        if layers is not None:
            chosen = layers_to_move(direction, layers, self.config, self.stage.resolution)
        if isinstance(points, Latents):
            return moved(points, direction, strength, chosen)
        return moved_ws(self.ws(points, psi, None, c), direction, strength, chosen)

    def project(
        self, photos: str | Path | Sequence[str | Path], space: Literal["w", "w+"] = "w", num_steps: int = 500,
        distance: str = "", c: Class | Sequence[Class] = (), seed: int = 0,
    ) -> Latents:  # fmt: skip
        """Find the latents of photographs, including noise maps, for `generate`.

        For more settings, for images in tensors, and for pivotal tuning see `stylegan.projection`. Raises UserError as
        `project_photos` does.
        """
        settings = ProjectionSettings(space=space, num_steps=num_steps, plus_steps=num_steps, seed=seed)
        paths = [photos] if isinstance(photos, (str, Path)) else photos
        return project_photos(self.snapshot, paths, settings, distance, [c] if isinstance(c, Class) else c)

    def ws(self, points: Points, psi: float | None = None, cutoff: int | None = None, c: Classes = None) -> Tensor:
        """The truncated ws [N,num_ws,w_dim] of seeds; ws are returned as they are."""
        if isinstance(points, Tensor) and points.ndim == 3:
            return points
        if isinstance(c, str) or (isinstance(c, (list, tuple)) and any(isinstance(one, str) for one in c)):
            c = class_numbers([c] if isinstance(c, str) else c, self.config.num_classes, self.class_names, "c")
        classes = None if c is None else torch.as_tensor(c).expand(len(points))
        z = z_for_seeds([int(seed) for seed in points], self.config.z_dim)
        return self.snapshot.renderer.map(z, classes, psi=psi, cutoff=cutoff)


def load(where: str | Path, device: torch.device | str = "cpu") -> Model:
    """Open a trained model. Runs no code from its file.

    where: a snapshot (.safetensors), a published network (.pkl), a run directory (its newest snapshot), the http(s)
    address of such a file (which is downloaded once, into the cache), or the name of a model that is included or in the
    cache, which is $STYLEGAN_CACHE/models or ~/.cache/stylegan/models.

    Raises UserError if there is no such model, or if its file is damaged.
    """
    return Model(open_snapshot(where, device))
