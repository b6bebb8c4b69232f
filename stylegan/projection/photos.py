"""Photographs: read from any image file, fitted to the network's images, and projected in one call.

The tools that start from seeds take photographs in their place: `projecting` finds their latents.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Crop, Latents, joined
from stylegan.latents.render import Project, View, classes_for_seeds, require_room
from stylegan.networks.base import require_w
from stylegan.networks.sampling import z_for_seeds
from stylegan.projection.alignment import corners_of
from stylegan.projection.distance import pick_distance
from stylegan.projection.projector import Projector, SearchStep, Watch
from stylegan.projection.settings import ProjectionSettings
from torch_utils.errors import UserError, in_words
from torch_utils.images import (
    BadImage,
    centred_box,
    exact,
    frames_of,
    open_image,
    read_image,
    shown_values,
    to_float,
    with_channels,
)
from torch_utils.images.colour import profile_note
from torch_utils.images.deep import depth_of
from torch_utils.images.ranges import BYTES, WHOLE, Levels, decide, is_dark, is_flat, widest
from torch_utils.progress import Progress
from torch_utils.text import (
    AUTO_LEVELS,
    Class,
    LevelsRule,
    Range,
    as_stem,
    counted,
    is_image,
    no_images,
    other_files,
    say,
)
from torch_utils.untrusted import read_plain

Align = Callable[[Image.Image], tuple[Image.Image, str, np.ndarray]]
"""An RGB or RGBA image -> the face in it, a note on what was done, and the corners [4,2] of the face in the image.

Raises UserError if there is no face.
"""


@dataclass(frozen=True)
class Photo:
    """A target of a projection. name: unique, and safe for files   pixels: uint8 [H,W,C]   notes: what was changed

    face: which of several faces was asked for   crop: the part of the file that the pixels show
    """

    name: str
    path: Path
    pixels: np.ndarray
    notes: tuple[str, ...]
    face: int | None = None
    crop: Crop | None = None


# From files to targets


def photos_in(target: Path) -> list[Path]:
    """The file itself, or the images of a folder in the order of their names. Raises UserError if there are none."""
    if target.is_dir():
        try:
            names = [entry.name for entry in os.scandir(target) if not entry.is_dir()]
        except OSError as error:
            raise UserError(
                f"Cannot list {target}: {error.strerror}; make it readable, or give another folder"
            ) from error
        found = sorted(target / name for name in names if is_image(name))
        if not found:
            raise UserError(
                no_images(target, names, "give a folder with images, such as *.png, *.jpg or *.tif, or one file")
            )
        return found
    if not target.is_file():
        raise UserError(f"There is no file or folder {target}: give an image, or a folder with images")
    return [target]


def left_out_of(target: Path) -> str:
    """A line on what else is in a folder, and not projected; "" for nothing."""
    if not target.is_dir():
        return ""
    entries = list(os.scandir(target))
    folders = sum(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
    parts = [other_files(entry.name for entry in entries if not entry.is_dir())]
    parts += [counted(folders, "folder")] if folders else []
    found = " and ".join(filter(None, parts))
    return f"{target}: {found} left out; images are files named *.png, *.jpg, *.tif and the like" if found else ""


def read_photos(
    paths: Sequence[Path],
    snapshot: Snapshot,
    aligns: Align | Mapping[int, Align] | None = None,
    levels: Levels | None = None,
    names: Mapping[tuple[Path, int | None], str] | None = None,
) -> tuple[list[Photo], dict[Path, str]]:
    """The photographs that can be read, with unique names, and the reasons why others cannot, which name them.

    aligns: what crops a face; by number for several faces of each photograph, which their names tell apart
    levels: which values become black and white; by default those of `levels_of` for these photographs
    names: that some photographs have already, by the resolved path of their file and the number of the face
    """
    levels = levels or levels_of(paths)
    photos: list[Photo] = []
    faults: dict[Path, str] = {}
    each: list[tuple[int | None, Align | None]]
    each = list(aligns.items()) if isinstance(aligns, Mapping) else [(None, aligns)]
    known = {s: name for s in product((p.resolve() for p in paths), dict(each)) if (name := (names or {}).get(s))}
    taken = {name.lower() for name in known.values()}
    for path in paths:
        for face, align in each:
            try:
                pixels, notes, crop = _read(path, snapshot, align, levels)
            except UserError as error:
                faults.setdefault(path, str(error))
                continue
            name = known.get((path.resolve(), face)) or unique_name(path, face, taken)
            taken.add(name.lower())
            photos.append(Photo(name, path, pixels, notes, face, crop))
    return photos, faults


def unique_name(path: Path, face: int | None, taken: set[str]) -> str:
    """The name of the file without its suffix, without characters that file systems reject, and not yet taken."""
    stem = "".join(letter if letter.isprintable() and letter not in ":\\" else "_" for letter in path.stem)
    stem = (as_stem(stem) if stem.strip(". ") else "photo") + ("" if face is None else f"-face{face}")
    name, number = stem, 2
    while name.lower() in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def levels_of(paths: Sequence[Path], rule: LevelsRule = AUTO_LEVELS) -> Levels:
    """The levels of all photographs together. Only those with more than 8 bits are decoded for it.

    Raises UserError for a rule that would make photographs with 8 bits black.
    """
    used: list[tuple[str, Range]] = []
    for path in paths:
        try:
            content = read_plain(path, "picture_mib")
            image = open_image(content)
            depth = depth_of(image)
            used.append((depth, Range(*WHOLE[BYTES]) if depth == BYTES else exact(image, content).shown.used))
        except (BadImage, OSError):
            continue  # `read_photo` says why
    return decide(widest(used), rule)


def read_photo(
    path: Path, snapshot: Snapshot, align: Align | None = None, levels: Levels | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 [H,W,C] in the size of the network's images, and notes on what was changed. Raises UserError."""
    pixels, notes, _ = _read(path, snapshot, align, levels)
    return pixels, notes


