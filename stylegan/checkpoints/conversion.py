"""Converting a model: a published network file to a snapshot, or a snapshot to one of half the size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, save_snapshot
from stylegan.networks.base import Discriminator
from torch_utils.errors import UserError

# Largest mean difference between images of rounded and of original weights. White is 2 from black; half of one of the
# 256 levels is 0.004.
ROUNDED = 0.02


@dataclass(frozen=True)
class Converted:
    """The copy as it was read back.

    image: of seed 0 and the first class [1,C,H,W]   difference: its mean difference from the original's
    score: what the discriminator of the copy says of the image; None without
    """

    copy: Snapshot
    image: Tensor
    difference: float
    score: float | None


def convert(source: str | Path, dest: Path, with_d: bool = False, half: bool = False) -> Converted:
    """Write the model `source`, which may be anything that `stylegan.load` opens, as a snapshot file, and read it back.

    with_d: include the discriminator   half: store weights as 16-bit floats, which all tools convert to 32 bits again

    Raises UserError as `stylegan.load` does, for a `dest` that cannot be written, and if the copy generates another
    image than the original or scores it differently; with `half` both may differ slightly.
    """
    if dest.suffix != ".safetensors" or not dest.parent.is_dir():
        raise UserError(f"cannot write {dest}; --dest is a file ending in .safetensors, in a folder that exists")
    original = open_snapshot(source)
    if with_d and original.D is None:
        raise UserError(f"{source} has no discriminator; leave out --with-d")
    save_snapshot(
        dest, original.G, original.D if with_d else None, config=original.config, stage=original.stage,
        kimg=original.kimg, data=original.data, half=half,
    )  # fmt: skip
    copy = load_snapshot(dest)
    image = _first_image(copy)
    difference = (image - _first_image(original)).abs().mean().item()
    limit = ROUNDED if half else 0.0
    wrong = "" if difference <= limit else "does not generate the same image as"
    score = None
    if copy.D is not None and original.D is not None:
        found, expected = _scores(copy, copy.D, image), _scores(original, original.D, image)
        score = found[0].item()
        if not (found - expected).abs().max() <= limit * expected.abs().max().clamp(min=1):
            wrong = wrong or "does not score images as the discriminator of"
    if wrong:
        dest.unlink()
        cure = "16 bits are too few for it, leave out --half" if half else "the disk may be faulty, convert it again"
        raise UserError(f"{dest} {wrong} {source}: {cure}")
    return Converted(copy, image, difference, score)


def _first_image(snapshot: Snapshot) -> Tensor:
    """The image of seed 0 and the first class, [1,channels,H,W]."""
    return snapshot.renderer.render([0], _first_class(snapshot), psi=1.0)


@torch.no_grad()
def _scores(snapshot: Snapshot, D: Discriminator, image: Tensor) -> Tensor:
    """The score of an image [1,C,H,W], and the logits of all classes if the discriminator tells them apart: [1+L]."""
    score, logits = D.outputs(image, _first_class(snapshot), snapshot.stage)
    return torch.cat([score, logits[0]])


def _first_class(snapshot: Snapshot) -> Tensor | None:
    return torch.zeros(1, dtype=torch.int64) if snapshot.config.num_classes else None
