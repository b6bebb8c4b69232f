"""A small network that recognises attributes of images, such as glasses: how it is trained, and its file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.editing.attribute_table import Table
from stylegan.editing.settings import ATTRIBUTES, ClassifierSettings
from stylegan.networks.sampling import generator
from torch_utils.adam import Adam
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.device import without_contents
from torch_utils.errors import UserError, in_words
from torch_utils.images import MODES, to_float
from torch_utils.progress import Progress
from torch_utils.settings import from_plain, to_plain
from torch_utils.text import counted, printable, shortened
from training.data.archive import Archive
from training.data.labels import matched
from training.data.packed import packed

FORMAT = "stylegan-attributes-1"
WIDTHS = (32, 64, 96, 128)
PIXELS_AT_ONCE = 1 << 22  # that a classifier looks at: 0.6 GB of feature maps, whatever its file says
MAX_SIDE = 1 << 14


@dataclass(frozen=True)
class Scope:
    """What a classifier tells, and of what.

    names: of the attributes   quantities: which of them are numbers, not yes or no
    centres, spreads: of the quantities in the data (0 and 1 for the others)
    accuracy: see `held_out_accuracy`
    channels: of the images   size: height and width it was trained at   data: whose attributes these are
    """

    names: tuple[str, ...]
    quantities: tuple[bool, ...]
    centres: tuple[float, ...]
    spreads: tuple[float, ...]
    channels: int
    size: tuple[int, int]
    data: str
    accuracy: tuple[float, ...] = ()


class Classifier(nn.Module):
    """Strided convolutions with batch norm down to a mean over the image; one output per attribute."""

    def __init__(self, channels: int, attributes: int):
        super().__init__()
        stages: list[nn.Module] = []
        before = channels
        for number, width in enumerate(WIDTHS):
            kernel = 3 if number else 5
            stages += [nn.Conv2d(before, width, kernel, stride=2, padding=kernel // 2, bias=False),
                       nn.BatchNorm2d(width), nn.ReLU()]  # fmt: skip
            if number:
                stages += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.features = nn.Sequential(*stages)
        self.head = nn.Linear(before, attributes)
        self.position = nn.Parameter(torch.zeros(before, 4, 4))  # what lies where counts, as images are aligned

    def forward(self, images: Tensor) -> Tensor:
        """images: [N,channels,H,W] in [-1, 1] -> [N,attributes]: logits, and standardised quantities."""
        x: Tensor = F.adaptive_avg_pool2d(self.features(images), 4)
        weighted = (x * (1 + self.position)).mean(dim=(2, 3))
        scores: Tensor = self.head(weighted)
        return scores


@dataclass(frozen=True)
class AttributeClassifier:
    """A trained classifier with its scope."""

    network: Classifier
    scope: Scope

    @property
    def names(self) -> tuple[str, ...]:
        return self.scope.names

    @property
    def quantities(self) -> tuple[bool, ...]:
        return self.scope.quantities

    def scores(self, images: Tensor) -> Tensor:
        """images: [N,channels,H,W] in [-1, 1] -> [N,attributes]: logits, and quantities in standard deviations.

        With gradients. Raises UserError for images of other channels.
        """
        scope = self.scope
        if images.shape[1] != scope.channels:
            raise UserError(f"the classifier of {scope.data} looks at images of {scope.channels} channels, these "
                            f"have {images.shape[1]}")  # fmt: skip
        parts = images.split(max(1, PIXELS_AT_ONCE // math.prod(scope.size)))
        return torch.cat([self.network(self._resized(part)) for part in parts])

    def _resized(self, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) == self.scope.size:
            return images
        return F.interpolate(images, self.scope.size, mode="bilinear", antialias=True)

    @torch.inference_mode()
    def values(self, images: Tensor) -> Tensor:
        """The same as probabilities of yes, and quantities in their units."""
        scope, scores = self.scope, self.scores(images)
        numbers = scores * scores.new_tensor(scope.spreads) + scores.new_tensor(scope.centres)
        return torch.where(torch.tensor(scope.quantities, device=scores.device), numbers, scores.sigmoid())


def save_classifier(path: Path, classifier: AttributeClassifier) -> None:
    """Write it, whole or not at all. Raises UserError when the disk is full, or the name does not end in ATTRIBUTES."""
    if not path.name.endswith(ATTRIBUTES):
        raise UserError(f"{path} is no name for a classifier: it must end in {ATTRIBUTES}")
    save_tensors(path, classifier.network.state_dict(), {"format": FORMAT, "scope": to_plain(classifier.scope)})


def load_classifier(path: Path) -> AttributeClassifier:
    """Open what `save_classifier` wrote. Runs no code from the file. Raises UserError if it is something else."""
    try:
        tensors, header = load_tensors(path, f"what directions.py learn made, which ends in {ATTRIBUTES}")
    except OSError as error:
        raise UserError(f"cannot read {path}: {in_words(error)}") from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path} holds no classifier; directions.py learn makes one that ends in {ATTRIBUTES}")
    try:
        scope = from_plain(Scope, header.get("scope"))
        require_scope(scope)
        require_weights(tensors, scope)
    except UserError as error:
        raise UserError(
            f"the classifier in {path} cannot be read: {error}; make another with directions.py learn"
        ) from None
    network = Classifier(scope.channels, len(scope.names))
    network.load_state_dict(tensors)
    return AttributeClassifier(network.eval().requires_grad_(False), scope)


def require_scope(scope: Scope) -> None:
    """Raises UserError unless the parts of a scope from a file fit each other, and its images fit into memory."""
    count = len(scope.names)
    if not count or not all(name.isprintable() and name.strip() for name in scope.names):
        raise UserError("it has no attributes, or one without a name")
    if len(set(scope.names)) < count:
        raise UserError("two of its attributes have one name")
    for what, values in (("quantities", scope.quantities), ("centres", scope.centres), ("spreads", scope.spreads)):
        if len(values) != count:
            raise UserError(f"it has {counted(count, 'attribute')} but {len(values)} {what}")
    if len(scope.accuracy) not in (0, count):
        raise UserError(f"it has {counted(count, 'attribute')} but {len(scope.accuracy)} accuracies")
    if not all(map(math.isfinite, scope.centres)) or not all(0 < spread < math.inf for spread in scope.spreads):
        raise UserError("its centres are not finite, or its spreads are not above 0")
    if scope.channels not in MODES:
        raise UserError(f"it is of images with {shortened(str(scope.channels), 20)} channels, not 1, 3 or 4")
    height, width = scope.size
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= PIXELS_AT_ONCE):
        shown = "x".join(shortened(str(side), 20) for side in (width, height))
        raise UserError(f"it is of images of {shown} pixels, more or fewer than a classifier can look at")


def require_weights(tensors: Mapping[str, Tensor], scope: Scope) -> None:
    """Raises UserError unless these are the weights of such a classifier. Takes no memory, whatever the scope says."""
    with without_contents():
        wanted = Classifier(scope.channels, len(scope.names)).state_dict()
    unlike = sorted(tensors.keys() ^ wanted.keys())
    unlike = unlike or [name for name, tensor in tensors.items() if tensor.shape != wanted[name].shape]
    if unlike:
        raise UserError(f"its weights {printable(shortened(unlike[0], 60))} are missing, too many or of another shape")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError("some of its weights are not finite")


# Learning to tell the attributes of images, from an archive and a table of what its images show


FEWEST = 20  # images of each kind, with which learning can begin


def learn(archive: Archive, table: Table, settings: ClassifierSettings, device: torch.device) -> AttributeClassifier:
    """Train a classifier on the archive's images, and measure it on those held out.

    Raises UserError for a table of other images, and for attributes with hardly an image that has them.
    """
    targets = rows_of(archive, table)
    size = size_of(archive, settings.resolution)
    count = len(archive) - settings.held_out
    if settings.held_out < 1 or count < 2 * FEWEST:
        raise UserError(f"--held-out {settings.held_out}: of {len(archive)} images hold out a tenth or so")
    scope = scope_of(archive, table, targets[:count], size)
    images = packed(archive, *size)
    goals = standardised(torch.from_numpy(targets).float(), scope)
    torch.manual_seed(settings.seed)
    network = Classifier(archive.channels, len(scope.names)).to(device)
    with Progress("Learning", settings.epochs * count) as bar:
        optimiser = Adam(network.parameters(), (0.9, 0.99), 1e-8)
        for done, (pixels, goal) in batches(images[:count], goals[:count], settings):
            optimiser.zero_grad()
            loss_of(network(pixels.to(device)), goal.to(device), scope).backward()
            optimiser.step(settings.lr * 0.5 * (1 + math.cos(math.pi * done)))
            bar.advance(len(pixels))
    classifier = AttributeClassifier(network.eval().requires_grad_(False), scope)
    parts = (to_float(torch.from_numpy(images[start : start + 256].copy())) for start in range(count, len(images), 256))
    found = torch.cat([classifier.values(part.to(device)).cpu() for part in parts])
    accuracy = held_out_accuracy(found, torch.from_numpy(targets[count:]), scope)
    return replace(classifier, scope=replace(scope, accuracy=accuracy))


def size_of(archive: Archive, resolution: int) -> tuple[int, int]:
    """Height and width of the archive's images, halved while the shorter side is longer than `resolution`."""
    height, width = archive.height, archive.width
    while min(height, width) > resolution and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
    return height, width


