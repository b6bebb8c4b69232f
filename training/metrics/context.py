"""What a metric measures: a network, its data, the feature network, and how to work."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from stylegan.checkpoints.snapshot import Snapshot
from torch_utils.errors import UserError
from training.data.archive import Archive
from training.metrics.aids import Aids
from training.metrics.describe import Question, What, answerer
from training.metrics.feature_store import Features
from training.metrics.features import DEFAULT, FeatureNetwork
from training.metrics.pictures import Fakes, Pictures, Reals, reals_for
from training.metrics.workers import Crew, features_of


@dataclass(frozen=True)
class Context:
    """snapshot: as far as it has grown   data: None where there are none, for metrics of the network alone
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
    crew: Crew = field(kw_only=True)
    file: str = ""
    aids: Aids = Aids()

    @cached_property
    def network(self) -> FeatureNetwork:
        """The feature network. Raises UserError where it is not to be had."""
        found = self._question("features").network(self.crew.device)
        assert found is not None
        return found

    @cached_property
    def fakes(self) -> Fakes:
        """The network's pictures, of the data's classes where it knows classes."""
        classes = None if self.data is None else self.data.labels
        if classes is not None and classes.max() >= self.snapshot.config.num_classes > 0:
            raise UserError(f"{self.data and self.data.path} has more classes than this network; give its own data")
        return Fakes(self.snapshot, self.seed, self.psi, classes)

    @cached_property
    def reals(self) -> Reals:
        """The data, at the network's size. Raises UserError where there are none, or others than it could make."""
        if self.data is None:
            raise UserError("which data? give --data, as in --data faces.zip")
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

    def _of(self, pictures: Pictures, count: int, what: What, label: str) -> Features:
        question = self._question(what)
        worker = answerer(question, self.network if question.of_network else None)
        return features_of(pictures, count, question, worker, self.crew, f"{label}, {what}")

    def _question(self, what: What) -> Question:
        shape = (self.snapshot.config.channels, *self.snapshot.config.size(self.snapshot.stage.resolution))
        return Question(what, shape, self.features, self.weights)
