"""A small network that tells attributes of pictures, learnt from a labelled data set, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError
from torch_utils.settings import from_plain, to_plain
from training.lesson import SUFFIX

FORMAT = "stylegan-attributes-1"
WIDTHS = (32, 64, 96, 128)


@dataclass(frozen=True)
class Scope:
    """What a classifier tells, and of what.

    names: of the attributes   quantities: which of them are numbers, not yes or no
    centres, spreads: of the quantities in the data (0 and 1 for the others)   accuracy: held-out, see `judged`
    channels: of the pictures   size: height and width it was trained at   data: whose attributes these are
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
    """Strided convolutions with batch norm down to a mean over the picture; one output per attribute."""

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
        self.position = nn.Parameter(torch.zeros(before, 4, 4))  # what lies where counts, as pictures are aligned

    def forward(self, images: Tensor) -> Tensor:
        """images: [N,channels,H,W] in [-1, 1] -> [N,attributes]: logits, and standardised quantities."""
        x: Tensor = F.adaptive_avg_pool2d(self.features(images), 4)
        weighted = (x * (1 + self.position)).mean(dim=(2, 3))
        scores: Tensor = self.head(weighted)
        return scores


@dataclass(frozen=True)
class Judge:
    """A trained classifier with its scope."""

    network: Classifier
    scope: Scope

    def scores(self, images: Tensor) -> Tensor:
        """images: [N,channels,H,W] in [-1, 1] -> [N,attributes]: logits, and quantities in standard deviations.

        With gradients. Raises UserError for pictures of other channels.
        """
        scope = self.scope
        if images.shape[1] != scope.channels:
            raise UserError(f"the classifier of {scope.data} looks at pictures of {scope.channels} channels, these "
                            f"have {images.shape[1]}")  # fmt: skip
        if tuple(images.shape[2:]) != scope.size:
            images = F.interpolate(images, scope.size, mode="bilinear", antialias=True)
        scores: Tensor = self.network(images)
        return scores

    @torch.inference_mode()
    def values(self, images: Tensor) -> Tensor:
        """The same as probabilities of yes, and quantities in their units."""
        scope, scores = self.scope, self.scores(images)
        numbers = scores * scores.new_tensor(scope.spreads) + scores.new_tensor(scope.centres)
        return torch.where(torch.tensor(scope.quantities, device=scores.device), numbers, scores.sigmoid())


def save_judge(path: Path, judge: Judge) -> None:
    """Write it, whole or not at all. Raises UserError when the disk is full, or the name does not end in SUFFIX."""
    if not path.name.endswith(SUFFIX):
        raise UserError(f"{path} is no name for a classifier: it must end in {SUFFIX}")
    save_tensors(path, judge.network.state_dict(), {"format": FORMAT, "scope": to_plain(judge.scope)})


def load_judge(path: Path) -> Judge:
    """Open what `save_judge` wrote. Runs no code from the file. Raises UserError if it is something else."""
    try:
        tensors, header = load_tensors(path, f"what directions.py learn made, which ends in {SUFFIX}")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path} holds no classifier; directions.py learn makes one that ends in {SUFFIX}")
    try:
        scope = from_plain(Scope, header.get("scope"))
        network = Classifier(scope.channels, len(scope.names))
        network.load_state_dict(tensors)
    except (UserError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the classifier in {path} cannot be read: {str(error).splitlines()[-1].strip()}") from error
    return Judge(network.eval().requires_grad_(False), scope)
