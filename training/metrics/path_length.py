"""Perceptual path length: how much images change on the way between two latents (Karras et al. 2019, section 4.1).

The path between two random latents is cut by a step of epsilon at a random place t (full) or at its beginning (end).
The distance of the two images over epsilon^2 is the squared speed of change; its mean over many paths is the metric
(equation 2 along great circles in z, equation 3 along straight lines in w).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.base import require_w
from stylegan.networks.sampling import slerp
from stylegan.projection.distance import AnyDistance
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.inputs import Inputs
from training.metrics.images import AS_PUBLISHED, Sampling, inputs_at

Space = Literal["z", "w"]
Part = Literal["full", "end"]
REJECTED = 0.01  # at either end
PUBLISHED, DISCRIMINATOR = "lpips-vgg16", "discriminator"
IN_Z = "measure its path length in z"  # what to do with a network without w


@dataclass(frozen=True)
class Paths:
    """Which path length. space, part: see above   epsilon: the step

    crop: compare the middle of faces only, as published for FFHQ and CelebA-HQ: of the image's height the part from
    3/8 to 7/8, of its width that from 2/8 to 6/8
    largest: taller images are first reduced to about this by averaging whole blocks; 0 for never
    """

    space: Space = "w"
    part: Part = "full"
    epsilon: float = 1e-4
    crop: bool = False
    largest: int = 256


W_FULL = Paths()


@dataclass(frozen=True)
class PathLength:
    """value: the metric   error: its standard error   lengths: of each path, before any is rejected, float64 [N]"""

    value: float
    error: float
    lengths: np.ndarray


def path_length(
    snapshot: Snapshot, distance: AnyDistance, count: int, paths: Paths = W_FULL, sampling: Sampling = AS_PUBLISHED
) -> PathLength:
    """Over `count` paths (published: 100,000; later tools take 50,000). Path n depends on (sampling.seed, n) only.

    Both ends of a path are of one class, drawn as `sampling` says, and the two images have the same noise.
    distance: (images [n,C,H,W] of about [-1, 1], the same) -> [n].
    Raises UserError for paths in w of a network without, for fewer than 2 paths, and for lengths that are no numbers.
    """
    if count < 2:
        raise UserError(f"{count} paths have no mean length; use 1000 or more")
    if paths.space == "w":
        require_w(snapshot.G, IN_Z)
    lengths = []
    with Progress(f"Paths in {paths.space}", count, "path", sampling.quiet) as bar:
        for start in range(0, count, sampling.batch):
            part = range(start, min(start + sampling.batch, count))
            lengths.append(_lengths(snapshot, distance, part, paths, sampling))
            bar.advance(len(part))
    return trimmed(np.concatenate(lengths))


def paths_of(name: str, distance_name: str, crop: bool = False) -> Paths:
    """The paths of "zfull", "wfull", "zend" or "wend", as published.

    A discriminator has learnt images of one size: it is shown them whole and as they are. Raises UserError if it
    should see a part only.
    """
    space: Space = "z" if name.startswith("z") else "w"
    part: Part = "full" if name.endswith("full") else "end"
    if distance_name != DISCRIMINATOR:
        return Paths(space, part, crop=crop)
    if crop:
        raise UserError("the discriminator knows whole images only; leave the crop out, or use lpips-vgg16")
    return Paths(space, part, largest=0)


def trimmed(lengths: np.ndarray) -> PathLength:
    """The mean without the lowest and highest hundredth, as published. lengths: [N].

    The error is that of a trimmed mean: from the variance with what was rejected put at the borders (Tukey and
    McLaughlin 1963). Raises UserError for lengths that are no numbers.
    """
    if not np.isfinite(lengths).all():
        raise UserError(f"{(~np.isfinite(lengths)).sum()} of {len(lengths)} path lengths are no numbers; the network "
                        "makes images that are not finite")  # fmt: skip
    low = np.percentile(lengths, 100 * REJECTED, method="lower")
    high = np.percentile(lengths, 100 - 100 * REJECTED, method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    spread = lengths.clip(low, high).std(ddof=1)
    return PathLength(float(kept.mean()), float(spread / ((1 - 2 * REJECTED) * math.sqrt(len(lengths)))), lengths)


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The point at t [N,1] of the straight line from a to b, [N,D] -> [N,D], in float64."""
    return a.double() + (b.double() - a.double()) * t.double()


def seen(images: Tensor, paths: Paths) -> Tensor:
    """What of the images [N,C,H,W] the distance is shown: cropped, then reduced, as asked."""
    if paths.crop:
        height, width = images.shape[2] // 8, images.shape[3] // 8
        images = images[:, :, 3 * height : 7 * height, 2 * width : 6 * width]
    factor = images.shape[2] // paths.largest if paths.largest else 1
    return F.avg_pool2d(images, factor) if factor > 1 else images


def _lengths(
    snapshot: Snapshot, distance: AnyDistance, part: range, paths: Paths, sampling: Sampling
) -> np.ndarray:  # fmt: skip
    inputs = inputs_at(snapshot, sampling, part)
    ends = _step(snapshot, inputs, paths, sampling)
    first, second = (seen(snapshot.renderer.draw_there(end, inputs.places, sampling.batch), paths) for end in ends)
    with torch.inference_mode():
        if snapshot.device.type == "cpu":  # one by one, as sums are added up in another order in other batches
            found = torch.cat([distance(a[None], b[None]) for a, b in zip(first, second, strict=True)])
        else:
            found = distance(first, second)
    return found.double().cpu().numpy() / paths.epsilon**2


def _step(snapshot: Snapshot, inputs: Inputs, paths: Paths, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The ws [n,L,w_dim] of the two ends of each step."""
    renderer, psi, c = snapshot.renderer, sampling.psi, inputs.c
    t = inputs.blend.double()[:, None] * (paths.part == "full")
    if paths.space == "w":
        a, b = (renderer.map(z, c, psi=psi)[:, 0] for z in (inputs.z, inputs.z_mix))
        near, far = (snapshot.G.broadcast(lerp(a, b, place).float()) for place in (t, t + paths.epsilon))
        return near, far
    # Of the usual length of z, which matters where z is not normalised, or only together with a class.
    length = math.sqrt(snapshot.config.z_dim)
    turned = (F.normalize(slerp(inputs.z, inputs.z_mix, place)) for place in (t, t + paths.epsilon))
    near, far = (renderer.map((length * z).float(), c, psi=psi) for z in turned)
    return near, far
