"""Linear separability: does a plane part the latents of images with an attribute from those without?

(Karras et al. 2019, section 4.2.) A classifier looks at many generated images. For each attribute the half of which
it is surest is kept, and a linear support vector machine predicts its answers from the latents. What is still open
when the machine's answer is known, the conditional entropy H(classifier | machine), is 0 bits where a plane parts them
and 1 bit where it tells nothing. The metric is 2 to the sum over attributes, 1 at best.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.boundaries import require_sklearn
from stylegan.networks.base import require_w
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from training.attributes import AttributeClassifier
from training.metrics.images import AS_PUBLISHED, Sampling, samples_of

FOLDS, PENALTIES = 3, (1.0, 0.1, 0.01, 0.001)  # scikit-learn's C
LEAST = 0.02  # of the samples kept with either answer; of fewer any machine is right
ENOUGH = 10  # samples kept for each number of a latent, from which on the published score tells spaces apart


@dataclass(frozen=True)
class Separation:
    """How well planes part one space. entropies: bits left open, as published, of the samples fitted to, [A]

    held_out: the same of samples that the machine has not seen, [A]: of few samples the published numbers are near 0
    whatever the space, as a plane in many dimensions parts few points in any way. Here a machine is fitted to two
    thirds and asked about the rest, in turn; of some strengths of regularisation the best counts.
    numbers: of a latent
    """

    entropies: np.ndarray
    held_out: np.ndarray
    numbers: int

    @property
    def score(self) -> float:
        return float(2.0 ** self.entropies.sum())

    @property
    def held_out_score(self) -> float:
        return float(2.0 ** self.held_out.sum())


@dataclass(frozen=True)
class Separability:
    """spaces: "z" and "w"   names: of the attributes   shares: of yes among the samples kept, [A]

    accuracies: of the classifier on real images, balanced, [A]; empty if not known   kept: samples per attribute
    alike: attributes that tell nothing, as nearly all samples kept have one answer, with their shares of yes; these are
    in none of the above
    """

    spaces: Mapping[str, Separation]
    names: tuple[str, ...]
    shares: np.ndarray
    accuracies: tuple[float, ...]
    kept: int
    alike: Mapping[str, float] = field(default_factory=dict)


def separability(
    snapshot: Snapshot, classifier: AttributeClassifier, count: int, sampling: Sampling = AS_PUBLISHED
) -> Separability:
    """In z and in w, of `count` images (published: 200,000), with a classifier of `directions.py learn`.

    Raises UserError without scikit-learn, for a classifier of other channels, for too few images, and for ProGAN.
    """
    require_sklearn()
    require_w(snapshot.G)
    require_enough(count)
    spaces, values = classified(snapshot, classifier, count, sampling)
    margins = margins_of(values, classifier.scope.quantities)
    return separated(spaces, margins, classifier.scope.names, classifier.scope.accuracy, sampling.quiet)


def classified(
    snapshot: Snapshot, classifier: AttributeClassifier, count: int, sampling: Sampling
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The latents of `count` images in "z" and "w", [N,D] each, and what the classifier says of them, float64 [N,A]."""
    z, w, values = [], [], []
    device = next(classifier.network.parameters()).device
    for found in samples_of(snapshot, sampling, count, "Classifying images"):
        z.append(found.z)
        w.append(found.w)
        values.append(classifier.values(found.images.to(device)).double().cpu())
    return {"z": torch.cat(z).numpy(), "w": torch.cat(w).numpy()}, torch.cat(values).numpy()


def separated(
    spaces: Mapping[str, np.ndarray], margins: np.ndarray, names: Sequence[str], accuracies: Sequence[float] = (),
    quiet: bool = False,
) -> Separability:  # fmt: skip
    """The metric from what is known of N images. spaces: name -> latents [N,D]   margins: see `margins_of`, [N,A].

    Raises UserError for fewer than 4 images, for answers that are no numbers, and where all attributes are `alike`.
    """
    require_sklearn()
    require_enough(len(margins))
    if not np.isfinite(margins).all():
        raise UserError("the classifier's answers are no numbers; the network or the classifier is broken")
    every = [surest_half(column) for column in margins.T]
    truths = [column[kept] > 0 for column, kept in zip(margins.T, every, strict=True)]
    shares = np.array([truth.mean() for truth in truths])
    varied = [k for k, share in enumerate(shares) if LEAST <= share <= 1 - LEAST]
    alike = {name: float(share) for k, (name, share) in enumerate(zip(names, shares, strict=True)) if k not in varied}
    if not varied:
        raise UserError(f"nearly all images get the same answer for {', '.join(alike)}, so there is nothing to "
                        "separate; ask for more images, or for other attributes")  # fmt: skip
    found = {}
    with Progress("Separating", len(spaces) * len(varied), "plane", quiet) as bar:
        for space, latents in spaces.items():
            open_bits, held_out = [], []
            for kept, truth in [(every[k], truths[k]) for k in varied]:
                x = latents[kept].astype(np.float64)
                open_bits.append(conditional_entropy(table_of(answers(x, truth, x), truth)))
                held_out.append(held_out_entropy(x, truth))
                bar.advance()
            found[space] = Separation(np.array(open_bits), np.array(held_out), latents.shape[1])
    known = tuple(accuracies[k] for k in varied) if len(accuracies) else ()
    return Separability(found, tuple(names[k] for k in varied), shares[varied], known, len(truths[0]), alike)


