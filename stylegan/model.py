"""The public face: `stylegan.load` returns a `Model`, which generates, mixes, moves and projects."""

from __future__ import annotations

import os
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.directions import Directions, layers_to_move, moved, moved_ws
from stylegan.editing.directions import require_fit as require_direction_fits
from stylegan.editing.settings import require_strength
from stylegan.latents.latents import Latents, checked, require_fit
from stylegan.latents.notation import layers_of, require_psi
from stylegan.latents.render import class_numbers
from stylegan.networks.arguments import Array, classes_of, integer, is_array, number, seeds_of, shown, ws_of
from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import NetworkConfig, Precision, Stage
from stylegan.networks.inference import Execution, require_precision
from stylegan.networks.sampling import mix_layers, z_for_seeds
from stylegan.projection.photos import project_photos
from stylegan.projection.settings import SPACES, ProjectionSettings
from torch_utils.device import pick_device
from torch_utils.errors import UserError
from torch_utils.images import to_pil
from torch_utils.text import Class

Classes = Class | Sequence[Class] | None
"""A class for all, or one for each: numbers or names."""
Points = int | Sequence[int] | Array
"""Seeds; or latents as a tensor or a NumPy array: ws [N,num_ws,w_dim], or w [N,w_dim], one for all layers."""


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
        """A PIL image for each seed. Ws, w and latents are used as they are.

        psi: truncation; None for 0.7 (1 for networks without w). cutoff: truncate only the first layers. c: the class,
        or one for each seed. Raises UserError as `ws` does.
        """
        renderer = self.snapshot.renderer
        if isinstance(seeds, Latents):
            _require_unused(psi=psi, cutoff=cutoff, c=c)
            latents = self._fitting(seeds)
            pixels = renderer.pixels(latents.ws, latents.noise or "const", edits=latents.styles)
        else:
            pixels = renderer.pixels(self.ws(seeds, psi, cutoff, c))
        return [to_pil(image) for image in pixels]

    def mix(
        self, a: Points, b: Points, layers: str | Sequence[int | str], psi: float | None = None, c: Classes = None
    ) -> Tensor:
        """Style mixing: a with the styles of b in `layers`, as ws [N,num_ws,w_dim] for `generate`.

        a, b: seeds or ws, equally many, or one of them single. layers: "coarse", "middle", "fine", "0-3,6", or numbers.
        psi, c: of the seeds. Raises UserError as `ws` does, and for layers that the network does not have.
        """
        chosen = layers_of(layers, self.config, self.stage.resolution)
        only_one = is_array(a) != is_array(b)  # then psi and c are for the other one
        ws_a, ws_b = (self.ws(x) if only_one and is_array(x) else self.ws(x, psi, None, c) for x in (a, b))
        if len(ws_a) != len(ws_b) and 1 not in (len(ws_a), len(ws_b)):
            raise UserError(f"a has {len(ws_a)} latents and b {len(ws_b)}; give equally many, or one of them single")
        return mix_layers(ws_a, ws_b, chosen)

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

        layers: as for `mix`; None for those of the direction. Raises UserError as `ws` and `directions.moved` do, and
        for a direction of another network.
        """
        if not isinstance(direction, Directions):
            raise UserError(f"direction must be Directions, as load_directions returns them, got {shown(direction)}")
        require_direction_fits("the direction", direction, self.snapshot)
        require_strength(number(strength, "strength"), "strength")
        chosen = None
        if layers is not None:
            chosen = layers_to_move(direction, layers, self.config, self.stage.resolution)
        if isinstance(points, Latents):
            _require_unused(psi=psi, c=c)
            return moved(self._fitting(points), direction, strength, chosen)
        return moved_ws(self.ws(points, psi, None, c), direction, strength, chosen)

    def project(
        self, photos: str | Path | Sequence[str | Path], space: Literal["w", "w+"] = "w", num_steps: int = 500,
        distance: str = "", c: Class | Sequence[Class] = (), seed: int = 0,
    ) -> Latents:  # fmt: skip
        """Find the latents of photographs, including noise maps, for `generate`.

        c: the class of all of them, or of each. For more settings, for images in tensors, and for pivotal tuning see
        `stylegan.projection`. Raises UserError for photographs that cannot be read, and for what does not fit the
        network.
        """
        paths = [photos] if isinstance(photos, (str, os.PathLike)) else photos
        if not isinstance(paths, Sequence) or not all(isinstance(path, (str, os.PathLike)) for path in paths):
            raise UserError(f"photos must be paths of image files, got {shown(photos)}; save other images to files")
        if not paths:
            raise UserError("there is no photograph to project; give at least one")
        if space not in SPACES:
            raise UserError(f"space must be 'w' or 'w+', got {shown(space)}")
        steps = integer(num_steps, "num_steps", 2, 10**9)
        settings = ProjectionSettings(
            space=space, num_steps=steps, plus_steps=steps, seed=integer(seed, "seed", -(2**63), 2**63)
        )
        given = None if isinstance(c, Sequence) and not len(c) else c
        classes = classes_of(self._numbers(given), len(paths), self.config.num_classes)
        return project_photos(self.snapshot, paths, settings, distance, () if classes is None else classes.tolist())

    def ws(self, points: Points, psi: float | None = None, cutoff: int | None = None, c: Classes = None) -> Tensor:
        """The truncated ws [N,num_ws,w_dim] of seeds, float32 on the CPU; ws are returned as they are.

        psi, cutoff, c: of seeds, see `generate`. Raises UserError for seeds, classes and numbers that the network does
        not have, for latents that do not fit it or are not finite, for none at all, and for psi, cutoff and c of ws.
        """
        if isinstance(points, Latents):
            raise UserError("latents may hold noise and changes of styles, which ws do not; give their .ws instead")
        if is_array(points):
            _require_unused(psi=psi, cutoff=cutoff, c=c)
            return _some(ws_of(points, self.config).cpu())
        if psi is not None:
            require_psi(number(psi, "psi"), "psi")
        seeds = _some(seeds_of(points))
        classes = classes_of(self._numbers(c), len(seeds), self.config.num_classes)
        z = z_for_seeds(seeds, self.config.z_dim)
        return self.snapshot.renderer.map(z, classes, psi=psi, cutoff=cutoff)

    def _numbers(self, c: Classes) -> Classes:
        """The same classes, by number where they are names. Raises UserError for a name that is none."""
        if isinstance(c, str):
            c = [c]
        if not isinstance(c, (list, tuple)) or not any(isinstance(one, str) for one in c):
            return c
        return class_numbers(c, self.config.num_classes, self.class_names, "c")

    def _fitting(self, latents: Latents) -> Latents:
        """The latents with float32 ws. Raises UserError unless they fit the network."""
        found = checked(replace(latents, ws=_some(ws_of(latents.ws, self.config).cpu())))
        require_fit("the latents", found, self.snapshot)
        return found


def load(where: str | Path, device: torch.device | str = "cpu", precision: Precision = "fp32") -> Model:
    """Open a trained model. Runs no code from its file.

    where: a snapshot (.safetensors), a published network (.pkl), a run directory (its newest snapshot), the http(s)
    address of such a file (which is downloaded once, into the cache), or the name of a model that is included or in the
    cache, which is $STYLEGAN_CACHE/models or ~/.cache/stylegan/models.
    device: "cpu", "cuda", "cuda:1", or "auto" for CUDA if there is one
    precision: number format in which images are generated: "fp32", "bf16", or on a GPU "tf32" or "fp16"

    Raises UserError if there is no such model, device or precision, or if the file is damaged.
    """
    if not isinstance(where, (str, os.PathLike)) or not str(where):
        raise UserError(f"where must be the path, address or name of a model, got {shown(where)}")
    found = pick_device(device, "device")
    require_precision(precision, found, "precision")
    return Model(replace(open_snapshot(where, found), execution=Execution(precision)))


Some = TypeVar("Some", bound=Sized)


def _some(points: Some) -> Some:
    """The points themselves. Raises UserError if there are none."""
    if not len(points):
        raise UserError("there is no seed and no latent; give at least one")
    return points


def _require_unused(**given: Any) -> None:
    """Raises UserError for arguments that only seeds take."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise UserError(f"{' and '.join(names)}: only for seeds, because latents are used as they are; leave "
                        f"{'them' if len(names) > 1 else 'it'} out")  # fmt: skip
