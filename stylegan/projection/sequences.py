"""Sequences: frames as targets, latents to start at, and the film of what was found.

Frames are images of a folder or those of a film. The latter have paths as if the film were a folder, which is how
reports and latent files name them.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.film_files import HIGHEST_FPS, LOWEST_FPS, write_film
from stylegan.latents.latents import SUFFIX, Latents, load_latents
from stylegan.latents.notation import Note, layer_ranges, points_in
from stylegan.projection.photos import Align, Photo, as_target, unique_name
from stylegan.projection.pivotal_tuning import DELTA, apply_delta
from torch_utils.errors import BadImage, UserError, in_words
from torch_utils.images import to_uint8
from torch_utils.images.films import Film, Frame, frames_in
from torch_utils.output import writing_to
from torch_utils.progress import Progress
from torch_utils.text import as_stem, counted, has_image_suffix, printable

NOTHING = np.empty(0, np.uint8)

# Frames


def in_sequence(paths: Sequence[Path]) -> list[Path]:
    """Frames of a film in the order of the numbers in their names, so that frame10 comes after frame9."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted(paths, key=key)


def frames_before(photos: Sequence[Photo]) -> list[int | None]:
    """For each photograph the number of the one before it in its sequence: of the same face, if there are several."""
    last: dict[int | None, int] = {}
    found = []
    for i, photo in enumerate(photos):
        found.append(last.get(photo.face))
        last[photo.face] = i
    return found


@dataclass(frozen=True)
class Footage:
    """The frames of a film as targets.

    photos: of the frames that can be used, for several faces one after the other   frames: how many the film has
    fps: frames a second, on average   notes: what was done to how many of `photos`   faults: why frames cannot be used,
    by their number from 1
    """

    film: Film
    photos: tuple[Photo, ...]
    frames: int
    fps: float
    notes: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)

    def said(self) -> list[str]:
        """Lines for the user."""
        name, whole = printable(self.film.path.name), len(self.photos)
        lines = [f"{name}: {counted(self.frames, 'frame')}, {self.fps:.5g} a second"]
        for note, count in self.notes.items():
            lines.append(f"{name}: {note}" + f", {count} of {whole} times" * (count < whole))
        for reason in dict.fromkeys(self.faults.values()):
            numbers = [number for number, own in self.faults.items() if own == reason]
            lines.append(f"{name}: skipped {counted(len(numbers), 'frame')} ({layer_ranges(numbers)}): {reason}")
        return lines


def place_of(film: Film, number: int) -> Path:
    """The path that stands for a frame of a film, counted from 1."""
    return film.path / f"{film.path.stem}-{number:05d}.png"


def hash_of_frame(number: int, image: Image.Image) -> str:
    """By which the latents of a frame know it. The number tells frames that look alike from each other."""
    return hashlib.sha256(f"{number} {image.size}".encode() + image.tobytes()).hexdigest()[:16]


def read_footage(
    film: Film, snapshot: Snapshot, aligns: Align | Mapping[int, Align] | None = None,
    names: Mapping[tuple[Path, int | None], str] | None = None,
) -> Footage:  # fmt: skip
    """Read a film to its end. In memory are a few frames; the targets are in a temporary file.

    aligns, names: as in `read_photos`. Raises UserError for a film that is damaged, or whose frames cannot be used.
    """
    each = list(aligns.items()) if isinstance(aligns, Mapping) else [(None, aligns)]
    path, folder, known = film.path, film.path.resolve(), names or {}
    taken = {name.lower() for (source, _), name in known.items() if source.parent == folder}
    photos: list[Photo] = []
    faults: dict[int, str] = {}
    number, seconds = 0, Fraction(0)

    with tempfile.TemporaryFile() as store, Progress(f"Reading {path.name}", unit="frame") as bar:
        for number, frame in enumerate(readable(film), 1):
            seconds += frame.seconds
            photo = hash_of_frame(number, frame.image)
            place = place_of(film, number)
            for face, align in each:
                try:
                    pixels, notes, crop = as_target(frame.image, photo, frame.note, place, snapshot, align)
                except UserError as error:
                    faults.setdefault(number, str(error).removeprefix(f"{place}: "))
                    continue
                name = known.get((place.resolve(), face)) or unique_name(place, face, taken)
                taken.add(name.lower())
                with writing_to(Path(tempfile.gettempdir())):
                    store.write(pixels.tobytes())
                photos.append(Photo(name, place, NOTHING, notes, face, crop))
            bar.advance()
        if not photos:
            raise UserError(f"{path}: none of its {counted(number, 'frame')} can be used: {faults[1]}")
        store.flush()
        kept = np.memmap(store, np.uint8, "r", shape=(len(photos), *pixels.shape))  # one, as each needs an open file
    targets = tuple(replace(photo, pixels=pixels) for photo, pixels in zip(photos, kept, strict=True))
    counts = Counter(", ".join(photo.notes) for photo in photos if photo.notes)
    return Footage(film, targets, number, float(number / seconds), counts, faults)


