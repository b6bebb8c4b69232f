"""Are generated images copies? The training images nearest to each, mirror images included."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from stylegan.checkpoints.snapshot import Snapshot
from torch_utils.errors import UserError
from torch_utils.images import MIN_CAPTIONED_WIDTH, TEXT, enlarge, grid, to_uint8
from torch_utils.progress import Progress
from training.data.archive import Archive
from training.metrics.features import Embedding
from training.metrics.images import AS_PUBLISHED, Sampling, pages, samples_of

BATCH, BLOCK = 64, 2048  # images that are embedded at once; rows of features in memory as float64


@dataclass(frozen=True)
class Nearest:
    """Of N fakes the k nearest of M reals, the nearest first.

    distances: Euclidean between features, [N,k]   places: which real, [N,k]   mirrored: is it its mirror image? [N,k]
    own: from the nearest real to the real that is nearest to it, mirror images included, [N]
    """

    distances: np.ndarray
    places: np.ndarray
    mirrored: np.ndarray
    own: np.ndarray

    @property
    def closeness(self) -> np.ndarray:
        """The distance to the nearest real over that from it to its nearest real: below 1 for a suspect. [N]."""
        return self.distances[:, 0] / np.where(self.own > 0, self.own, np.inf)

    @property
    def share(self) -> float:
        """The share of fakes that are nearer to a real than that is to any other real.

        One minus authenticity (Alaa et al. 2022, "How faithful is your synthetic data?", section 3). About 0.5 for
        other real images of the same kind, 1 for copies.
        """
        return float((self.distances[:, 0] < self.own).mean())


@dataclass(frozen=True)
class Neighbours:
    """What `nearest_training` found, with the images: fakes uint8 [N,C,H,W], stored uint8 [M,C,H,W], of all reals."""

    found: Nearest
    fakes: np.ndarray
    stored: np.ndarray


def nearest_training(
    snapshot: Snapshot, archive: Archive, embed: Embedding, count: int = 256, k: int = 5,
    sampling: Sampling = AS_PUBLISHED,
) -> Neighbours:  # fmt: skip
    """The `k` nearest training images of fakes 0 to `count`. embed: such as `FeatureNetwork.embed`.

    Raises UserError for an archive that has no more than `k` images or does not fit the network, and for features
    that are no numbers.
    """
    stored = pages(archive, snapshot)
    if len(stored) <= k or count < 1:
        raise UserError(
            f"{archive.path} has {len(stored)} images: ask for the nearest of fewer, and for 1 fake or more"
        )
    drawn = samples_of(snapshot, sampling, count, "Drawing")
    fakes = np.concatenate([to_uint8(samples.images).transpose(0, 3, 1, 2) for samples in drawn])
    of_fakes, reals, mirrored = (
        features_of(pixels, embed, snapshot.device, flip, sampling.quiet)
        for pixels, flip in ((fakes, False), (stored, False), (stored, True))
    )
    return Neighbours(nearest(of_fakes, reals, mirrored, k), fakes, stored)


def features_of(
    stored: np.ndarray, embed: Embedding, device: torch.device, flip: bool = False, quiet: bool = False
) -> np.ndarray:
    """The features of images uint8 [N,C,H,W], or of their mirror images: float32 [N,dims]."""
    parts = []
    with Progress("Mirror images" if flip else "Features", len(stored), quiet=quiet) as bar:
        for start in range(0, len(stored), BATCH):
            images = torch.from_numpy(np.array(stored[start : start + BATCH]))
            with torch.inference_mode():
                parts.append(embed((images.flip(3) if flip else images).to(device)).float().cpu().numpy())
            bar.advance(len(images))
    return np.concatenate(parts)


def nearest(fakes: np.ndarray, reals: np.ndarray, mirrored: np.ndarray, k: int = 5) -> Nearest:
    """By features: of fakes [N,d], of reals [M,d] and of their mirror images [M,d], M > k.

    Memory grows with N and `BLOCK`, not with M. Raises UserError for features that are no numbers.
    """
    for name, features in (("generated images", fakes), ("training images", reals), ("mirror images", mirrored)):
        if not np.isfinite(features).all():
            raise UserError(f"features of {name} are no numbers; the network or the feature network is broken")
    distances, places = np.full((len(fakes), k), np.inf), np.zeros((len(fakes), k), int)
    flips = np.zeros((len(fakes), k), bool)
    for start, squares, turned in _blocks(fakes, reals, mirrored):
        here = np.broadcast_to(np.arange(start, start + squares.shape[1]), squares.shape)
        both = [np.concatenate(pair, axis=1) for pair in ((distances, squares), (places, here), (flips, turned))]
        best = np.argsort(both[0], axis=1, kind="stable")[:, :k]
        distances, places, flips = (np.take_along_axis(x, best, axis=1) for x in both)
    matched, back = np.unique(places[:, 0], return_inverse=True)
    own = np.full(len(matched), np.inf)
    for start, squares, _ in _blocks(reals[matched], reals, mirrored):
        inside = (matched >= start) & (matched < start + squares.shape[1])
        squares[inside, matched[inside] - start] = np.inf  # itself
        own = np.minimum(own, squares.min(axis=1))
    return Nearest(np.sqrt(distances), places, flips, np.sqrt(own[back]))


def _blocks(asked: np.ndarray, reals: np.ndarray, mirrored: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For some reals at a time: where they begin, squared distances [N,m] to the nearer of both forms, and which.

    In float64, as squared distances are differences of larger squares.
    """
    asked = asked.astype(np.float64)
    for start in range(0, len(reals), BLOCK):
        plain, turned = (_squares(asked, x[start : start + BLOCK].astype(np.float64)) for x in (reals, mirrored))
        yield start, np.minimum(plain, turned), turned < plain


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    gaps = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return gaps.clip(min=0)


