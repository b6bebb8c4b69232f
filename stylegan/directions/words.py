"""What is said of directions."""

from __future__ import annotations

import math

from stylegan.directions.boundaries import Boundary
from stylegan.directions.file import WEAK, Directions
from stylegan.styles import layers_in_words
from torch_utils.words import counted

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
        about = [space, f"layer{'s' * (len(found.layers[number]) != 1)} {layers_in_words(found.layers[number])}"]
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
