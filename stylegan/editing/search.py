"""What is said of directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.attribute_table import read_seeds
from stylegan.editing.boundaries import Boundary, Scale, boundary, require_both, told_apart
from stylegan.editing.directions import WEAK, Directions, along, conditional, in_w, sampled, together
from stylegan.editing.pca_sefa import activations, components, covariance, from_activations, sefa, style_weights
from stylegan.editing.settings import FOR_GRADIENTS, FOR_SCALES, SAMPLES, Labels, Search
from stylegan.editing.stylespace import Channel, as_directions, responding, steering, styles_of
from stylegan.latents.notation import layer_ranges, layers_of
from stylegan.latents.render import View
from stylegan.latents.sources import Sources, classes_for_seeds
from torch_utils.errors import UserError
from torch_utils.output import Progress
from torch_utils.text import counted

UNTURNED = 0.05  # degrees, below what can be seen


def in_words(name: str, found: Boundary) -> str:
    return f"{name:16} {worth(found.accuracy):34} from {counted(found.yes, 'picture')} with and {found.no} without"


def worth(accuracy: float) -> str:
    """A held-out accuracy, and whether it is a weak one."""
    if accuracy != accuracy:
        return "held-out accuracy unknown  WEAK"
    return f"held-out accuracy {accuracy:.3f}" + ("  WEAK" if accuracy < WEAK else "")


def turned(before: Directions, after: Directions) -> str:
    """How far a direction turned when others were taken out of it, in words."""
    a, b = (d.vectors[0].double() for d in (before, after))
    rows = max(len(a), len(b))
    a, b = a.expand(rows, -1).flatten(), b.expand(rows, -1).flatten()
    angle = math.degrees(2 * math.atan2(float((a - b).norm()), float((a + b).norm())))  # exact for small angles
    if angle < UNTURNED:
        return f"{before.names[0]} shares nothing with the others: it stays as it was"
    return f"{before.names[0]} turned by {angle:.1f} degrees"


def listed(found: Directions) -> list[str]:
    """A line for each direction, after one for all."""
    lines = [summary(found)]
    for number, name in enumerate(found.names):
        space = "styles" if found.styles else "w" if found.vectors.shape[1] == 1 else "w+"
        about = [space, f"layer{'s' * (len(found.layers[number]) != 1)} {layer_ranges(found.layers[number])}"]
        share, accuracy = float(found.shares[number]), float(found.accuracies[number])
        about += [f"{share:.1%} of the variation"] * (share == share) + [worth(accuracy)] * (accuracy == accuracy)
        lines.append(f"{number:3}  {name:24} {', '.join(about)}")
    return lines


def summary(found: Directions) -> str:
    """How many there are, how they were found, and how much they account for together."""
    share = float(found.shares.sum())
    return f"{counted(len(found), 'direction')}, {found.method}" + (
        f", {share:.0%} of the variation" if share == share else ""
    )


def captions(found: Directions) -> list[str]:
    """A name for each, with its share where that is known."""
    shares = found.shares.tolist()
    return [name if share != share else f"{name}  {share:.1%}" for name, share in zip(found.names, shares, strict=True)]


# Looks for directions as asked: samples, method, result; the methods themselves are in files of their own


@dataclass(frozen=True)
class Teller:
    """A classifier of pictures. values: [N,channels,H,W] in [-1, 1] -> [N,attributes], quantities or probabilities.

    scores: the same as logits, and quantities in standard deviations, with gradients
    """

    names: tuple[str, ...]
    quantities: tuple[bool, ...]
    values: Callable[[Tensor], Tensor]
    scores: Callable[[Tensor], Tensor]


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
    if search.count > config.ws_dim:
        raise UserError(f"--count {search.count}: w has {config.ws_dim} dimensions, and no more directions")
    batches = sampled(snapshot, range(search.labels.samples or SAMPLES[search.method]), search.labels.classes)
    if search.method == "activations":
        layer = layers_of((search.layer,), config, resolution)[0]
        w = list(batches)
        vectors, shares = from_activations(activations(G, torch.cat(w).split(64), layer), search.count)
        _, cov, count = covariance(w)
        name, method = f"layer{layer}-pc", f"principal components of layer {layer}, {count} samples"
    else:
        _, cov, count = covariance(batches)
        if search.method == "pca":
            vectors, variances = components(cov, search.count)
            shares = variances / cov.trace()
            name, method = "pc", f"principal components of w, {count} samples"
        else:
            weights = style_weights(G, layers)
            vectors, squares = sefa(weights, search.count)
            shares = squares / weights.square().sum()
            name, method = "sefa", f"SeFa of layers {layer_ranges(layers)}"
    return in_w(vectors, [f"{name}{i}" for i in range(search.count)], layers, method, cov, shares.float())


def labelled(labels: Labels, view: View, teller: Teller | None, batch: int) -> Labelled:
    """Seeds with their labels, read, or told of pictures that are drawn for it as the view says.

    Raises UserError for labels that cannot be used.
    """
    if teller is None:
        seeds, table = read_seeds(Path(labels.labels), labels.attributes)
        scales = scales_for(table.quantities, "truth")
        return Labelled(w_of(seeds, labels, view), table.names, scales, table.values)
    chosen = told(labels, teller)
    every = range(labels.samples or SAMPLES["labels"])
    c = classes_for_seeds(labels.classes, every, view.config.num_classes)
    values = []
    with Progress("Looking at pictures", len(every)) as bar:
        for start in range(0, len(every), 64):
            part = every[start : start + 64]
            pictures = view.render(part, None if c is None else c[start : start + 64], batch)
            values.append(teller.values(pictures.clamp(-1, 1)).double().numpy()[:, chosen])
            bar.advance(len(part))
    return Labelled(
        w_of(every, labels, view), tuple(teller.names[k] for k in chosen),
        scales_for([teller.quantities[k] for k in chosen], "probability"), np.concatenate(values),
    )  # fmt: skip


def told(labels: Labels, teller: Teller) -> list[int]:
    """The places, in what the classifier says, of --attributes, or of all. Raises UserError for what it cannot tell."""
    names = [str(attribute) for attribute in labels.attributes] or teller.names
    unknown = [name for name in names if name not in teller.names]
    if unknown:
        raise UserError(f"{labels.labels} tells {', '.join(teller.names)}, not '{unknown[0]}'")
    return [teller.names.index(name) for name in names]


def scales_for(quantities: Sequence[bool], otherwise: Scale) -> tuple[Scale, ...]:
    return tuple("quantity" if quantity else otherwise for quantity in quantities)


def w_of(seeds: Sequence[int], labels: Labels, view: View) -> Tensor:
    return torch.cat(list(sampled(view.snapshot, seeds, labels.classes)))


def from_labels(search: Search, known: Labelled, view: View, say: Callable[[str], object]) -> Directions:
    """A boundary for each attribute. `say` hears of what each one is worth, and of those that cannot be had.

    Raises UserError if none can be had.
    """
    config = view.config
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
    _, wide, _ = covariance(sampled(view.snapshot, range(FOR_SCALES), search.labels.classes))
    directions = in_w(along(torch.stack([b.normal for b in found.values()]), wide), list(found), layers,
                      f"boundaries ({search.boundary}) of {search.labels.labels}", wide)  # fmt: skip
    return replace(directions, accuracies=torch.tensor([b.accuracy for b in found.values()]))


def require_one_attribute(names: Sequence[str]) -> None:
    """Raises UserError unless a single attribute is chosen."""
    if len(names) != 1:
        raise UserError(f"--attributes: choose one of {', '.join(names)}")


def by_difference(known: Labelled, view: View, count: int) -> tuple[Directions, list[float]]:
    """The style channels that differ most with the one attribute known, as directions, and their effects.

    Raises UserError for several attributes, and where one kind is missing.
    """
    require_one_attribute(known.names)
    yes, no = told_apart(known.values[:, 0], known.scales[0])
    require_both(known.names[0], yes, no)
    G = view.snapshot.G
    found = responding(styles_of(G, known.w.split(256))[: drawn_layers(view)], yes, no, count)
    return as_found(found, view, f"style channels that go with {known.names[0]}")


def by_gradient(labels: Labels, view: View, teller: Teller, count: int, batch: int) -> tuple[Directions, list[float]]:
    """The style channels that change most what the classifier says of the one attribute chosen, and their effects.

    Raises UserError for several attributes.
    """
    chosen, G = told(labels, teller), view.snapshot.G
    require_one_attribute([teller.names[k] for k in chosen])
    (place,) = chosen
    seeds = range(labels.samples or FOR_GRADIENTS)
    styles = styles_of(G, sampled(view.snapshot, seeds, labels.classes))[: drawn_layers(view)]
    sources = Sources.of(seeds, view, labels.classes)
    with Progress("Looking at pictures", len(seeds)) as bar:
        found = steering(
            G, view.stage, (part.ws for part in sources.batches(batch)), styles,
            lambda pictures: teller.scores(pictures)[:, place], count, bar.advance,
        )  # fmt: skip
    return as_found(found, view, f"style channels that steer {teller.names[place]}")


def require_channels(view: View, count: int) -> None:
    """Raises UserError for more channels than there are, before any is looked at."""
    layers_of((0,), view.config)
    every = sum(view.config.style_dims(view.stage.resolution))
    if count > every:
        raise UserError(f"there are {every} channels, not {count}; use a smaller --count")


def drawn_layers(view: View) -> int:
    """How many layers have a part in the pictures."""
    return len(view.config.layers_at(view.stage.resolution))


def as_found(found: Sequence[Channel], view: View, method: str) -> tuple[Directions, list[float]]:
    G, config = view.snapshot.G, view.config
    directions = as_directions(found, G.config.style_dims(), config.ws_dim, method)
    return directions, [channel.effect for channel in found]


def projected_out(
    found: Directions, name: str, others: Sequence[str], snapshot: Snapshot, classes: Sequence[int]
) -> Directions:
    """See `conditional`, for directions by their names. Raises UserError for names that are not there."""
    one, rest = found.named(name), together([found.named(other) for other in others])
    _, cov, _ = covariance(sampled(snapshot, range(SAMPLES["pca"]), classes))  # the same, so that components are apart
    return conditional(one, rest, cov)
