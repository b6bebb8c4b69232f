"""Looks for directions as asked: samples, method, result; the methods themselves are in files of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan.classes import classes_for_seeds
from stylegan.directions.attribute_table import read_seeds
from stylegan.directions.boundaries import Boundary, Scale, boundary, told_apart
from stylegan.directions.direction import conditional, in_w, sampled
from stylegan.directions.file import WEAK, Directions, together
from stylegan.directions.pca import activations, components, covariance, from_activations
from stylegan.directions.sefa import sefa, style_weights
from stylegan.directions.settings import FOR_SCALES, SAMPLES, Labels, Search
from stylegan.directions.stylespace import as_directions, responding, styles_of
from stylegan.painter import Painter
from stylegan.snapshot import Snapshot
from stylegan.styles import layers_in_words, layers_of
from torch_utils.errors import UserError
from torch_utils.progress import Progress


@dataclass(frozen=True)
class Teller:
    """A classifier of pictures. values: [N,channels,H,W] in [-1, 1] -> [N,attributes], quantities or probabilities."""

    names: tuple[str, ...]
    quantities: tuple[bool, ...]
    values: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Labelled:
    """Pictures of which attributes are known. w: [N,w_dim], without truncation   values: float64 [N,attributes]."""

    w: Tensor
    names: tuple[str, ...]
    scales: tuple[Scale, ...]
    values: np.ndarray


def unsupervised(search: Search, snapshot: Snapshot, resolution: int) -> Directions:
    """By pca, activations or sefa. Raises UserError for what the network has not, such as w or so many layers."""
    G, config = snapshot.G, snapshot.config
    layers = layers_of(search.layers or tuple(range(config.num_ws)), config)
    batches = sampled(snapshot, range(search.labels.samples or SAMPLES[search.method]), search.labels.classes)
    if search.method == "activations":
        layer = layers_of((search.layer,), config, resolution)[0]
        w = list(batches)
        vectors = from_activations(activations(G, torch.cat(w).split(64), layer), search.count)
        _, cov, count = covariance(w)
        name, method = f"layer{layer}-pc", f"principal components of layer {layer}, {count} samples"
    else:
        _, cov, count = covariance(batches)
        if search.method == "pca":
            vectors, variances = components(cov, search.count)
            share = variances.sum() / cov.trace()
            name, method = "pc", f"principal components of w, {count} samples, {share:.0%} of the variance"
        else:
            vectors, _ = sefa(style_weights(G, layers), search.count)
            name, method = "sefa", f"SeFa of layers {layers_in_words(layers)}"
    return in_w(vectors, [f"{name}{i}" for i in range(search.count)], layers, method, cov)


def labelled(labels: Labels, painter: Painter, teller: Teller | None, batch: int) -> Labelled:
    """Seeds with their labels, read, or told of pictures that are drawn for it as the view says.

    Raises UserError for labels that cannot be used.
    """
    if teller is None:
        seeds, table = read_seeds(Path(labels.labels), labels.attributes)
        scales = scales_for(table.quantities, "truth")
        return Labelled(w_of(seeds, labels, painter), table.names, scales, table.values)
    names = [str(attribute) for attribute in labels.attributes] or teller.names
    unknown = [name for name in names if name not in teller.names]
    if unknown:
        raise UserError(f"{labels.labels} tells {', '.join(teller.names)}, not '{unknown[0]}'")
    chosen = [teller.names.index(name) for name in names]
    every = range(labels.samples or SAMPLES["labels"])
    c = classes_for_seeds(labels.classes, every, painter.snapshot.config.num_classes)
    values = []
    with Progress("Looking at pictures", len(every)) as bar:
        for start in range(0, len(every), 64):
            part = every[start : start + 64]
            pictures = painter.paint(part, None if c is None else c[start : start + 64], batch)
            values.append(teller.values(pictures.clamp(-1, 1)).double().numpy()[:, chosen])
            bar.advance(len(part))
    return Labelled(
        w_of(every, labels, painter), tuple(names),
        scales_for([teller.quantities[k] for k in chosen], "probability"), np.concatenate(values),
    )  # fmt: skip


def scales_for(quantities: Sequence[bool], otherwise: Scale) -> tuple[Scale, ...]:
    return tuple("quantity" if quantity else otherwise for quantity in quantities)


def w_of(seeds: Sequence[int], labels: Labels, painter: Painter) -> Tensor:
    return torch.cat(list(sampled(painter.snapshot, seeds, labels.classes)))


def from_labels(search: Search, known: Labelled, painter: Painter, say: Callable[[str], object]) -> Directions:
    """A boundary for each attribute. `say` hears of what each one is worth, and of those that cannot be had.

    Raises UserError if none can be had.
    """
    config = painter.snapshot.config
    layers = layers_of(search.layers or tuple(range(config.num_ws)), config)
    found: dict[str, Boundary] = {}
    failed: list[str] = []
    for name, scale, values in zip(known.names, known.scales, known.values.T, strict=True):
        try:
            found[name] = boundary(known.w, values, scale, name, search.boundary)
            say(in_words(name, found[name]))
        except UserError as error:
            failed.append(str(error))
    if not found:
        raise UserError("; ".join(failed))
    for reason in failed:
        say(f"left out: {reason}")
    _, wide, _ = covariance(sampled(painter.snapshot, range(FOR_SCALES), search.labels.classes))
    directions = in_w(torch.stack([b.normal for b in found.values()]), list(found), layers,
                      f"boundaries ({search.boundary}) of {search.labels.labels}", wide)  # fmt: skip
    return replace(directions, accuracies=torch.tensor([b.accuracy for b in found.values()]))


def in_words(name: str, found: Boundary) -> str:
    return f"{name:16} {worth(found.accuracy):34} from {found.yes} pictures with and {found.no} without"


def worth(accuracy: float) -> str:
    """A held-out accuracy, and whether it is a weak one."""
    if accuracy != accuracy:
        return "held-out accuracy unknown  WEAK"
    return f"held-out accuracy {accuracy:.3f}" + ("  WEAK" if accuracy < WEAK else "")


def require_one_attribute(names: Sequence[str]) -> None:
    """Raises UserError unless a single attribute is chosen."""
    if len(names) != 1:
        raise UserError(f"--attributes: choose one of {', '.join(names)}")


def channels(known: Labelled, painter: Painter, count: int) -> tuple[Directions, list[float]]:
    """The style channels that respond most to the one attribute known, as directions, and their effects.

    Raises UserError for several attributes, and where one kind is missing.
    """
    require_one_attribute(known.names)
    yes, no = told_apart(known.values[:, 0], known.scales[0])
    if min(len(yes), len(no)) < 2:
        raise UserError(f"'{known.names[0]}' is a single class: {len(yes)} pictures have it and {len(no)} have not")
    G = painter.snapshot.G
    drawn = 2 * (1 + painter.snapshot.config.resolutions.index(G.synthesis.grown[0]))
    found = responding(styles_of(G, known.w.split(256))[:drawn], yes, no, count)
    method = f"style channels that go with {known.names[0]}"
    directions = as_directions(found, G.synthesis.style_sizes(), painter.snapshot.config.w_dim, method)
    return directions, [channel.effect for channel in found]


def projected_out(
    found: Directions, name: str, others: Sequence[str], snapshot: Snapshot, classes: Sequence[int]
) -> Directions:
    """See `conditional`, for directions by their names. Raises UserError for names that are not there."""
    _, cov, _ = covariance(sampled(snapshot, range(FOR_SCALES), classes))
    return conditional(found.named(name), together([found.named(other) for other in others]), cov)


def listed(found: Directions) -> list[str]:
    """A line for each direction, after one for all."""
    lines = [f"{len(found)} directions, {found.method}"]
    for number, name in enumerate(found.names):
        space = "styles" if found.styles else "w" if found.vectors.shape[1] == 1 else "w+"
        about = f"{number:3}  {name:24} {space}, layers {layers_in_words(found.layers[number])}"
        accuracy = float(found.accuracies[number])
        lines.append(about + ("" if accuracy != accuracy else f", {worth(accuracy)}"))
    return lines
