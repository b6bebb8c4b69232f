"""Which class each picture is of, from what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_utils.errors import UserError


def classes_for_seeds(asked: Sequence[int], seeds: Sequence[int], num_classes: int) -> Tensor | None:
    """The class of each seed's picture, [N]: of a list, seed S gets number S, counted round. None without classes.

    By seed and not by place in the list, so that a seed stays the same picture whatever stands beside it.
    Raises UserError unless the network has what is asked for, and where it has classes and none is asked for.
    """
    require_classes(asked, num_classes)
    return torch.tensor([asked[seed % len(asked)] for seed in seeds]) if asked else None


def require_classes(asked: Sequence[int], num_classes: int, flag: str = "--class") -> None:
    """Raises UserError unless the network has what is asked for, and where it has classes and none is asked for."""
    if asked and not num_classes:
        raise UserError(f"{flag}: this network is unconditional, it has no classes; leave the option out")
    if num_classes and not (asked and max(asked) < num_classes):
        raise UserError(f"this network has {num_classes} classes; choose with {flag}, 0 to {num_classes - 1}")
