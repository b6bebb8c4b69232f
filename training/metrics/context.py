"""One metric as it was asked for by name: fid5k_full, pr50k3_full, ppl1k_wend, swd500."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.attribute_table import read_csv
from stylegan.editing.settings import ATTRIBUTES, Attribute, ClassifierSettings
from torch_utils.errors import UserError
from torch_utils.files import cache_folder
from training.attributes import AttributeClassifier, learn, load_classifier, save_classifier
from training.data.archive import Archive
from training.metrics.feature_store import Compute, Features, Question, What, features_of, store_of
from training.metrics.features import DEFAULT, FeatureNetwork, pick_features
from training.metrics.images import Fakes, ImageSource, Sampling, Stored, stored_at


@dataclass(frozen=True)
class Request:
    """name: as typed, without what it looks through   title: what its numbers are called, that included
    count: of fakes, pairs or paths   k: neighbours   whole: against all reals?   part: of paths, "zfull" to "wend"
    features: what it looks through, a feature network as `pick_features` knows it, or a distance; "" for neither
    """

    name: str
    title: str
    count: int = 0
    k: int = 0
    whole: bool = False
    part: str = ""
    features: str = ""


# What some metrics need besides a network and its data, and are refused without


MISSING = {
    "network": "it is measured of a network, not of images in files; give --network",
    "data": "which data? give --data, as in --data faces.zip",
    "classifier": "it takes a classifier: give --classifier FILE of directions.py learn, or --labels CSV",
    "directions": "it takes directions: give --directions FILE of directions.py find",
}


@dataclass(frozen=True)
class Aids:
    """classifier: a file of `directions.py learn`   table: or a CSV of what the data's images show, to train one on
    attributes: which of its columns (all, if none)   directions: a file of `directions.py find`
    validation: images that were not trained on   sheets: the folder for images   crop: of faces, see `Paths`
    say: takes tables, to be read
    """

    classifier: Path | None = None
    table: Path | None = None
    attributes: Sequence[Attribute] = ()
    directions: Path | None = None
    validation: Archive | None = None
    sheets: Path | None = None
    crop: bool = False
    say: Callable[[str], object] = lambda text: None


def _trained(path: Path, attributes: Sequence[Attribute], data: Archive, device: torch.device) -> AttributeClassifier:
    settings = ClassifierSettings(
        data=str(data.path), table=str(path), attributes=attributes, held_out=min(500, len(data) // 8)
    )
    table = read_csv(path, settings.key, attributes)
    asked = f"{data.content_hash} {path.read_text()} {[str(a) for a in attributes]} {settings.held_out} {device.type}"
    kept = cache_folder("classifiers") / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}{ATTRIBUTES}"
    if kept.is_file():
        return load_classifier(kept)
    classifier = learn(data, table, settings, device)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {kept}: {error.strerror or error}; set STYLEGAN_CACHE to another") from error
    save_classifier(kept, classifier)
    return classifier


# What a metric measures: a network, its data, the feature network, and how to work


@dataclass(frozen=True)
class Context:
    """source: what is measured, a network as far as it has grown, or images in files that may come from anywhere
    data: None where there are none, for metrics that need none   features, weights: for `pick_features`
    seed: of all that is random   psi: truncation   mirror: reals also mirrored
    file: where the source is from, for the records   aids: what only some metrics need   c: of one class only
    """

    source: Snapshot | Archive
    data: Archive | None = None
    features: str = DEFAULT
    weights: Path | None = None
    seed: int = 0
    psi: float = 1.0
    mirror: bool = False
    compute: Compute = field(kw_only=True)
    file: str = ""
    aids: Aids = Aids()
    c: int | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The network. Raises UserError where images in files are measured."""
        if isinstance(self.source, Archive):
            raise UserError(MISSING["network"])
        return self.source

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width at which images are compared: the network's, or that of the smaller ones of two archives."""
        source, data = self.source, self.data
        if isinstance(source, Snapshot):
            return source.config.size(source.stage.resolution)
        sizes = [(one.height, one.width) for one in (source, data) if one is not None]
        return min(sizes, key=math.prod)

    @property
    def channels(self) -> int:
        """Of the images that are measured."""
        return self.source.config.channels if isinstance(self.source, Snapshot) else self.source.channels

    @cached_property
    def network(self) -> FeatureNetwork:
        """The feature network. Raises UserError where it is not to be had."""
        return pick_features(self.features, self.compute.device, self.weights)

    @cached_property
    def classifier(self) -> AttributeClassifier:
        """The classifier, opened, or trained once on the table and kept in the cache.

        Raises UserError where there is neither, and as `load_classifier` and `learn` do.
        """
        aids, device = self.aids, self.compute.device
        if aids.classifier is not None:
            classifier = load_classifier(aids.classifier)
        elif aids.table is None:
            raise UserError(MISSING["classifier"])
        elif self.data is None:
            raise UserError(f"{aids.table} describes images: give them with --data")
        else:
            classifier = _trained(aids.table, aids.attributes, self.data, device)
        classifier.network.to(device)
        return classifier

    @property
    def sampling(self) -> Sampling:
        """How the network is sampled, with the classes of the data."""
        labels = None if self.data is None else self.data.labels
        labels = labels if self.c is None else np.array([self.c])
        return Sampling(self.seed, self.psi, self.compute.batch, labels, self.compute.quiet)

    @cached_property
    def fakes(self) -> Fakes | Stored:
        """The images that are measured: a network's, of the data's classes where it knows classes, or those in files.

        Raises UserError for classes that the network does not know, and for files that do not fit the data.
        """
        if isinstance(self.source, Archive):
            return replace(stored_at(self.source, self.size, self.channels), only=self.c)
        classes = self.sampling.labels
        if classes is not None and classes.max() >= self.source.config.num_classes > 0:
            raise UserError(f"{self.data and self.data.path} has more classes than this network; give its own data")
        return Fakes(self.source, self.sampling)

    @cached_property
    def reals(self) -> Stored:
        """The data, at the size of what is measured. Raises UserError where there are none, or others than could be."""
        if self.data is None:
            raise UserError(MISSING["data"])
        return replace(stored_at(self.data, self.size, self.channels, self.mirror), only=self.c)

    def of_fakes(self, count: int, what: What = "features") -> Features:
        """The answers of the first `count` fakes; of those in files, of `count` that are chosen by the seed."""
        return self._of(self._some(self.fakes, count), count, what, "Fakes")

    def of_reals(self, count: int | None = None, what: What = "features") -> Features:
        """The answers of `count` reals, chosen by the seed; of all of them, by default.

        Raises UserError if there are fewer.
        """
        reals = self.reals
        count = reals.limit if count is None else count
        return self._of(self._some(reals, count), count, what, "Reals")

    def _some(self, images: Fakes | Stored, count: int) -> Fakes | Stored:
        """Images of which the first `count` stand for all."""
        if images.limit is None or count == images.limit:
            return images
        if count > images.limit:
            raise UserError(f"{count} images are asked for and there are {images.limit}; ask for fewer")
        return replace(images, shuffled=self.seed)

    def _of(self, images: ImageSource, count: int, what: What, label: str) -> Features:
        question = Question(what, (self.channels, *self.size), self.features, self.weights)
        store = store_of(question, images, lambda: self.network)
        return features_of(store, count, question, self.compute, f"{label}, {what}")
