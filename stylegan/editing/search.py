"""Finding directions with a network: sample it, label the samples if need be, and apply the method that is asked for.

The methods are in `pca_sefa.py`, `boundaries.py` and `stylespace.py`; here they get their samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.attribute_table import read_seeds
from stylegan.editing.boundaries import (
    Boundary,
    LabelKind,
    across,
    conditional,
    fit_boundary,
    require_both,
    split_by_label,
)
from stylegan.editing.directions import Directions, accuracy_text, in_w, joined
from stylegan.editing.pca_sefa import activations, components, covariance, from_activations, sefa, style_weights
from stylegan.editing.settings import SAMPLES, SAMPLES_FOR_GRADIENTS, SAMPLES_FOR_SCALES, Labels, Search
from stylegan.editing.stylespace import (
    Channel,
    channel_directions,
    channels_by_difference,
    channels_by_gradient,
    styles_of,
)
from stylegan.latents.notation import layer_ranges, layers_of
from stylegan.latents.render import Sources, View, classes_for_seeds
from stylegan.networks.config import NetworkConfig, require_styles
from stylegan.networks.sampling import z_for_seeds
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from torch_utils.text import Class, counted

W_BATCH, ACTIVATION_BATCH, LABEL_BATCH = 256, 64, 64
QUIET_BELOW = 10_000  # samples of w, which need no progress bar


def sample_w(snapshot: Snapshot, seeds: Sequence[int], classes: Sequence[Class] = ()) -> Iterator[Tensor]:
    """Yield the w of seeds, without truncation, in batches [n,w_dim] on the CPU. classes: as for `classes_for_seeds`.

    Raises UserError for classes that do not fit the network, and for a network without w.
    """
    config = snapshot.config
    with Progress("Sampling w", len(seeds), "w", quiet=len(seeds) < QUIET_BELOW) as bar:
        for start in range(0, len(seeds), W_BATCH):
            part = seeds[start : start + W_BATCH]
            c = classes_for_seeds(classes, part, config.num_classes, snapshot.class_names)
            with torch.inference_mode():
                z = z_for_seeds(part, config.z_dim).to(snapshot.device)
                w = snapshot.G.mapping(z, None if c is None else c.to(snapshot.device))
            yield w.cpu()
            bar.advance(len(part))


# Directions without labels


def unsupervised(search: Search, snapshot: Snapshot) -> Directions:
    """Directions by pca, activations or sefa.

    Raises UserError if the network has no w, no such layers or fewer dimensions than directions.
    """
    G, config = snapshot.G, snapshot.config
    rows = _rows_to_move(search, config)
    if search.count > config.ws_dim:
        raise UserError(f"--count must be at most {config.ws_dim}, the dimensions of w in this network; got "
                        f"{search.count}")  # fmt: skip
    batches = sample_w(snapshot, range(search.labels.samples or SAMPLES[search.method]), search.labels.classes)
    if search.method == "activations":
        (row,) = layers_of((search.layer,), config, snapshot.stage.resolution)
        layer = config.main_layers(row)[0]
        w = list(batches)
        vectors, shares = from_activations(activations(G, torch.cat(w).split(ACTIVATION_BATCH), layer), search.count)
        _, cov, count = covariance(w)
        name, method = f"layer{row}-pc", f"principal components of layer {row}, {count} samples"
    else:
        _, cov, count = covariance(batches)
        if search.method == "pca":
            vectors, variances = components(cov, search.count)
            shares = variances / cov.trace()
            name, method = "pc", f"principal components of w, {count} samples"
        else:
            weights = style_weights(G, rows)
            vectors, squares = sefa(weights, search.count)
            shares = squares / weights.square().sum()
            name, method = "sefa", f"SeFa of layers {layer_ranges(rows)}"
    return in_w(vectors, [f"{name}{i}" for i in range(search.count)], rows, method, cov, shares.float())


def _rows_to_move(search: Search, config: NetworkConfig) -> list[int]:
    return layers_of(search.layers or tuple(range(config.num_ws)), config)


# Samples with labels


class AttributeClassifier(Protocol):
    """A classifier of images, such as that of `training.attributes`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes."""

    @property
    def quantities(self) -> tuple[bool, ...]:
        """Which attributes are numbers, not yes or no."""

    def values(self, images: Tensor) -> Tensor:
        """images: [N,channels,H,W] in [-1, 1] -> [N,attributes], quantities or probabilities."""

    def scores(self, images: Tensor) -> Tensor:
        """The same as logits, and quantities in standard deviations, with gradients."""


@dataclass(frozen=True)
class LabelledSamples:
    """w: [N,w_dim], without truncation   names, kinds: of the attributes   values: float64 [N,attributes]."""

    w: Tensor
    names: tuple[str, ...]
    kinds: tuple[LabelKind, ...]
    values: np.ndarray


def labelled_samples(
    labels: Labels, view: View, classifier: AttributeClassifier | None, batch: int
) -> LabelledSamples:  # fmt: skip
    """The seeds of a file with their labels, or random images, rendered as the view says, with those of a classifier.

    batch: how many images to render at a time, up to `LABEL_BATCH`. Raises UserError for labels that cannot be used.
    """
    if classifier is None:
        seeds, table = read_seeds(Path(labels.source), labels.attributes)
        return LabelledSamples(_w_of(seeds, labels, view), table.names, _kinds(table.quantities, "truth"), table.values)
    chosen = attribute_indices(labels, classifier)
    every = range(labels.samples or SAMPLES["labels"])
    c = classes_for_seeds(labels.classes, every, view.snapshot.config.num_classes, view.snapshot.class_names)
    values = []
    with Progress("Labelling images", len(every)) as bar:
        for start in range(0, len(every), LABEL_BATCH):
            part = every[start : start + LABEL_BATCH]
            images = view.render(part, None if c is None else c[start : start + LABEL_BATCH], min(batch, LABEL_BATCH))
            values.append(classifier.values(images.clamp(-1, 1)).double().numpy()[:, chosen])
            bar.advance(len(part))
    names = tuple(classifier.names[k] for k in chosen)
    kinds = _kinds([classifier.quantities[k] for k in chosen], "probability")
    return LabelledSamples(_w_of(every, labels, view), names, kinds, np.concatenate(values))


def attribute_indices(labels: Labels, classifier: AttributeClassifier) -> list[int]:
    """The indices of the chosen attributes among those of the classifier. Raises UserError for one that it lacks."""
    names = [str(attribute) for attribute in labels.attributes] or classifier.names
    unknown = [name for name in names if name not in classifier.names]
    if unknown:
        raise UserError(f"{labels.source} has no attribute '{unknown[0]}'; choose from {', '.join(classifier.names)}")
    return [classifier.names.index(name) for name in names]


def _kinds(quantities: Sequence[bool], otherwise: LabelKind) -> tuple[LabelKind, ...]:
    return tuple("quantity" if quantity else otherwise for quantity in quantities)


def _w_of(seeds: Sequence[int], labels: Labels, view: View) -> Tensor:
    return torch.cat(list(sample_w(view.snapshot, seeds, labels.classes)))


# Directions from labels


def from_labels(search: Search, samples: LabelledSamples, view: View, report: Callable[[str], object]) -> Directions:
    """A direction for each attribute, across its boundary.

    report: takes a line on each boundary, and on each attribute that has none. Raises UserError if none has one.
    """
    rows = _rows_to_move(search, view.snapshot.config)
    found: dict[str, Boundary] = {}
    failed: list[str] = []
    for name, kind, values in zip(samples.names, samples.kinds, samples.values.T, strict=True):
        try:
            found[name] = fit_boundary(samples.w, values, kind, name, search.boundary)
        except UserError as error:
            failed.append(str(error))
        else:
            report(boundary_text(name, found[name]))
    if not found:
        raise UserError("; ".join(failed))
    for reason in failed:
        report(f"left out: {reason}")
    _, cov, _ = covariance(sample_w(view.snapshot, range(SAMPLES_FOR_SCALES), search.labels.classes))
    vectors = across(torch.stack([b.normal for b in found.values()]), cov)
    directions = in_w(vectors, list(found), rows, f"boundaries ({search.boundary}) of {search.labels.source}", cov)
    accuracies, chances = (torch.tensor([getattr(b, name) for b in found.values()]) for name in ("accuracy", "chance"))
    return replace(directions, accuracies=accuracies, chances=chances)


def boundary_text(name: str, found: Boundary) -> str:
    """A line on the boundary of an attribute: its accuracy, and how many labels it comes from."""
    accuracy = accuracy_text(found.accuracy, found.chance)
    return f"{name:16} {accuracy:54} from {counted(found.yes, 'image')} with and {found.no} without"


def conditional_by_name(
    found: Directions, name: str, others: Sequence[str], snapshot: Snapshot, classes: Sequence[Class]
) -> Directions:
    """See `conditional`, for directions of these names. Raises UserError also for names that are not there."""
    one, rest = found.named(name), joined([found.named(other) for other in others])
    # The samples of pca, so that its components share nothing with each other.
    _, cov, _ = covariance(sample_w(snapshot, range(SAMPLES["pca"]), classes))
    return conditional(one, rest, cov)


# Style channels


def by_difference(samples: LabelledSamples, view: View, count: int) -> tuple[Directions, list[float]]:
    """The style channels that differ most with the one attribute of the samples, as directions, and their effects.

    Raises UserError for several attributes, and if all samples have it or none.
    """
    require_one_attribute(samples.names)
    yes, no = split_by_label(samples.values[:, 0], samples.kinds[0])
    require_both(samples.names[0], yes, no)
    styles = _up_to_stage(styles_of(view.snapshot.G, samples.w.split(W_BATCH)), view)
    channels = channels_by_difference(styles, yes, no, count)
    return _with_effects(channels, view, f"style channels that go with {samples.names[0]}")


def by_gradient(
    labels: Labels, view: View, classifier: AttributeClassifier, count: int, batch: int
) -> tuple[Directions, list[float]]:
    """The style channels that change the score of the one chosen attribute most, as directions, and their effects.

    batch: how many images to render at a time. Raises UserError for several attributes.
    """
    chosen, G = attribute_indices(labels, classifier), view.snapshot.G
    require_one_attribute([classifier.names[k] for k in chosen])
    (index,) = chosen
    seeds = range(labels.samples or SAMPLES_FOR_GRADIENTS)
    styles = _up_to_stage(styles_of(G, sample_w(view.snapshot, seeds, labels.classes)), view)
    sources = Sources.of(seeds, view, labels.classes)
    with Progress("Analysing images", len(seeds)) as bar:
        channels = channels_by_gradient(
            G, view.snapshot.stage, (part.ws for part in sources.batches(batch)), styles,
            lambda images: classifier.scores(images)[:, index], count, bar.advance,
        )  # fmt: skip
    return _with_effects(channels, view, f"style channels that steer {classifier.names[index]}")


def require_one_attribute(names: Sequence[str]) -> None:
    """Raises UserError unless a single attribute is chosen."""
    if len(names) != 1:
        raise UserError(f"channels are for a single attribute; choose one of {', '.join(names)} with --attributes")


def require_channels(view: View, count: int) -> None:
    """Raises UserError for more channels than there are, before any work."""
    require_styles(view.snapshot.config)
    every = sum(view.snapshot.config.style_dims(view.snapshot.stage.resolution))
    if count > every:
        raise UserError(f"this network has {every} channels, not {count}; use a smaller --count")


def _up_to_stage(styles: Sequence[Tensor], view: View) -> Sequence[Tensor]:
    """The styles of the layers that have a part in the images."""
    return styles[: len(view.snapshot.config.style_dims(view.snapshot.stage.resolution))]


def _with_effects(channels: Sequence[Channel], view: View, method: str) -> tuple[Directions, list[float]]:
    return channel_directions(channels, view.snapshot.config, method), [channel.effect for channel in channels]
