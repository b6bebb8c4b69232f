"""Puts an edited image back into the photograph, or the frame of a film, that it was projected from.

Its latents say where in the photograph it is from.

The image fades into the photograph towards its edges, because what was changed there, and what the network could not
generate, would show as a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from stylegan.editing.film_files import write_film
from stylegan.latents.latents import Crop, Latents
from stylegan.projection.photos import opened
from stylegan.projection.sequences import hash_of_frame, readable, within_limits
from torch_utils.errors import UserError
from torch_utils.images import to_pil
from torch_utils.images.films import Film
from torch_utils.progress import Progress

EDGE = 0.15  # of the side of the image: how wide the part is in which it fades


def photographs_of(latents: Latents, paths: Sequence[Path], force: bool = False) -> list[tuple[Path, Crop]]:
    """The photograph among `paths` that each of the latents is of, and the part of it that they show.

    force: take a photograph of the same size, in order, as after a correction of its colours
    Raises UserError for latents of no photograph, and of another one.
    """
    found: dict[str, Path] = {}
    sizes: dict[tuple[int, int], Path] = {}
    for path in paths:
        image, photo, _ = opened(path)
        found.setdefault(photo, path)
        sizes.setdefault(image.size, path)
    pairs = []
    for name, origin, crop in zip(latents.names, latents.origins, _crops_of(latents), strict=True):
        if crop is None:
            raise UserError(_not_of_any(name, origin))
        path_of = found.get(crop.photo) or (sizes.get(crop.size) if force else None)
        if path_of is None:
            what = str(paths[0]) if len(paths) == 1 else f"none of {len(paths)} photographs"
            raise UserError(f"{what} is not the file that {name} is of ({origin}); give that, or with --force another "
                            f"one of {crop.size[0]}x{crop.size[1]}")  # fmt: skip
        pairs.append((path_of, crop))
    return pairs


@dataclass(frozen=True)
class PastedFilm:
    """A film with images in the place of what they are of.

    variants: rows of the latents by the hash of their frame; several where several latents belong in the same place
    frames: how many the film has   fps: frames a second, on average   mode: RGB, or RGBA for transparent ones
    """

    film: Film
    latents: Latents
    variants: Sequence[Mapping[str, Sequence[int]]]
    frames: int
    fps: float
    mode: str

    def write(self, paths: Sequence[Path], draw: Callable[[Latents], np.ndarray]) -> None:
        """Write a film for each variant, in the memory of a few frames. draw: latents -> uint8 [N,H,W,C]"""
        for path, rows in zip(paths, self.variants, strict=True):
            with Progress(f"Writing {path.name}", self.frames, "frame") as bar:
                write_film(path, self._frames(rows, draw, bar), within_limits(self.fps))

    def _frames(
        self, rows: Mapping[str, Sequence[int]], draw: Callable[[Latents], np.ndarray], bar: Progress
    ) -> Iterator[np.ndarray]:  # fmt: skip
        for number, frame in enumerate(readable(self.film), 1):
            image = frame.image
            for row in rows.get(hash_of_frame(number, image), ()):
                (pixels,) = draw(self.latents[row : row + 1])
                crop = self.latents.crops[row]
                assert crop is not None
                image = pasted(image, to_pil(pixels), crop)
            yield np.asarray(image.convert(self.mode))
            bar.advance()


def pasted_film(film: Film, latents: Latents) -> PastedFilm:
    """What is to be pasted into a film, which is read to its end. Raises UserError for latents that are not of it."""
    variants: list[dict[Crop, int]] = []
    for i, (name, crop) in enumerate(zip(latents.names, _crops_of(latents), strict=True)):
        if crop is None:
            raise UserError(_not_of_any(name, latents.origins[i]))
        variant = next((v for v in variants if crop not in v), None)
        if variant is None:
            variants.append(variant := {})
        variant[crop] = i
    found: set[str] = set()
    seconds, modes = Fraction(0), set[str]()
    number = 0
    for number, frame in enumerate(readable(film), 1):
        found.add(hash_of_frame(number, frame.image))
        modes.add(frame.image.mode)
        seconds += frame.seconds
    for crop, i in variants[0].items():
        if crop.photo not in found:
            raise UserError(f"{film.path} has no frame that {latents.names[i]} is of ({latents.origins[i]}); give the "
                            "film that was projected")  # fmt: skip
    mode = "RGBA" if modes & {"LA", "RGBA"} else "RGB"
    return PastedFilm(
        film, latents, [_by_photo(variant) for variant in variants], number, float(number / seconds), mode
    )


def _by_photo(variant: Mapping[Crop, int]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for crop, i in variant.items():
        rows.setdefault(crop.photo, []).append(i)
    return rows


def _crops_of(latents: Latents) -> Sequence[Crop | None]:
    return latents.crops or (None,) * len(latents)


def _not_of_any(name: str, origin: str) -> str:
    return (f"the latents of {name} ({origin}) do not say where in a photograph they are from; only those that "
            "project.py has found do; let it project the photograph again")  # fmt: skip


def pasted(photograph: Image.Image, image: Image.Image, crop: Crop) -> Image.Image:
    """The photograph with an image in the place of `crop`, into which it fades. All else stays to the bit.

    photograph: L, LA, RGB or RGBA   image: L, RGB or RGBA, of any size. Colours of either make the result RGB; the
    transparency of the photograph stays, but where the image has transparency of its own it takes that.
    """
    grey = photograph.mode in ("L", "LA") and image.mode == "L"
    transparent = photograph.mode in ("LA", "RGBA") or image.mode == "RGBA"
    mode = "L" if grey and not transparent else "LA" if grey else "RGBA" if transparent else "RGB"
    photograph = photograph.convert(mode)
    to_unit, box = _to_unit(crop), _box_of(crop, photograph.size)
    if box is None:
        return photograph
    size = box[2] - box[0], box[3] - box[1]
    below = np.asarray(photograph.crop(box), np.float64).reshape(size[1], size[0], -1)
    above = np.asarray(_in_place(image.convert(mode), crop, box), np.float64).reshape(below.shape)
    weight = _weight(to_unit, box)[:, :, None]
    if transparent and image.mode != "RGBA":
        above[:, :, -1] = below[:, :, -1]
    mixed = _mixed(below, above, weight) if transparent else below + (above - below) * weight
    found = np.where(weight > 0, np.clip(np.rint(mixed), 0, 255), below).astype(np.uint8)
    result = photograph.copy()
    result.paste(Image.fromarray(found.reshape(*found.shape[:2]) if mode == "L" else found, mode), box[:2])
    return result


def _mixed(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The same for colours with transparency as the last channel: in proportion to how much is seen of each."""
    alpha = below[:, :, -1:] + (above[:, :, -1:] - below[:, :, -1:]) * weight
    seen = below[:, :, :-1] * below[:, :, -1:] * (1 - weight) + above[:, :, :-1] * above[:, :, -1:] * weight
    colours = np.divide(seen, alpha, out=below[:, :, :-1].copy(), where=alpha > 0)
    return np.concatenate([colours, alpha], axis=2)


