"""A snapshot: networks, how far they have grown, and where they come from, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.limits import require_affordable, require_buildable
from stylegan.networks.registry import build_discriminator, build_generator, config_from_json
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError
from torch_utils.settings import from_plain

FORMAT = "stylegan-snapshot-1"

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Snapshot:
    """What tools need of a trained network.

    G: the averaged generator   D: the discriminator, if it was stored   config: of both
    stage: how far it has grown   kimg: thousands of real images it was trained on   data: their name
    tuned_from: the fingerprint of the network that pivotal tuning began with, whose latents this one takes (not saved)
    """

    G: Generator
    D: Discriminator | None
    config: NetworkConfig
    stage: Stage
    kimg: float
    data: str
    tuned_from: str = ""

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return self.G.device

    @cached_property
    def fingerprint(self) -> str:
        """What distinguishes this generator from any other, see `fingerprint`."""
        return fingerprint(self.config, self.G.state_dict())

    @cached_property
    def renderer(self) -> Renderer:
        """The generator with weights prepared for generating images, at its own stage."""
        return Renderer.of(self.G, self.stage)


def fingerprint(config: NetworkConfig, weights: Mapping[str, Tensor]) -> str:
    """A hash of a generator's config and weights, 16 hexadecimal digits."""
    found = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def save_snapshot(
    path: Path, G: nn.Module, D: nn.Module | None = None, *,
    config: NetworkConfig, stage: Stage, kimg: float, data: str, half: bool = False,
) -> None:  # fmt: skip
    """Write a snapshot, whole or not at all. Raises UserError when the disk is full.

    half: as 16-bit floats, for a network that is passed on; training goes on from the 32-bit ones of the run's state
    """
    tensors = {f"G.{name}": value for name, value in G.state_dict().items()}
    if D is not None:
        tensors |= {f"D.{name}": value for name, value in D.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    header = {"format": FORMAT, "config": config.to_json(), "resolution": stage.resolution, "alpha": stage.alpha,
              "kimg": kimg,
              "data": data}  # fmt: skip
    save_tensors(path, tensors, header)


def load_snapshot(path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open what `save_snapshot` wrote. Runs no code from the file. Raises UserError if it is something else."""
    try:
        with open(path, "rb") as file:
            if file.read(64).lstrip().startswith(b"<"):
                raise UserError(f"{path} is a web page, saved under that name; download the file itself")
        tensors, plain = load_tensors(path, "a snapshot (.safetensors), a published network (.pkl), or a run's folder")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    header = _header(path, plain)
    config = header.config
    G = _build(build_generator, config, tensors, "G.", path)
    D = None
    if any(name.startswith("D.") for name in tensors):
        D = _build(build_discriminator, config, tensors, "D.", path)
    return Snapshot(
        G=G.to(device), D=D if D is None else D.to(device),
        config=config, stage=Stage(header.resolution, header.alpha), kimg=header.kimg, data=header.data,
    )  # fmt: skip


@dataclass(frozen=True)
class _Header:
    """What a snapshot file holds beside the tensors."""

    format: str
    config: NetworkConfig
    resolution: int
    alpha: float
    kimg: float
    data: str


def _header(path: Path, plain: dict[str, Any]) -> _Header:
    """Raises UserError unless everything is there, of the right type and in range."""
    if plain.get("format") != FORMAT:
        raise UserError(f"{path} is not a snapshot of this project; files of the published networks end in .pkl")
    missing = [field.name for field in fields(_Header) if field.name not in plain]
    try:
        if missing:
            raise UserError(f"it lacks {', '.join(missing)}")
        header = from_plain(_Header, plain, readers={NetworkConfig: config_from_json})
        require_buildable(header.config)
        if header.resolution not in header.config.resolutions or not 0 <= header.alpha <= 1:
            raise UserError(f"a network of {header.config.resolution} cannot have grown to resolution "
                            f"{header.resolution}, alpha {header.alpha}")  # fmt: skip
    except UserError as error:
        raise UserError(f"the header of {path} cannot be read: {error}") from error
    if not 0 <= header.kimg < 1e12:
        raise UserError(f"the header of {path} cannot be read: it has seen no such number of pictures")
    return header


def _build(
    builder: Callable[[NetworkConfig], Net], config: NetworkConfig, tensors: dict[str, Tensor], prefix: str, path: Path
) -> Net:
    """A network with the tensors whose names start with `prefix`. Raises UserError if they are not the ones it has."""
    mine = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        with torch.device("meta"):  # no random weights, and no memory if the config does not fit the file
            net = builder(config)
        require_affordable(net)
        mine = {name: value.float() for name, value in mine.items()}
        net.load_state_dict(mine, assign=True)
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from error
    except (ArithmeticError, ValueError, RuntimeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise UserError(f"the weights in {path} do not fit its config: {reason}") from error
    return net.eval().requires_grad_(False)