def _read(
    path: Path, snapshot: Snapshot, align: Align | None, levels: Levels | None
) -> tuple[np.ndarray, tuple[str, ...], Crop]:
    """The same, and the part of the photograph that the pixels show."""
    photograph, photo, file = opened(path, levels)
    return as_target(photograph, photo, file, path, snapshot, align)


def as_target(
    photograph: Image.Image, photo: str, file: str, path: Path, snapshot: Snapshot, align: Align | None
) -> tuple[np.ndarray, tuple[str, ...], Crop]:
    """A photograph as `opened` returns it, with hash and note, as a target: what `read_photo` returns, and which part
    of the photograph the pixels show. Raises UserError, which names `path`."""
    height, width = snapshot.config.size(snapshot.stage.resolution)
    channels = snapshot.config.channels
    image, aligned, laid, corners = photograph, "", "", corners_of((0, 0, *photograph.size))
    if align is not None:
        transparent = image.mode in ("LA", "RGBA")
        laid = "laid on white" if transparent and channels != 4 else ""
        image = with_channels(image, 4, "keep") if transparent and not laid else with_channels(image, 3)
        try:
            image, aligned, corners = align(image)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    box = corners_of(centred_box(image.size, (width, height))) / image.size
    corners = corners[0] + box @ (corners[[3, 1]] - corners[0])  # of the part that `fitted` leaves, in the photograph
    crop = Crop(photo, photograph.size, tuple((float(x), float(y)) for x, y in corners))
    image, colours = converted(image, channels)
    image, size = fitted(image, width, height)
    pixels = np.array(image).reshape(height, width, channels)
    return pixels, tuple(filter(None, (file, laid, aligned, colours, size))), crop


def opened(path: Path, levels: Levels | None = None) -> tuple[Image.Image, str, str]:
    """A photograph, upright, in mode L, LA, RGB or RGBA, a hash of its file, and a note on what was done to the file.

    Raises UserError, which names it.
    """
    try:
        content = read_plain(path, "picture_mib")
        image = read_image(content, levels)
        return image, hashlib.sha256(content).hexdigest()[:16], file_note(content, image, levels)
    except BadImage as reason:
        raise UserError(f"{path}: {reason}") from reason
    except OSError as error:
        raise UserError(f"{path}: {in_words(error)}") from error


def file_note(content: bytes, image: Image.Image, levels: Levels | None) -> str:
    """What was done to the file of a photograph, `image`, before anything else: its levels, its colours, its pages."""
    file = open_image(content)
    depth, frames, profile = depth_of(file), frames_of(file), profile_note(file)
    notes = []
    if levels and tuple(levels.ranges.get(depth, WHOLE[BYTES])) != WHOLE[BYTES]:
        notes.append(f"{depth} values, {levels.ranges[depth]} as black to white")
    if profile:
        notes.append(profile)
    if frames > 1:
        notes.append(f"the first of {frames} images in the file")
    made = shown_values(image).most
    if is_dark(made) and image.mode in ("L", "RGB"):
        notes.append("dark, with next to nothing brighter than a quarter of white; project.py --levels "
                     "MIN:MAX says what is white")  # fmt: skip
    elif is_flat(made) and image.mode in ("L", "RGB"):
        values = made if depth == BYTES else exact(file, content).shown.most
        notes.append(f"almost one grey, {made.low} to {made.high} of 255; project.py --levels {values} spreads "
                     "them")  # fmt: skip
    return ", ".join(notes)


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
    c: Sequence[Class] = (),
) -> Latents:  # fmt: skip
    """The latents of photographs, all in one batch, named after their files.

    distance: one of `DISTANCES`, "" for the default. c: classes; of a list, photo I gets number I, counted round.
    Raises UserError for a file that is not an image, and as `Projector.project` does.
    """
    photos = _readable(snapshot, paths)
    classes = classes_for_seeds(c, range(len(photos)), snapshot.config.num_classes, snapshot.class_names)
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
        origins=tuple(f"photo {photo.path.name}" for photo in photos), crops=tuple(photo.crop for photo in photos),
    )  # fmt: skip


def _readable(snapshot: Snapshot, paths: Sequence[str | Path], levels: Levels | None = None) -> list[Photo]:
    photos, faults = read_photos([Path(path) for path in paths], snapshot, levels=levels)
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
        require_room(view.snapshot, min(batch, len(todo)), searched=True)
        steps = num_steps * math.ceil(len(todo) / batch)
        levels = levels_of(paths) if todo else None
        with Progress(f"Projecting {counted(len(todo), 'photo')}", steps, "step", quiet=not todo) as bar:
            for start in range(0, len(todo), batch):
                part = todo[start : start + batch]
                photos = _readable(view.snapshot, [path for path, _ in part], levels)
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

    Says what was changed in each, before it takes time to project them.
    Raises UserError for those that cannot be projected.
    """
    require_w(view.snapshot.G)
    photos, config = _readable(view.snapshot, paths), view.snapshot.config
    for photo in photos:
        if photo.notes:
            say(f"{photo.path.name}: {', '.join(photo.notes)}", err=True)
    ws = view.snapshot.G.broadcast(z_for_seeds(range(len(paths)), config.ws_dim))
    names = tuple(photo.name for photo in photos)
    return Latents(ws, names, names, c=torch.tensor(c) if c else None)
