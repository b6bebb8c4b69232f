"""The files of a projection: latents, tuned weights and pictures of each photo, one report of all, and how to go on."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan.latent_file import SUFFIX
from stylegan.projection.settings import DELTA
from torch_utils.checkpoint import load_state, save_state
from torch_utils.errors import UserError
from torch_utils.images import enlarge
from torch_utils.plain_json import read_json

REPORT, STATE = "report.json", "projection-state.pt"
FILM_PIXELS, FILM_FPS = 256, 20


@dataclass(frozen=True)
class Folder:
    """Where all of it goes."""

    path: Path

    def latents(self, name: str) -> Path:
        return self.path / f"{name}{SUFFIX}"

    def delta(self, name: str) -> Path:
        return self.path / f"{name}{DELTA}"

    def picture(self, name: str) -> Path:
        return self.path / f"{name}.png"

    def film(self, name: str, kind: str) -> Path:
        return self.path / f"{name}.{kind}"

    def make(self) -> None:
        """Only when there is something to put into it, so that none is left empty."""
        self.path.mkdir(parents=True, exist_ok=True)

    def records(self) -> dict[str, dict[str, Any]]:
        """What report.json says of each photo, by name; none where there is no report, or not one of ours."""
        try:
            photos = read_json(self.path / REPORT)["photos"]
            return {photo["name"]: photo for photo in photos}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.path / REPORT} is not a report of this tool; move it away") from error

    def record(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Write report.json, whole or not at all."""
        scratch = self.path / f".{REPORT}.{os.getpid()}.tmp"
        try:
            scratch.write_text(json.dumps({"photos": list(records.values())}, indent=1) + "\n", "utf-8")
            scratch.replace(self.path / REPORT)
        finally:
            scratch.unlink(missing_ok=True)

    def state(self, key: str) -> dict[str, Any] | None:
        """What a search that was interrupted left behind, if it was this very one."""
        path = self.path / STATE
        if not path.is_file():
            return None
        try:
            found = load_state(path)
        except (OSError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} cannot be read; delete it to begin anew") from error
        return found if found.get("key") == key else None

    def keep_state(self, key: str, state: Mapping[str, Any]) -> None:
        self.make()
        save_state(self.path / STATE, {"key": key, **state})

    def saved_in_words(self) -> str:
        """What an interrupt leaves."""
        if (self.path / STATE).is_file():
            return f"and the search under way is saved in {self.path}; the same command goes on from there"
        return "nothing else is saved; the same command begins with the rest"

    def drop_state(self) -> None:
        (self.path / STATE).unlink(missing_ok=True)


def key_of(*parts: Any) -> str:
    """A hash of plain data and arrays, to tell whether something that was made is still what is asked for."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part, sort_keys=True).encode())
    return found.hexdigest()[:16]


def film_of(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames uint8 [H,W,C], enlarged to be seen; the last stays for a while."""
    large = list(enlarge(np.stack(frames), max(1, FILM_PIXELS // frames[0].shape[0])))
    return large + large[-1:] * FILM_FPS