# A sheet of generated images, each beside the training images nearest to it


ROOM = 16  # pixels for words below an image


def sheet(neighbours: Neighbours, rows: int = 8) -> np.ndarray:
    """uint8 [H,W,3 or 4]: a row for each of the fakes nearest to a real, the most suspect first.

    Below a fake stands its number among the fakes, below a real its number in the archive and its distance, marked (m)
    where the mirror image is meant, and shown. Below the fake stands too how far its nearest is from other reals.
    """
    found = neighbours.found
    order = np.argsort(found.closeness, kind="stable")[:rows]
    cells = []
    for i in order:
        cells.append(worded(neighbours.fakes[i], f"fake {i}  (reals {found.own[i]:#.3g})"))
        for place, flip, distance in zip(found.places[i], found.mirrored[i], found.distances[i], strict=True):
            real = neighbours.stored[place]
            words = f"{place}{' (m)' if flip else ''}  {distance:#.3g}"
            cells.append(worded(real[:, :, ::-1] if flip else real, words))
    return grid(cells, 1 + found.places.shape[1], len(order))


def worded(image: np.ndarray, words: str) -> np.ndarray:
    """uint8 [C,H,W], enlarged to be seen -> [H',W',3 or 4] with words below."""
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    pixels = enlarge(pixels[None], max(1, math.ceil(1.3 * MIN_CAPTIONED_WIDTH / pixels.shape[1])))[0]
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    paper = np.full((pixels.shape[0] + ROOM, pixels.shape[1], pixels.shape[2]), 255, np.uint8)
    paper[: pixels.shape[0]] = pixels
    canvas = Image.fromarray(paper)
    ink = (TEXT,) * 3 + (255,) * (pixels.shape[2] - 3)
    middle = (pixels.shape[1] // 2, pixels.shape[0] + ROOM // 2)
    ImageDraw.Draw(canvas).text(middle, words, ink, ImageFont.load_default(size=11), anchor="mm")
    return np.asarray(canvas)