def require_enough(count: int) -> None:
    """Raises UserError for so few images that there is nothing to fit."""
    if count < 4:
        raise UserError(f"separability needs thousands of images, not {count}")


def margins_of(values: np.ndarray, quantities: Sequence[bool]) -> np.ndarray:
    """How far from undecided, above 0 for yes: of probabilities to a half, of quantities to their median. [N,A]."""
    return values - np.where(quantities, np.median(values, axis=0), 0.5)


def surest_half(margins: np.ndarray) -> np.ndarray:
    """Places of the half with the largest distance to 0 in margins [N], the surest first: [N // 2]."""
    return np.argsort(-np.abs(margins), kind="stable")[: len(margins) // 2]


def answers(x: np.ndarray, truth: np.ndarray, asked: np.ndarray, penalty: float = 1.0) -> np.ndarray:
    """What a linear machine fitted to latents x [N,D] and truth [N] says of latents asked [M,D]: bool [M].

    The published one: scikit-learn's LinearSVC as it comes. Where all truth is alike, so are the answers.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    if truth.all() or not truth.any():
        return np.full(len(asked), truth[0])
    machine: Any = LinearSVC(C=penalty, dual="auto", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of few samples, which are parted long before
        return machine.fit(x, truth).predict(asked).astype(bool)


def held_out_entropy(x: np.ndarray, truth: np.ndarray) -> float:
    """The conditional entropy in bits on samples that the machine was not fitted to; see `Separation`."""
    x = (x - x.mean(axis=0)) / max(x.std(), 1e-12)  # one number, so that penalties mean the same in all spaces
    fold = np.empty(len(truth), int)
    for kind in (False, True):
        fold[truth == kind] = np.arange((truth == kind).sum()) % FOLDS
    bits = []
    for penalty in PENALTIES:
        found = np.empty_like(truth)
        for f in range(FOLDS):
            rest, asked = fold != f, fold == f
            if asked.any():
                found[asked] = answers(x[rest], truth[rest], x[asked], penalty)
        bits.append(conditional_entropy(table_of(found, truth)))
    return min(bits)


def table_of(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Shares of the four cases, [machine says no or yes, classifier says no or yes]. Both bool [N]."""
    return np.array([[np.mean((found == row) & (truth == column)) for column in (0, 1)] for row in (0, 1)])


def conditional_entropy(table: np.ndarray) -> float:
    """H(column | row) in bits, of a table of shares or counts [R,C]: H(row, column) - H(row)."""
    shares = table / table.sum()
    return max(0.0, entropy(shares) - entropy(shares.sum(axis=1)))


def entropy(shares: np.ndarray) -> float:
    """In bits, of shares that add up to 1."""
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum())


def separability_table(found: Separability) -> list[str]:
    """A table: a line per attribute with the bits that each space leaves open (held out in brackets); scores."""
    head = "".join(f"{space:>18}" for space in found.spaces)
    lines = [f"{'':16}{'classifier':>11}{'yes':>6}{head}"]
    for number, name in enumerate(found.names):
        accuracy = f"{found.accuracies[number]:.3f}" if found.accuracies else "?"
        cells = "".join(f"{s.entropies[number]:10.3f} ({s.held_out[number]:.3f})" for s in found.spaces.values())
        lines.append(f"{name:16}{accuracy:>11}{found.shares[number]:6.0%}{cells}")
    cells = f"{'nan':>10}{'':8}" * len(found.spaces)
    lines += [f"{name:16}{'':11}{share:6.0%}{cells}  all alike" for name, share in found.alike.items()]
    scores = "".join(f"{s.score:10.3f} ({s.held_out_score:5.3g})" for s in found.spaces.values())
    lines.append(f"{'separability':33}{scores}")
    if found.alike:
        lines.append(f"left out, as of the samples kept nearly all have one answer: {', '.join(found.alike)}")
    few = [space for space, s in found.spaces.items() if found.kept < ENOUGH * s.numbers]
    if few:
        lines.append(f"of {found.kept} samples the numbers in brackets count: the others, as published, need "
                     f"{2 * ENOUGH * max(found.spaces[space].numbers for space in few)} images or more")  # fmt: skip
    return lines
