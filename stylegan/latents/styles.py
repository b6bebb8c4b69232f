"""Which style layers, as it is typed: 0-6, coarse, middle, fine. Imports nothing that takes time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stylegan.networks.base import ModelConfig
from torch_utils.errors import UserError

# The resolutions whose styles the paper mixes together (StyleGAN, figure 3).
PARTS = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, 1 << 30)}
Styles = tuple[int | str, ...]


def parse_styles(text: str) -> Styles:
    """ "0-2,fine" -> (0, 1, 2, "fine"). Raises UserError for what is no layer, range of layers or name in PARTS."""
    styles: list[int | str] = []
    for part in (part.strip() for part in text.lower().split(",")):
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        if part in PARTS:
            styles.append(part)
        elif not match:
            raise UserError(f"'{part}' is no layer; write layers as in 0-6, or {', '.join(PARTS)}")
        else:
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise UserError(f"the range {first}-{last} runs backwards; write {last}-{first}")
            styles.extend(range(first, last + 1))
    return tuple(styles)


def layers_of(styles: str | Sequence[int | str], config: ModelConfig, resolution: int | None = None) -> list[int]:
    """The rows of ws that are meant by `styles`, in order, each once, for pictures of `resolution` (else the largest).

    Raises UserError for layers that the network has not at that resolution, and for a network without styles.
    """
    if not config.styles:
        what = "ProGAN" if config.family == "progan" else "this network"
        raise UserError(f"{what} has no styles: a single latent feeds its first layer; use a StyleGAN network for this")
    resolution = resolution or config.resolution
    used = [r for r in config.resolutions if r <= resolution]
    layers: set[int] = set()
    for style in parse_styles(styles) if isinstance(styles, str) else styles:
        if isinstance(style, int):
            layers.add(style)
            continue
        smallest, largest = PARTS[style]
        found = {2 * i + half for i, r in enumerate(used) if smallest <= r <= largest for half in (0, 1)}
        if not found:
            raise UserError(f"there are no {style} styles at {resolution}x{resolution}: they begin at "
                            f"{smallest}x{smallest}; use layers from 0 to {2 * len(used) - 1}")  # fmt: skip
        layers |= found
    if layers and not (min(layers) >= 0 and max(layers) < 2 * len(used)):
        raise UserError(f"there is no layer {max(layers)}: this network has {2 * len(used)} layers at "
                        f"{resolution}x{resolution}, 0 to {2 * len(used) - 1}")  # fmt: skip
    return sorted(layers)


def layers_in_words(layers: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"