def rows_of(archive: Archive, table: Table) -> np.ndarray:
    """The table's row of each image, float64 [images,attributes], see `matched`; nan where it has none.

    Raises UserError for rows of images that the archive has not, or that could mean several images.
    """
    try:
        found = matched({key: row for row, key in enumerate(table.keys)}, archive.names)
    except ValueError as error:
        raise UserError(f"the table does not fit {archive.path}: {error}") from error
    unknown = [printable(table.keys[row]) for row in sorted(set(range(len(table.keys))) - set(found))]
    if unknown:
        raise UserError(f"the table has {len(unknown)} of {len(table.keys)} images that {archive.path} lacks, such "
                        f"as '{unknown[0]}'; the archive's are named as in {archive.names[0]}")  # fmt: skip
    targets = np.full((len(archive), len(table.names)), np.nan)
    for image, row in enumerate(found):
        if row is not None:
            targets[image] = table.values[row]
    return targets


def scope_of(archive: Archive, table: Table, targets: np.ndarray, size: tuple[int, int]) -> Scope:
    """Raises UserError for an attribute that all images share, or that hardly any has."""
    centres, spreads = [], []
    for name, quantity, column in zip(table.names, table.quantities, targets.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) < 2 * FEWEST or (quantity and known.std() == 0):
            raise UserError(f"'{name}' says the same of all images, or is known of {len(known)} only")
        if not quantity and min((known == 0).sum(), (known == 1).sum()) < FEWEST:
            raise UserError(f"'{name}' is a single class: {counted(int((known == 1).sum()), 'image')} with it, "
                            f"{(known == 0).sum():.0f} without; each needs {FEWEST} or more")  # fmt: skip
        centres.append(float(known.mean()) if quantity else 0.0)
        spreads.append(float(known.std()) if quantity else 1.0)
    return Scope(table.names, table.quantities, tuple(centres), tuple(spreads), archive.channels, size, archive.name)