def readable(film: Film) -> Iterator[Frame]:
    """Yield the frames of a film. Raises UserError, which names it, where it cannot be read."""
    try:
        yield from frames_in(film)
    except BadImage as reason:
        raise UserError(f"{film.path}: {reason}") from reason
    except OSError as error:
        raise UserError(f"{film.path}: {in_words(error)}") from error


# Latents to start at


def start_files(items: Sequence[str], note: Note) -> list[Path]:
    """The latent files that are listed, and those of folders. note: is told what is left out of folders

    Raises UserError for a folder without any.
    """
    files: list[Path] = []
    for path in (Path(item).expanduser() for item in items):
        found = points_in(path, note) if path.is_dir() else [path]
        if any(has_image_suffix(file.name) for file in found):
            raise UserError(f"there is no latent file (*{SUFFIX}) to start at in the folder {path}")
        files += found
    return files


def starts_for(names: Sequence[str], files: Sequence[tuple[str, Latents]]) -> tuple[tuple[Latents, ...], str]:
    """One of the given latents for each of the photographs, or one for all, and a line on how they were assigned.

    names: of the photographs   files: the stem of each latent file, and its content. Latents are found by their name,
    or that of a file that has just one; if no name fits, they are taken in order.
    Raises UserError for other numbers of latents, for names that only some have, and for names that are not unique.
    """
    rows = [(stem, latents[i : i + 1]) for stem, latents in files for i in range(len(latents))]
    if len(rows) == 1:
        return (rows[0][1],), ""
    single = {stem for stem, latents in files if len(latents) == 1}
    by_name: dict[str, list[Latents]] = {}
    for stem, row in rows:
        for name in dict.fromkeys([*row.names, *([stem] if stem in single else [])]):
            by_name.setdefault(name, []).append(row)
    missing = [name for name in names if name not in by_name]
    if len(missing) == len(names):
        if len(rows) != len(names):
            raise UserError(
                f"there are {len(rows)} latents to start at, for {counted(len(names), 'photograph')}, and other names; "
                "give one for all, or one for each, in order or with its name"
            )
        pairs = [f"{name} at {row.names[0]}" for name, (_, row) in zip(names[:3], rows, strict=False)]
        return tuple(row for _, row in rows), f"starts in order: {', '.join(pairs)}" + ", ..." * (len(rows) > 3)
    if missing:
        others = f" and {len(missing) - 3} others" if len(missing) > 3 else ""
        raise UserError(
            f"there are latents to start at for some photographs, but not for {', '.join(missing[:3])}{others}; give "
            "one for each, or leave these photographs out"
        )
    doubled = next((name for name in names if len(by_name[name]) > 1), None)
    if doubled:
        raise UserError(f"there are {len(by_name[doubled])} latents to start at for {doubled}; give one")
    rest = len(rows) - len(names)
    unused = f"; {counted(rest, 'latent')} of no such photograph left out" if rest else ""
    return tuple(by_name[name][0] for name in names), f"starts found by their names{unused}"


# The film that comes out


def film_files(footage: Footage, outdir: Path, channels: int) -> dict[int | None, Path]:
    """Where the film of what was found goes, for each face."""
    return {
        face: outdir / film_name(footage.film, f"-face{face}" if face else "", channels)
        for face in dict.fromkeys(photo.face for photo in footage.photos)
    }


def film_name(film: Film, more: str, channels: int) -> str:
    """The name of a film that is made of another: an MP4 where that is a video file, otherwise a WebP, lossless."""
    return as_stem(film.path.stem) + more + (".mp4" if film.container and channels != 4 else ".webp")


def within_limits(fps: float) -> float:
    """Frames a second that a film can be written with."""
    return min(max(fps, LOWEST_FPS), HIGHEST_FPS)


def write_found(footage: Footage, outdir: Path, snapshot: Snapshot, tuned: bool) -> list[Path]:
    """Films of what was found, as fast as the source, from the files of a job; a file for each face.

    A frame that was skipped shows what was found for the one before it, so that the time stays that of the source.
    tuned: whether the weights tuned to each frame belong to it
    """
    files = film_files(footage, outdir, snapshot.config.channels)
    for face, path in files.items():
        own = {photo.path: photo for photo in footage.photos if photo.face == face}
        shown = next(iter(own.values()))
        frames: list[Photo] = []
        for number in range(1, footage.frames + 1):
            shown = own.get(place_of(footage.film, number), shown)
            frames.append(shown)
        with Progress(f"Writing {path.name}", len(frames), "frame") as bar:
            write_film(path, _drawn(frames, outdir, snapshot, tuned, bar), within_limits(footage.fps))
    return list(files.values())


def _drawn(
    frames: Sequence[Photo], outdir: Path, snapshot: Snapshot, tuned: bool, bar: Progress
) -> Iterator[np.ndarray]:  # fmt: skip
    for name, same in groupby(frames, key=lambda photo: photo.name):
        latents = load_latents(outdir / f"{name}{SUFFIX}", snapshot)
        network = apply_delta(snapshot, outdir / f"{name}{DELTA}") if tuned else snapshot
        (pixels,) = to_uint8(network.renderer.draw(latents.ws, latents.noise or "const"))
        for _ in same:
            yield pixels
            bar.advance()
