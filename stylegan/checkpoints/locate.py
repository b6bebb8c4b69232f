"""Where a trained model comes from: a file, the folder of a run, a web address, or a name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import torch

from stylegan.checkpoints.snapshot import Snapshot, load_snapshot
from stylegan.checkpoints.tensorflow import load_official
from torch_utils.download import download
from torch_utils.errors import UserError
from torch_utils.files import cache_folder

INCLUDED = Path(__file__).parents[1] / "pretrained"


def open_snapshot(where: str | Path, device: torch.device | str = "cpu") -> Snapshot:
    """See `stylegan.load`."""
    if re.match(r"https?://", str(where)):
        return _fetched(str(where), device)
    return _open(locate(where), device)


def locate(where: str | Path) -> Path:
    """The file of a model that is on this machine. Raises UserError if there is none."""
    path = Path(where)
    if path.is_dir():
        return latest(path)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) != 1:  # no name, then
        raise UserError(f"there is no file or folder {where}; give a snapshot, the folder of a run, a URL or a name")
    folders = [INCLUDED, cache_folder("models")]
    for folder in folders:
        if (folder / f"{where}.safetensors").is_file():
            return folder / f"{where}.safetensors"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.safetensors")})
    raise UserError(
        f"there is no model {where}: no file or folder of that name here, and no {where}.safetensors in "
        f"{' or '.join(map(str, folders))}; known names: {', '.join(known) or 'none'}"
    )


def latest(run_dir: Path) -> Path:
    """The newest snapshot of a run. Raises UserError if there is none."""
    found = snapshots(run_dir)
    if not found:
        raise UserError(f"there is no snapshot (network-snapshot-*.safetensors) in {run_dir}")
    return found[-1]


def snapshots(run_dir: Path) -> list[Path]:
    """All of a run, the oldest first."""
    found = run_dir.glob("network-snapshot-*.safetensors")
    return sorted(found, key=lambda file: (len(file.name), file.name))  # more digits are more images


def _fetched(url: str, device: torch.device | str) -> Snapshot:
    """Open the file behind a web address. What cannot be opened is not kept."""
    try:
        name = _file_name(PurePosixPath(unquote(urlsplit(url).path)).name)
    except ValueError as error:
        raise UserError(f"{url} is no address: {error}") from error
    # The address is part of the name: many a model is called network-snapshot.
    path = cache_folder("models") / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    download([url], path)
    try:
        return _open(path, device)
    except UserError as error:
        path.unlink()
        raise UserError(f"{url} gave no model: {error}") from error


def _file_name(name: str) -> str:
    """What a web address calls its file, as a name that stays in its folder on any system."""
    safe = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[-100:]
    return safe if safe.strip("._") else "model"


def _open(path: Path, device: torch.device | str) -> Snapshot:
    if path.suffix != ".pkl":
        return load_snapshot(path, device)
    snapshot = load_official(path, with_d=True)
    for net in (snapshot.G, snapshot.D):
        if net is not None:
            net.to(device)
    return snapshot