def standardised(targets: Tensor, scope: Scope) -> Tensor:
    return (targets - targets.new_tensor(scope.centres)) / targets.new_tensor(scope.spreads)


def loss_of(scores: Tensor, goals: Tensor, scope: Scope) -> Tensor:
    """Cross-entropy of yes and no, squared error of quantities; what is not known does not count. Both [N,K] -> []."""
    known = ~goals.isnan()
    goals = goals.nan_to_num()
    quantity = torch.tensor(scope.quantities, device=scores.device)
    yes_no = F.binary_cross_entropy_with_logits(scores, torch.where(quantity, 0.0, goals), reduction="none")
    errors = torch.where(quantity, 0.5 * (scores - goals).square(), yes_no)
    return (errors * known).sum() / known.sum().clamp(min=1)


def batches(
    images: np.ndarray, goals: Tensor, settings: ClassifierSettings
) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
    """(share of the settings done, (images, goals)), shuffled again each epoch, slightly moved and brightened.

    Never mirrored: an attribute may be a matter of left and right.
    """
    count = len(images)
    for epoch in range(settings.epochs):
        random = generator(settings.seed, "attributes", epoch)
        order = random.permutation(count)
        for start in range(0, count - 1, settings.batch):  # batch norm needs two
            chosen = np.sort(order[start : start + settings.batch])
            pixels = varied(to_float(torch.from_numpy(images[chosen])), random)
            yield (epoch + start / count) / settings.epochs, (pixels, goals[chosen])


def varied(images: Tensor, random: np.random.Generator) -> Tensor:
    """Images moved by up to 1/16 of their size, the same for all of a batch, with other contrast and brightness."""
    reach = max(1, images.shape[-1] // 16)
    down, right = (int(random.integers(0, 2 * reach + 1)) for _ in range(2))
    moved = F.pad(images, (reach,) * 4, mode="replicate")
    moved = moved[..., down : down + images.shape[2], right : right + images.shape[3]]
    contrast, brightness = torch.from_numpy(random.uniform(-0.2, 0.2, (2, len(images), 1, 1, 1))).float()
    return moved * (1 + contrast) + brightness


def held_out_accuracy(found: Tensor, truth: Tensor, scope: Scope) -> tuple[float, ...]:
    """Balanced accuracy of each attribute, the mean of that on yes and on no, so that guessing scores 0.5.

    found: values [N,K], see `AttributeClassifier.values`   truth: [N,K], nan where not known. A quantity counts as yes
    above its centre. An attribute of which only one kind was held out scores nan.
    """
    scores = []
    for k, (quantity, centre) in enumerate(zip(scope.quantities, scope.centres, strict=True)):
        known = ~truth[:, k].isnan()
        border = centre if quantity else 0.5
        yes, right = truth[known, k] > border, found[known, k] > border
        scores.append(0.5 * (right[yes].float().mean() + (~right[~yes]).float().mean()).item())
    return tuple(scores)
