"""One metric as it was asked for by name: fid5k_full, pr50k3_full, ppl1k_wend, swd500."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

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
from training.metrics.images import Fakes, ImageSource, Reals, Sampling, reals_for


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
    """snapshot: as far as it has grown   data: None where there are none, for metrics that need none
    features, weights: for `pick_features`   seed: of all that is random   psi: truncation   mirror: reals also mirrored
    file: where the snapshot is from, for the records   aids: what only some metrics need
    """

    snapshot: Snapshot
    data: Archive | None = None
    features: str = DEFAULT
    weights: Path | None = None
    seed: int = 0
    psi: float = 1.0
    mirror: bool = False
    compute: Compute = field(kw_only=True)
    file: str = ""
    aids: Aids = Aids()

    @cached_property
    def network(self) -> FeatureNetwork:
        """The feature network. Raises UserError where it is not to be had."""
        return pick_features(self.features, self.compute.device, self.weights)

    @cached_property
    def classifier(self) -> AttributeClassifier:
        """The classifier, opened, or trained once on the table and kept in the cache.

        Raises UserError where there is neither, and as `load_classifier` and `learn` do.
        """
        aids, device = self.aids, self.snapshot.device
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
        return Sampling(self.seed, self.psi, self.compute.batch, labels, self.compute.quiet)

    @cached_property
    def fakes(self) -> Fakes:
        """The network's images, of the data's classes where it knows classes."""
        classes = self.sampling.labels
        if classes is not None and classes.max() >= self.snapshot.config.num_classes > 0:
            raise UserError(f"{self.data and self.data.path} has more classes than this network; give its own data")
        return Fakes(self.snapshot, self.sampling)

    @cached_property
    def reals(self) -> Reals:
        """The data, at the network's size. Raises UserError where there are none, or others than it could make."""
        if self.data is None:
            raise UserError(MISSING["data"])
        return reals_for(self.snapshot, self.data, self.mirror)

    def of_fakes(self, count: int, what: What = "features") -> Features:
        """The answers of the first `count` fakes."""
        return self._of(self.fakes, count, what, "Fakes")

    def of_reals(self, count: int | None = None, what: What = "features") -> Features:
        """The answers of `count` reals, chosen by the seed; of all of them, if there are fewer, or by default."""
        reals = self.reals
        if count is None or count >= reals.limit:
            return self._of(reals, reals.limit, what, "Reals")
        return self._of(replace(reals, shuffled=self.seed), count, what, "Reals")

    def _of(self, images: ImageSource, count: int, what: What, label: str) -> Features:
        shape = (self.snapshot.config.channels, *self.snapshot.config.size(self.snapshot.stage.resolution))
        question = Question(what, shape, self.features, self.weights)
        store = store_of(question, images, lambda: self.network)
        return features_of(store, count, question, self.compute, f"{label}, {what}")
