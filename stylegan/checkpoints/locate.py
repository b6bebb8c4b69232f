"""Where a trained model is: a file, a run directory, a web address, or a name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import torch

from stylegan.checkpoints.foreign import ADVICE, zip_content
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot
from stylegan.checkpoints.stylegan2_ada import load_pickle
from torch_utils.download import download
from torch_utils.errors import UserError, in_words
from torch_utils.files import cache_folder
from torch_utils.untrusted import BEGINNING, HDF5, PICKLE, ZIP, recognised

INCLUDED = Path(__file__).parents[1] / "pretrained"


def open_snapshot(where: str | Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open a trained model, see `stylegan.load`."""
    if re.match(r"https?://", str(where)):
        return _fetch(str(where), device)
    return _open(locate(where), device)


def locate(where: str | Path) -> Path:
    """The file of a model on this machine. Raises UserError if there is none."""
    path = Path(where)
    if path.is_dir():
        return latest(path)
    if path.is_file():
        return path
    if path.exists():
        raise UserError(f"{where} is neither a file nor a folder; give a snapshot, a run directory, a URL or a name")
    if path.suffix or len(path.parts) != 1:  # then it is not a name
        raise UserError(f"there is no file or folder {where}; give a snapshot, a run directory, a URL or a name")
    folders = [INCLUDED, cache_folder("models")]
    for folder in folders:
        if (folder / f"{where}.safetensors").is_file():
            return folder / f"{where}.safetensors"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.safetensors")})
    raise UserError(
        f"there is no model {where}: neither a file or folder of that name here, nor a {where}.safetensors in "
        f"{' or '.join(map(str, folders))}; known names: {', '.join(known) or 'none'}"
    )


def latest(run_dir: Path) -> Path:
    """The newest snapshot of a run. Raises UserError if it has none."""
    found = snapshots(run_dir)
    if not found:
        others = sorted(file.name for file in run_dir.glob("network-*.pkl"))
        cure = f"; give one of its files, such as {run_dir / others[-1]}" if others else ""
        raise UserError(f"there is no snapshot (network-snapshot-*.safetensors) in {run_dir}{cure}")
    return found[-1]


def snapshots(run_dir: Path) -> list[Path]:
    """All snapshots of a run, the oldest first."""
    found = run_dir.glob("network-snapshot-*.safetensors")
    return sorted(found, key=lambda file: (len(file.name), file.name))  # more digits are more images


def _open(path: Path, device: torch.device | str) -> Snapshot:
    """Open a snapshot or a published network: its first bytes tell which, whatever its name."""
    try:
        with path.open("rb") as file:
            what, _ = recognised(file.read(BEGINNING))
    except OSError as error:
        raise UserError(f"cannot read {path}: {in_words(error)}") from error
    if what == ZIP:
        raise UserError(f"{path} is {zip_content(path)}; {ADVICE}")
    if what == HDF5:
        raise UserError(f"{path} is {HDF5}, as Keras writes networks; {ADVICE}")
    published = what == PICKLE or (not what and path.suffix.lower() == ".pkl")
    return load_pickle(path, device) if published else load_snapshot(path, device)


def _fetch(url: str, device: torch.device | str) -> Snapshot:
    """Download a model into the cache, unless it is there, and open it. A file that cannot be opened is deleted."""
    try:
        name = _file_name(PurePosixPath(unquote(urlsplit(url).path)).name)
    except ValueError as error:
        raise UserError(f"Invalid address {url}: {error}") from error
    # The folder depends on the address, because many models are called network-snapshot.
    path = cache_folder("models") / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    download([url], path, limit="pickle_gib")
    try:
        return _open(path, device)
    except UserError as error:
        path.unlink()
        raise UserError(f"{url} is not a model: {error}") from error


def _file_name(name: str) -> str:
    """The file name in a web address, made safe: it stays in its folder on any system."""
    safe = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[-100:]
    return safe if safe.strip("._") else "model"
