"""Photographs: read from any image file, fitted to the network's images, and projected in one call.

The tools that start from seeds take photographs in their place: `projecting` finds their latents.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents, joined
from stylegan.latents.render import Project, View, classes_for_seeds
from stylegan.networks.base import require_w
from stylegan.networks.sampling import z_for_seeds
from stylegan.projection.distance import pick_distance
from stylegan.projection.projector import Projector, SearchStep, Watch
from stylegan.projection.settings import ProjectionSettings
from torch_utils.errors import UserError, in_words
from torch_utils.images import BadImage, centred_box, read_image, to_float, with_channels
from torch_utils.progress import Progress
from torch_utils.text import as_stem, counted, is_image
from torch_utils.untrusted import read_plain

Align = Callable[[Image.Image], tuple[Image.Image, str]]
"""An RGB image -> the face in it, and a note on what was done. Raises UserError if there is no face."""


@dataclass(frozen=True)
class Photo:
    """A target of a projection. name: unique, and safe for files   pixels: uint8 [H,W,C]   notes: what was changed"""

    name: str
    path: Path
    pixels: np.ndarray
    notes: tuple[str, ...]


# From files to targets


def photos_in(target: Path) -> list[Path]:
    """The file itself, or the images of a folder in the order of their names. Raises UserError if there are none."""
    if target.is_dir():
        found = sorted(path for path in target.iterdir() if path.is_file() and is_image(path.name))
        if not found:
            raise UserError(f"There is no image in {target}: give a folder with PNG, JPEG or WebP files, or one file")
        return found
    if not target.is_file():
        raise UserError(f"There is no file or folder {target}: give an image, or a folder with images")
    return [target]


def read_photos(
    paths: Sequence[Path], snapshot: Snapshot, align: Align | None = None
) -> tuple[list[Photo], dict[Path, str]]:
    """The photographs that can be read, with unique names, and the reasons why others cannot."""
    photos: list[Photo] = []
    faults: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        try:
            pixels, notes = read_photo(path, snapshot, align)
        except UserError as error:
            faults[path] = str(error)
            continue
        name = _unique_name(path, taken)
        taken.add(name.lower())
        photos.append(Photo(name, path, pixels, notes))
    return photos, faults


def _unique_name(path: Path, taken: set[str]) -> str:
    """The name of the file without its suffix, without characters that file systems reject, and not yet taken."""
    stem = "".join(letter if letter.isprintable() and letter not in ":\\" else "_" for letter in path.stem)
    stem = as_stem(stem) if stem.strip(". ") else "photo"
    name, number = stem, 2
    while name.lower() in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def read_photo(path: Path, snapshot: Snapshot, align: Align | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 [H,W,C] in the size of the network's images, and notes on what was changed. Raises UserError."""
    height, width = snapshot.config.size(snapshot.stage.resolution)
    notes = ["", "", ""]
    try:
        image = read_image(read_plain(path, "picture_mib"))
    except BadImage as reason:
        raise UserError(f"{path}: {reason}") from reason
    except OSError as error:
        raise UserError(f"{path}: {in_words(error)}") from error
    if align is not None:
        try:
            image, notes[0] = align(image.convert("RGB"))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    image, notes[1] = converted(image, snapshot.config.channels)
    image, notes[2] = fitted(image, width, height)
    return np.array(image).reshape(height, width, snapshot.config.channels), tuple(filter(None, notes))


def converted(image: Image.Image, channels: int) -> tuple[Image.Image, str]:
    """L, LA, RGB or RGBA -> 1, 3 or 4 channels, and a note if that changes anything.

    Transparent images are laid on white, unless the network has a channel for transparency.
    """
    grey, transparent = image.mode in ("L", "LA"), image.mode in ("LA", "RGBA")
    if channels == 4:
        note = "" if transparent else f"{'grey' if grey else 'RGB'} made RGBA"
        return with_channels(image, channels, "keep"), note
    changes = ["laid on white"] * transparent
    if grey != (channels == 1):
        changes.append("grey made RGB" if grey else "colour made grey")
    return with_channels(image, channels), ", ".join(changes)


def fitted(image: Image.Image, width: int, height: int) -> tuple[Image.Image, str]:
    """Cropped about the centre to the aspect ratio, and resized, with a note if that changes anything.

    An image that is a whole number of times larger is averaged, as training images are reduced; others are resampled
    with a Lanczos filter.
    """
    if image.size == (width, height):
        return image, ""
    box = centred_box(image.size, (width, height))
    cropped = box[2] - box[0], box[3] - box[1]
    whole = cropped[0] % width == 0 and cropped[1] % height == 0
    note = f"{image.width}x{image.height} "
    if cropped != image.size:
        note += f"cut to {cropped[0]}x{cropped[1]} "
    resample = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
    return image.resize((width, height), resample, box=box), f"{note}resized to {width}x{height}"


