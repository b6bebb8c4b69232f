"""A snapshot: networks, how far they have grown, and where they come from, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.inference import Execution, Renderer
from stylegan.networks.registry import (
    build_discriminator,
    build_empty,
    build_generator,
    config_from_json,
    require_buildable,
)
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError
from torch_utils.settings import from_plain
from torch_utils.text import printable, shortened

FORMAT = "stylegan-snapshot-1"
MAX_NAME = 80  # characters of the name of a class

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Snapshot:
    """A trained network, as tools use it.

    G: the averaged generator
    D: the discriminator, if it was stored
    config: of both
    stage: how far they have grown
    kimg: thousands of real images that they were trained on
    data: the name of the data set
    class_names: the name of each class, as far as the data set has names for them
    empty_classes: those of which they have seen no image
    tuned_from: the fingerprint of the network before pivotal tuning, whose latents this one accepts; it is not stored
    execution: how its images are computed; it is not stored
    """

    G: Generator
    D: Discriminator | None
    config: NetworkConfig
    stage: Stage
    kimg: float
    data: str
    class_names: tuple[str, ...] = ()
    empty_classes: tuple[int, ...] = ()
    tuned_from: str = ""
    execution: Execution = Execution()

    @property
    def device(self) -> torch.device:
        return self.G.device

    @cached_property
    def fingerprint(self) -> str:
        """Distinguishes this generator from any other, see `fingerprint`."""
        return fingerprint(self.config, self.G.state_dict())

    @cached_property
    def renderer(self) -> Renderer:
        """The generator with weights prepared for generating images, at its own stage."""
        return Renderer.of(self.G, self.stage, self.execution)


def fingerprint(config: NetworkConfig, weights: Mapping[str, Tensor]) -> str:
    """A hash of the config and the weights of a generator, 16 hexadecimal digits."""
    found = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


# Writing


def store(path: Path, snapshot: Snapshot, half: bool = False) -> None:
    """Write a snapshot, atomically. Raises UserError if the disk is full.

    half: as 16-bit floats, for passing the network on; training resumes from the 32-bit weights of the training state
    """
    tensors = {f"G.{name}": value for name, value in snapshot.G.state_dict().items()}
    if snapshot.D is not None:
        tensors |= {f"D.{name}": value for name, value in snapshot.D.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    config, stage = snapshot.config, snapshot.stage
    header = {"format": FORMAT, "config": config.to_json(), "resolution": stage.resolution, "alpha": stage.alpha,
              "kimg": snapshot.kimg, "data": snapshot.data}  # fmt: skip
    header |= {name: list(found) for name in ("class_names", "empty_classes") if (found := getattr(snapshot, name))}
    save_tensors(path, tensors, header)


# Reading


@dataclass(frozen=True)
class _Header:
    """The content of a snapshot file besides its tensors."""

    format: str
    config: NetworkConfig
    resolution: int
    alpha: float
    kimg: float
    data: str
    class_names: tuple[str, ...] = ()
    empty_classes: tuple[int, ...] = ()


def load_snapshot(path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open a file of `store`. Runs no code from it. Raises UserError for any other file."""
    tensors, plain = load_tensors(path, "a snapshot (.safetensors), a published network (.pkl), or a run directory")
    header = _read_header(path, plain)
    G = _load_network(path, build_generator, header.config, tensors, "G.")
    D = None
    if any(name.startswith("D.") for name in tensors):
        D = _load_network(path, build_discriminator, header.config, tensors, "D.").to(device)
    stage = Stage(header.resolution, header.alpha)
    found = Snapshot(G.to(device), D, header.config, stage, header.kimg, header.data, header.class_names,
                     header.empty_classes)  # fmt: skip
    return require_finite(found, path)


def require_finite(snapshot: Snapshot, path: Path) -> Snapshot:
    """Returns the snapshot. Raises UserError if a weight is infinite or NaN, because its images would be black."""
    nets = {"generator": snapshot.G, "discriminator": snapshot.D}
    for what, net in nets.items():
        for name, value in net.state_dict().items() if net else ():
            if value.is_floating_point() and not value.isfinite().all():
                raise UserError(f"{path} holds numbers that are not finite, in {name} of the {what}: its training had "
                                "failed, or the file is damaged; take an earlier snapshot")  # fmt: skip
    return snapshot


def _read_header(path: Path, plain: dict[str, Any]) -> _Header:
    """Raises UserError unless the header is complete, and its values have the right type and range."""
    if plain.get("format") != FORMAT:
        raise UserError(f"{path} is not a snapshot of this project; published networks are files that end in .pkl")
    missing = [field.name for field in fields(_Header) if field.name not in plain and field.default is MISSING]
    try:
        if missing:
            raise UserError(f"{', '.join(missing)} is missing")
        header = from_plain(_Header, plain, readers={NetworkConfig: config_from_json})
        require_buildable(header.config)
        if header.resolution not in header.config.resolutions or not 0 <= header.alpha <= 1:
            raise UserError(f"a network of resolution {header.config.resolution} cannot have grown to resolution "
                            f"{header.resolution}, alpha {header.alpha}")  # fmt: skip
        if len(header.class_names) > header.config.num_classes:
            raise UserError(f"{len(header.class_names)} names for {header.config.num_classes} classes")
        if not all(0 <= number < header.config.num_classes for number in header.empty_classes):
            raise UserError(f"empty_classes must be from 0 to {header.config.num_classes - 1}")
        if not 0 <= header.kimg < 1e12:
            raise UserError(f"kimg must be a number from 0 to 1e12, got {header.kimg}")
    except UserError as error:
        raise UserError(f"the header of {path} is invalid: {error}") from error
    return replace(header, class_names=tuple(printable(shortened(name, MAX_NAME)) for name in header.class_names))


def _load_network(
    path: Path, build: Callable[[NetworkConfig], Network], config: NetworkConfig, tensors: dict[str, Tensor],
    prefix: str,
) -> Network:  # fmt: skip
    """A network with the tensors whose names start with `prefix`. Raises UserError unless they are exactly its own."""
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        net = build_empty(build, config)
        net.load_state_dict({name: value.float() for name, value in own.items()}, assign=True)
    except UserError as error:
        raise UserError(f"{path} cannot be opened: {error}") from error
    except (ArithmeticError, ValueError, RuntimeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise UserError(f"the weights in {path} do not fit its config: {reason}") from error
    return net.eval().requires_grad_(False)
