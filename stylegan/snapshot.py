"""A snapshot: networks, how far they have grown, and where they come from, in one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan.config import ModelConfig
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.networks import build_discriminator, build_generator
from stylegan.progan import ProGANGenerator
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError

FORMAT = "stylegan-snapshot-1"


@dataclass(frozen=True)
class Snapshot:
    """What tools need of a trained model.

    G: the averaged generator   D: the discriminator, if it was stored   config: of both
    resolution, alpha: how far it has grown   kimg: thousands of real images it was trained on   data: their name
    """

    G: Generator | ProGANGenerator
    D: Discriminator | None
    config: ModelConfig
    resolution: int
    alpha: float
    kimg: float
    data: str


def save_snapshot(
    path: Path, G: nn.Module, D: nn.Module | None = None, *,
    config: ModelConfig, resolution: int, alpha: float, kimg: float, data: str,
) -> None:  # fmt: skip
    """Write a snapshot, whole or not at all. Raises UserError when the disk is full."""
    tensors = {f"G.{name}": value for name, value in G.state_dict().items()}
    if D is not None:
        tensors |= {f"D.{name}": value for name, value in D.state_dict().items()}
    header = {"format": FORMAT, "config": config.to_json(), "resolution": resolution, "alpha": alpha, "kimg": kimg,
              "data": data}  # fmt: skip
    save_tensors(path, tensors, header)


def load_snapshot(path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open what `save_snapshot` wrote. Runs no code from the file. Raises UserError if it is something else."""
    tensors, header = load_tensors(path)
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is not a snapshot of this project; files of the published networks end in .pkl")
    config = ModelConfig.from_json(header["config"])
    G = build_generator(config)
    _fill(G, tensors, "G.", path)
    G.synthesis.grown = (header["resolution"], header["alpha"])
    D = None
    if any(name.startswith("D.") for name in tensors):
        D = build_discriminator(config)
        _fill(D, tensors, "D.", path)
    return Snapshot(
        G=G.eval().requires_grad_(False).to(device),
        D=D.eval().requires_grad_(False).to(device) if D is not None else None,
        config=config, resolution=header["resolution"], alpha=header["alpha"], kimg=header["kimg"], data=header["data"],
    )  # fmt: skip


def _fill(net: nn.Module, tensors: dict[str, Tensor], prefix: str, path: Path) -> None:
    mine = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        net.load_state_dict(mine)
    except RuntimeError as error:
        raise UserError(f"the weights in {path} do not fit its config: {str(error).splitlines()[-1].strip()}") from None


def load(where: str | Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open a trained model: see `stylegan.load`."""
    path = Path(where)
    if path.is_dir():
        path = latest(path)
    if not path.exists():
        raise UserError(f"there is no {where}; name a .safetensors or .pkl file or the folder of a run")
    return load_snapshot(path, device)


def latest(run_dir: Path) -> Path:
    """The newest snapshot of a run. Raises UserError if there is none."""
    found = sorted(run_dir.glob("network-snapshot-*.safetensors"))
    if not found:
        raise UserError(f"there is no snapshot (network-snapshot-*.safetensors) in {run_dir}")
    return found[-1]
