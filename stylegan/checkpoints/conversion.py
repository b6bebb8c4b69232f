"""A model written anew: a published network file as a snapshot, or a snapshot in half the size, to be passed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, save_snapshot
from torch_utils.errors import UserError

# How far a picture of rounded weights may be from the original's, of the 2 from black to white, on average over its
# pixels. Half a level of 8 bits is 0.004.
ROUNDED = 0.02


@dataclass(frozen=True)
class Converted:
    """The copy as it was read back, its picture of seed 0 [1,C,H,W], and how far that is from the original's."""

    copy: Snapshot
    picture: Tensor
    difference: float


def convert(source: str | Path, dest: Path, with_d: bool = False, half: bool = False) -> Converted:
    """Write the model `source`, anything that `stylegan.load` opens, as a snapshot file, and read that back.

    with_d: the discriminator too   half: weights as 16-bit floats, which every tool reads as 32-bit ones again

    Raises UserError as `stylegan.load` does, if `dest` cannot be, and if the copy does not draw the same picture, or
    with `half` one that can hardly be told from it.
    """
    if dest.suffix != ".safetensors" or not dest.parent.is_dir():
        raise UserError(f"cannot write {dest}; --dest is a file ending in .safetensors, in a folder that exists")
    original = open_snapshot(source)
    if with_d and original.D is None:
        raise UserError(f"{source} has no discriminator; leave out --with-d")
    save_snapshot(
        dest,
        original.G,
        original.D if with_d else None,
        config=original.config,
        stage=original.stage,
        kimg=original.kimg,
        data=original.data,
        half=half,
    )
    copy = load_snapshot(dest)
    picture = _picture(copy)
    difference = (picture - _picture(original)).abs().mean().item()
    if not difference <= (ROUNDED if half else 0):
        dest.unlink()
        cure = "16 bits are too few for it; leave out --half" if half else "the disk may be faulty, so convert it again"
        raise UserError(f"{dest} does not draw what {source} does; {cure}")
    return Converted(copy, picture, difference)


def _picture(snapshot: Snapshot) -> Tensor:
    """Of seed 0 and the first class, [1,channels,H,W]."""
    c = torch.zeros(1, dtype=torch.int64) if snapshot.config.num_classes else None
    return snapshot.renderer.render([0], c, psi=1.0)
