"""What can be kept of pictures: features, probabilities of classes, patches, similarities of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from torch_utils.errors import UserError
from training.metrics import image_stats as ms_ssim
from training.metrics import image_stats as swd
from training.metrics.feature_store import Describe, Store
from training.metrics.features import DEFAULT, FeatureNetwork, pick_features
from training.metrics.pictures import Pictures

What = Literal["features", "probabilities", "patches", "pairs"]


@dataclass(frozen=True)
class Question:
    """What is asked of each picture, as another process can be told it.

    features, weights: for `pick_features`   shape: of the pictures, channels, height and width
    """

    what: What
    shape: tuple[int, int, int]
    features: str = DEFAULT
    weights: Path | None = None

    @property
    def of_network(self) -> bool:
        """Is it for a feature network to answer?"""
        return self.what in ("features", "probabilities")

    def network(self, device: torch.device) -> FeatureNetwork | None:
        """Raises UserError where it is not to be had."""
        return pick_features(self.features, device, self.weights) if self.of_network else None


@dataclass(frozen=True)
class Answerer:
    """Who answers a `Question`: its name as stores have it, how many numbers, and how they are kept."""

    name: str
    describe: Describe
    dims: int
    dtype: str = "float32"

    def store(self, pictures: Pictures) -> Store:
        return Store(pictures, self.name, self.dims, self.dtype)


def answerer(question: Question, network: FeatureNetwork | None) -> Answerer:
    """network: as `question.network` has it. Raises UserError for what cannot be answered."""
    channels, height, width = question.shape
    if question.what == "patches":
        dims = len(swd.levels(height, width)) * swd.PATCHES * swd.patch_dims(channels)
        return Answerer("patches of swd", swd.patches, dims, "float16")
    if question.what == "pairs":
        if min(height, width) < ms_ssim.SMALLEST:
            raise UserError(f"ms-ssim needs pictures of at least {ms_ssim.SMALLEST} pixels, not {width}x{height}")
        return Answerer("ms-ssim of pairs", ms_ssim.pair_similarity, 1)
    if network is None:
        raise ValueError(f"{question.what} take a network")
    embed = network.embed
    if question.what == "features":
        return Answerer(f"{network.name} {network.sha256}", lambda pictures, first: embed(pictures), network.dims)
    classes = network.probabilities
    if classes is None:
        raise UserError(f"{network.name} tells no classes, so there is no inception score; use efficientnet-lite0")
    dims = classes(torch.zeros(1, *question.shape, dtype=torch.uint8)).shape[1]
    return Answerer(f"{network.name} {network.sha256} classes", lambda pictures, first: classes(pictures), dims)