def as_targets(photos: Sequence[Photo]) -> Tensor:
    """[N,C,H,W] in [-1, 1]."""
    return to_float(torch.from_numpy(np.stack([photo.pixels for photo in photos])).permute(0, 3, 1, 2))


# From targets to latents


def project_photos(
    snapshot: Snapshot, paths: Sequence[str | Path], settings: ProjectionSettings, distance: str = "",
    c: Sequence[int] = (),
) -> Latents:  # fmt: skip
    """The latents of photographs, all in one batch, named after their files.

    distance: one of `DISTANCES`, "" for the default. c: classes; of a list, photo I gets number I, counted round.
    Raises UserError for a file that is not an image, and as `Projector.project` does.
    """
    photos = _readable(snapshot, paths)
    classes = classes_for_seeds(c, range(len(photos)), snapshot.config.num_classes)
    return latents_of(photos, Projector(snapshot, settings, pick_distance(distance, snapshot)), classes)


def latents_of(photos: Sequence[Photo], projector: Projector, c: Tensor | None, watch: Watch | None = None) -> Latents:
    """The latents of photographs of classes c [N], all in one batch. Raises UserError as `Projector.project` does."""
    latents, _ = projector.project(as_targets(photos), c, watch)
    return named(latents, photos)


def named(latents: Latents, photos: Sequence[Photo]) -> Latents:
    """Latents named after the photographs that they belong to, and on the CPU."""
    cpu = torch.device("cpu")
    return replace(
        latents, ws=latents.ws.to(cpu), c=None if latents.c is None else latents.c.to(cpu),
        noise=tuple(m.to(cpu) for m in latents.noise), names=tuple(photo.name for photo in photos),
        origins=tuple(f"photo {photo.path.name}" for photo in photos),
    )  # fmt: skip


def _readable(snapshot: Snapshot, paths: Sequence[str | Path]) -> list[Photo]:
    photos, faults = read_photos([Path(path) for path in paths], snapshot)
    if faults:
        raise UserError("; ".join(faults.values()))
    return photos


# In place of seeds


def projecting(num_steps: int, batch: int = 8) -> Project:
    """What `sources.gather` takes to open photographs with: projects each once, `batch` of them at a time."""
    settings = ProjectionSettings(num_steps=num_steps)
    projector_of = functools.cache(lambda snapshot: Projector(snapshot, settings, pick_distance("", snapshot)))
    known: dict[tuple[Path, int | None], Latents] = {}

    def find(paths: Sequence[Path], view: View, c: Sequence[int]) -> Latents:
        kinds: Sequence[int | None] = c or [None] * len(paths)
        wished = list(zip(paths, kinds, strict=True))
        todo = [photograph for photograph in wished if photograph not in known]
        steps = num_steps * math.ceil(len(todo) / batch)
        with Progress(f"Projecting {counted(len(todo), 'photo')}", steps, "step", quiet=not todo) as bar:
            for start in range(0, len(todo), batch):
                part = todo[start : start + batch]
                photos = _readable(view.snapshot, [path for path, _ in part])
                own = [kind for _, kind in part if kind is not None]
                classes = classes_for_seeds(own, range(len(photos)), view.snapshot.config.num_classes)
                found = latents_of(photos, projector_of(view.snapshot), classes, partial(show, bar))
                known.update((photograph, found[i : i + 1]) for i, photograph in enumerate(part))
        return joined([known[photograph] for photograph in wished])

    return find


def show(bar: Progress, step: SearchStep) -> None:
    """Advance the bar by a step, and show how far off the images are on average."""
    bar.advance(note=f"{step.phase} {float(step.distances.mean()):.4f}")


def standing_in(paths: Sequence[Path], view: View, c: Sequence[int]) -> Latents:
    """Takes the place of `projecting` for plans and early checks: any latents, at once, for photographs.

    Raises UserError for those that cannot be projected.
    """
    require_w(view.snapshot.G)
    photos, config = _readable(view.snapshot, paths), view.snapshot.config
    ws = view.snapshot.G.broadcast(z_for_seeds(range(len(paths)), config.ws_dim))
    names = tuple(photo.name for photo in photos)
    return Latents(ws, names, names, c=torch.tensor(c) if c else None)