def _to_unit(crop: Crop) -> np.ndarray:
    """The affine map [2,3] from (x, y, 1) in the photograph to the crop, whose top left is (0, 0) and whose bottom
    right is (1, 1). Raises UserError for corners in one line."""
    corner, below, _, beside = np.array(crop.corners)
    axes = np.stack([beside - corner, below - corner], axis=1)
    if abs(np.linalg.det(axes)) < 1e-6:
        raise UserError("the latents name a part of the photograph without any area; project it again")
    turned = np.linalg.inv(axes)
    return np.concatenate([turned, -(turned @ corner)[:, None]], axis=1)


def _box_of(crop: Crop, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The pixels of a photograph of this size that the crop reaches: left, top, right, bottom. None for none."""
    corners = np.array(crop.corners)
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)), size).astype(int)
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])) if (high > low).all() else None


def _in_place(image: Image.Image, crop: Crop, box: tuple[int, int, int, int]) -> Image.Image:
    """The image as it lies in that part of the photograph. It is reduced first if it is larger there."""
    corner, below, _, beside = np.array(crop.corners)
    wide, high = (max(1, round(float(np.linalg.norm(end - corner)))) for end in (beside, below))
    if wide < image.width or high < image.height:
        image = image.resize((min(wide, image.width), min(high, image.height)), Image.Resampling.LANCZOS)
    scale = np.array([[image.width], [image.height]])
    matrix = _to_unit(crop) * scale
    matrix[:, 2] += matrix[:, :2] @ np.array(box[:2])
    size = (box[2] - box[0], box[3] - box[1])
    return image.transform(size, Image.Transform.AFFINE, tuple(matrix.flatten()), Image.Resampling.BICUBIC)


def _weight(to_unit: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """How much of the image is seen at each pixel of a box, [H,W]: 1 inside, smoothly to 0 at the edges of the crop."""
    x, y = np.meshgrid(np.arange(box[0], box[2]) + 0.5, np.arange(box[1], box[3]) + 0.5)
    weight = np.ones(x.shape)
    for a, b, c in to_unit:
        at = a * x + b * y + c
        t = np.clip(np.minimum(at, 1 - at) / EDGE, 0, 1)
        weight *= t * t * (3 - 2 * t)
    return weight
