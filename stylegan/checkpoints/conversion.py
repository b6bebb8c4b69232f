"""Converting a model: a published network file to a snapshot, or a snapshot to one of half the size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, save_snapshot
from torch_utils.errors import UserError

# Largest mean difference between images of rounded and of original weights. White is 2 from black; half of one of the
# 256 levels is 0.004.
ROUNDED = 0.02


@dataclass(frozen=True)
class Converted:
    """The copy as it was read back, its image of seed 0 [1,C,H,W], and the mean difference from the original's."""

    copy: Snapshot
    image: Tensor
    difference: float


def convert(source: str | Path, dest: Path, with_d: bool = False, half: bool = False) -> Converted:
    """Write the model `source`, which may be anything that `stylegan.load` opens, as a snapshot file, and read it back.

    with_d: include the discriminator   half: store weights as 16-bit floats, which all tools convert to 32 bits again

    Raises UserError as `stylegan.load` does, for a `dest` that cannot be written, and if the copy generates another
    image than the original; with `half` the images may differ slightly.
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
    if not difference <= (ROUNDED if half else 0):
        dest.unlink()
        cure = "16 bits are too few for it, leave out --half" if half else "the disk may be faulty, convert it again"
        raise UserError(f"{dest} does not generate the same image as {source}: {cure}")
    return Converted(copy, image, difference)


def _first_image(snapshot: Snapshot) -> Tensor:
    """The image of seed 0 and the first class, [1,channels,H,W]."""
    c = torch.zeros(1, dtype=torch.int64) if snapshot.config.num_classes else None
    return snapshot.renderer.render([0], c, psi=1.0)
