"""How far pictures are apart: what projection makes small, as an argument that anything can take the place of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

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
"""Pictures [N,C,H,W] -> their distances [N] to pictures that stay."""


class Embed(Protocol):
    """See `Distance`."""

    def __call__(self, images: Tensor, dtype: torch.dtype = ..., /) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class Distance:
    """A distance that is Euclidean once pictures are embedded.

    embed: pictures [N,C,H,W] in [-1, 1], and in which numbers to compute feature maps (float32 by default) -> one or
    more [N,K,h,w], float32. The distance is the sum over these of the squared difference, summed over K and averaged
    over places.
    """

    name: str
    embed: Embed

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """[N,C,H,W] and [N,C,H,W] in [-1, 1] -> [N], with gradients."""
        return _gap(self.embed(a), self.embed(b))

    def against(self, b: Tensor, dtype: torch.dtype = torch.float32) -> Against:
        """The distance to b, which is embedded once for all that is compared with it; feature maps in `dtype`."""
        with torch.no_grad():
            kept = self.embed(b, dtype)
        return lambda a: _gap(self.embed(a, dtype), kept)


AnyDistance = Distance | Callable[[Tensor, Tensor], Tensor]


def against(distance: AnyDistance, b: Tensor, dtype: torch.dtype = torch.float32) -> Against:
    """`Distance.against`, of any function distance(a, b) -> [N]; such a one computes in what numbers it likes."""
    return distance.against(b, dtype) if isinstance(distance, Distance) else lambda a: distance(a, b)


def pick_distance(name: str, snapshot: Snapshot, weights: Sequence[Path] = ()) -> Distance:
    """The distance of a name; by default ("") of the network's own discriminator, or of pixels if it has none.

    weights: files for those that need some; see `lpips_weights.find_weights`. Raises UserError for an unknown name, for
    weights that cannot be had, and where there is no discriminator.
    """
    if not name:
        name = "pixels" if snapshot.D is None else "discriminator"
    if weights and name not in lpips.NETS:
        raise UserError(f"--distance-weights are for {' and '.join(lpips.NETS)}; {name} needs none")
    if name == "pixels":
        return PIXELS
    if name == "discriminator":
        return discriminator_distance(snapshot)
    if name in lpips.NETS:
        return lpips_distance(name, find_weights(name, weights), snapshot.device)
    raise UserError(f"there is no distance {name!r}; choose from {', '.join(DISTANCES)}")


def lpips_distance(net: str, weights: Mapping[str, Tensor], device: torch.device) -> Distance:
    """LPIPS with a net of `lpips.NETS` and its weights."""

    @functools.cache
    def moved(dtype: torch.dtype) -> dict[str, Tensor]:
        found = {}
        for name, value in weights.items():
            order = torch.channels_last if value.ndim == 4 else torch.preserve_format
            found[name] = value.to(device, dtype if name.startswith("conv") else value.dtype, memory_format=order)
        return found

    def embed(images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return lpips.embed(net, moved(dtype), images)

    return Distance(net, embed)


def discriminator_distance(snapshot: Snapshot) -> Distance:
    """LPIPS with the network's own discriminator in the classifier's place.

    Its features after from_rgb and after every block, each vector at unit length, all blocks weighing the same. Not the
    head: it compares the pictures of a batch. Raises UserError if the snapshot has no discriminator.
    """
    if snapshot.D is None:
        raise UserError("this snapshot has no discriminator; choose --distance pixels, or lpips-vgg16")
    D = functools.cache(partial(folded, snapshot.D))

    def embed(images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        resolution = snapshot.config.nominal(images.shape[2])
        stage = snapshot.stage if resolution == snapshot.stage.resolution else Stage(resolution)
        found = list(D(dtype).features(images, stage, dtype))
        return [lpips.unit(x, len(found) ** -0.5) for x in found]

    return Distance("discriminator", embed)


def pixel_pyramid(images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The picture at its own size, half of it, a quarter, and so on to 4 pixels; the mean of their mean squares.

    Always float32: it takes no time.
    """
    levels = [images]
    while min(levels[-1].shape[2:]) >= 8:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return [level * (len(levels) * images.shape[1]) ** -0.5 for level in levels]


PIXELS = Distance("pixels", pixel_pyramid)


def _gap(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    parts = [(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
    return torch.stack(parts).sum(dim=0)
