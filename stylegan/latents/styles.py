"""Which style layers, as it is typed: 0-6, coarse, middle, fine. Imports nothing that takes time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stylegan.networks.config import NetworkConfig, require_styles
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


def layers_of(styles: str | Sequence[int | str], config: NetworkConfig, resolution: int | None = None) -> list[int]:
    """The rows of ws that are meant by `styles`, in order, each once, for images of `resolution` (else the largest).

    Raises UserError for layers that the network does not have at that resolution, and for a network without styles.
    """
    require_styles(config)
    resolution = resolution or config.resolution
    used = config.layers_at(resolution)
    last = max(layer.row for layer in used)
    rows: set[int] = set()
    for style in parse_styles(styles) if isinstance(styles, str) else styles:
        if isinstance(style, int):
            rows.add(style)
            continue
        smallest, largest = PARTS[style]
        found = {layer.row for layer in used if smallest <= layer.resolution <= largest}
        if not found:
            raise UserError(f"there are no {style} styles at {resolution}x{resolution}: they begin at "
                            f"{smallest}x{smallest}; use layers from 0 to {last}")  # fmt: skip
        rows |= found
    if rows and not (min(rows) >= 0 and max(rows) <= last):
        raise UserError(f"there is no layer {max(rows)}: this network has {last + 1} layers at "
                        f"{resolution}x{resolution}, 0 to {last}")  # fmt: skip
    return sorted(rows)


def layers_in_words(layers: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"
