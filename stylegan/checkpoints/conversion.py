"""Writing a model again: a published network as a snapshot, a snapshot in half the size, two networks as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, store
from stylegan.networks.base import Discriminator
from stylegan.networks.config import LayerInfo
from stylegan.networks.sampling import z_for_seeds
from torch_utils.errors import UserError

# Largest mean difference between images of rounded and of original weights. White is 2 from black; half of one of the
# 256 levels is 0.004.
ROUNDED = 0.02
RELATED = 0.1  # the correlation of images below which two networks hardly are; by chance it is up to 0.05
COMPARED = 24  # images


@dataclass(frozen=True)
class Converted:
    """The copy as it was read back.

    image: of seed 0 and the first class [1,C,H,W]   difference: its mean difference from the original's
    score: what the discriminator of the copy says of the image; None without
    notes: lines on what a blend is made of
    """

    copy: Snapshot
    image: Tensor
    difference: float
    score: float | None
    notes: tuple[str, ...] = ()


def convert(source: str | Path, dest: Path, with_d: bool = False, half: bool = False) -> Converted:
    """Write the model `source`, which may be anything that `stylegan.load` opens, as a snapshot file, and read it back.

    with_d: include the discriminator   half: store weights as 16-bit floats, which all tools convert to 32 bits again

    Raises UserError as `stylegan.load` and `written` do.
    """
    _require_dest(dest)
    original = open_snapshot(source)
    if with_d and original.D is None:
        raise UserError(f"{source} has no discriminator; leave out --with-d")
    return written(original if with_d else replace(original, D=None), dest, half, str(source))


def blend(coarse: str | Path, fine: str | Path, layer: int, dest: Path, half: bool = False) -> Converted:
    """Write a network with the mapping network and first layers of `coarse`, and the layers from `layer` on of `fine`.

    Useful for two networks of which one was trained from the other, or both from the same: the first decides poses and
    shapes, the second colours and textures (Pinkney, Adler 2020). The blend has no discriminator.
    layer: index from 1 to the number of layers minus 1, counted as in style mixing

    Raises UserError as `stylegan.load` and `written` do, and for networks whose layers cannot be exchanged.
    """
    _require_dest(dest)
    first, second = open_snapshot(coarse), open_snapshot(fine)
    count = len(_exchangeable(first))
    if not 0 < layer < count:
        raise UserError(
            f"--from-layer must be from 1 to {count - 1}, as {coarse} has layers 0 to {count - 1}; got {layer}"
        )
    weights, others = first.G.synthesis.state_dict(), second.G.synthesis.state_dict()
    exchanged = [name for name in weights if first.G.synthesis.layer_of(name) >= layer]
    apart = _unlike(first, second)
    apart += [name for name in exchanged if name not in others or others[name].shape != weights[name].shape][:1]
    if apart:
        raise UserError(f"{coarse} and {fine} differ in {', '.join(apart)}, so their layers cannot be exchanged; "
                        "blend networks of which one was trained from the other")  # fmt: skip
    notes = [
        f"From {coarse}: the mapping network and {_layers(first, 0, layer)}",
        f"From {fine}: {_layers(first, layer, count)}",
    ]
    alike = abs(_likeness(first, second))
    if alike < RELATED:
        notes.append(
            f"What these two generate from the same w has little in common (a correlation of {alike:.2f}), so the "
            "blend will hardly be more than blobs; blend networks of which one was trained from the other"
        )
    with torch.no_grad():
        for name in exchanged:
            weights[name].copy_(others[name])
    names = f"{first.data} up to layer {layer - 1}, {second.data} from {layer}"
    made = written(replace(first, D=None, data=names), dest, half, f"the blend of {coarse} and {fine}")
    return replace(made, notes=tuple(notes))


def _exchangeable(snapshot: Snapshot) -> list[LayerInfo]:
    """The layers of a blend: a layer to the image goes with the one before it."""
    return [layer for layer in snapshot.config.layers_at(snapshot.stage.resolution) if layer.kind == "conv"]


def _layers(snapshot: Snapshot, start: int, end: int) -> str:
    """ "layers 0-3 (4x4 to 8x8)" """
    found = _exchangeable(snapshot)[start:end]
    sizes = dict.fromkeys("{1}x{0}".format(*snapshot.config.size(layer.resolution)) for layer in (found[0], found[-1]))
    rows = f"layer {start}" if end - start == 1 else f"layers {start}-{end - 1}"
    return f"{rows} ({' to '.join(sizes)})"


def _likeness(first: Snapshot, second: Snapshot) -> float:
    """How much the images of two networks for the same w are alike, from -1 to 1: their correlation.

    The w are those of the first, as in a blend. Weights say less: networks that were trained apart, but began at the
    same random numbers, have similar ones and generate nothing alike.
    """
    classes = first.config.num_classes
    c = torch.arange(COMPARED) % classes if classes else None
    ws = first.renderer.map(z_for_seeds(range(COMPARED), first.config.z_dim), c, psi=1.0)
    ours, theirs = (snapshot.renderer.draw(ws, "none") for snapshot in (first, second))
    a, b = ((images - images.mean(dim=0)).flatten().double() for images in (ours, theirs))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def _unlike(first: Snapshot, second: Snapshot) -> list[str]:
    """In what the images of two networks differ by their settings, or the stages to which they have grown."""
    ours, theirs = first.config, second.config
    if type(ours) is not type(theirs):
        return ["their family"]
    names = [name for name in ("resolution", "base", "channels") if getattr(ours, name) != getattr(theirs, name)]
    # Of the mapping network only one is used, and widths show in the weights.
    apart = {name for name in ours.inherited(theirs) if name not in ours.WIDTHS and not name.startswith("mapping_")}
    names += sorted(apart - {"z_dim", "normalize_z"})
    return names or (["the stage to which they have grown"] if first.stage != second.stage else [])


def _require_dest(dest: Path) -> None:
    if dest.suffix != ".safetensors" or not dest.parent.is_dir():
        raise UserError(f"cannot write {dest}; --dest is a file ending in .safetensors, in a folder that exists")


def written(original: Snapshot, dest: Path, half: bool, name: str) -> Converted:
    """Write a snapshot and read it back. name: of the original, for messages   half: see `convert`

    Raises UserError for a `dest` that cannot be written, and if the copy generates another image than the original or
    scores it differently; with `half` both may differ slightly.
    """
    store(dest, original, half)
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
        raise UserError(f"{dest} {wrong} {name}: {cure}")
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
