"""Distances between images, which projection minimises: of pixels, of the network's own discriminator, or LPIPS.

Any function of two batches of images can take their place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.features import lpips
from stylegan.features.lpips import find_weights
from stylegan.networks.config import Stage
from stylegan.networks.inference import folded
from stylegan.projection.settings import DISTANCES
from torch_utils.errors import UserError

Against = Callable[[Tensor], Tensor]
"""Images [N,C,H,W] -> their distances [N] to fixed images."""


@dataclass(frozen=True)
class Distance:
    """A distance that is Euclidean once images are embedded.

    embed: images [N,C,H,W] in [-1, 1], and the type of feature maps (float32 by default) -> one or more [N,K,h,w],
    float32. The distance is the sum over these of the squared difference, summed over K and averaged over positions.
    """

    name: str
    embed: Callable[..., Sequence[Tensor]]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """[N,C,H,W] and [N,C,H,W] in [-1, 1] -> [N], with gradients."""
        return _squared_difference(self.embed(a), self.embed(b))


AnyDistance = Distance | Callable[[Tensor, Tensor], Tensor]


def against(distance: AnyDistance, b: Tensor, dtype: torch.dtype = torch.float32) -> Against:
    """The distance to b, which is embedded once for all that is compared with it; feature maps in `dtype`.

    Any function distance(a, b) -> [N] will do, too; it has its own type of feature maps.
    """
    if not isinstance(distance, Distance):
        return lambda a: distance(a, b)
    with torch.no_grad():
        embedded = distance.embed(b, dtype)
    return lambda a: _squared_difference(distance.embed(a, dtype), embedded)


def _squared_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    parts = [(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
    return torch.stack(parts).sum(dim=0)


def pick_distance(name: str, snapshot: Snapshot, weights: Sequence[Path] = ()) -> Distance:
    """The distance called `name`; "" chooses the network's own discriminator, or pixels if it has none.

    weights: files for LPIPS, see `lpips.find_weights`. Raises UserError for an unknown name, for weights that cannot be
    found, and where there is no discriminator.
    """
    if not name:
        name = "pixels" if snapshot.D is None else "discriminator"
    if weights and name not in lpips.NETS:
        nets = " and ".join(lpips.NETS)
        raise UserError(f"--distance-weights is for {nets}, but the distance is {name}, which needs none; leave it out")
    if name == "pixels":
        return PIXELS
    if name == "discriminator":
        return discriminator_distance(snapshot)
    if name in lpips.NETS:
        return lpips_distance(name, find_weights(name, weights), snapshot.device)
    raise UserError(f"'{name}' is not a distance; choose one of {', '.join(DISTANCES)}")


def pixel_pyramid(images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Images at their own size, half of it, a quarter, and so on to 4 pixels; the mean of their mean square errors.

    Always float32: it takes no time.
    """
    levels = [images]
    while min(levels[-1].shape[2:]) >= 8:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return [level * (len(levels) * images.shape[1]) ** -0.5 for level in levels]


PIXELS = Distance("pixels", pixel_pyramid)


def discriminator_distance(snapshot: Snapshot) -> Distance:
    """LPIPS with the network's own discriminator in place of the classifier.

    Its features after from_rgb and after every block, each vector at unit length, all blocks with the same weight. Not
    the head, as that compares the images of a batch. Raises UserError if the snapshot has no discriminator.
    """
    if snapshot.D is None:
        raise UserError("this snapshot has no discriminator to measure a distance with; choose pixels or lpips-vgg16")
    D = functools.cache(partial(folded, snapshot.D))

    def embed(images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        resolution = snapshot.config.nominal(images.shape[2])
        stage = snapshot.stage if resolution == snapshot.stage.resolution else Stage(resolution)
        found = list(D(dtype).features(images, stage, dtype))
        return [lpips.unit(x, len(found) ** -0.5) for x in found]

    return Distance("discriminator", embed)


def lpips_distance(net: str, weights: Mapping[str, Tensor], device: torch.device) -> Distance:
    """LPIPS with a net of `lpips.NETS` and its weights."""

    @functools.cache
    def converted(dtype: torch.dtype) -> dict[str, Tensor]:
        found = {}
        for name, value in weights.items():
            layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
            found[name] = value.to(device, dtype if name.startswith("conv") else value.dtype, memory_format=layout)
        return found

    def embed(images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return lpips.embed(net, converted(dtype), images)

    return Distance(net, embed)
