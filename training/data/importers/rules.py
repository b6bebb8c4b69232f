"""What the user can decide about a conversion, with the flags and the help of the command line.

Imports nothing slow, because --help needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting
from torch_utils.text import AUTO_LEVELS, LevelsRule, parse_levels
from training.data.sizes import Size, base_for, parse_size

IMAGES, SELECTION = "Images", "Selection"


@dataclass(frozen=True)
class Rules:
    """How images become an archive. upscale: enlarge images that are too small, instead of skipping them."""

    resolution: Size | None = setting(None, Flag(
        "--resolution", "Size of every image in the archive; without it they must all have one size already.", IMAGES,
        parse=parse_size, metavar="N|WxH"))  # fmt: skip
    crop: Literal["center", "fit", "none"] = setting("center", Flag(
        "--crop", "center: the largest centred part with the target's aspect ratio. fit: the whole image, with a "
        "--border. none: images of any other size are skipped.", IMAGES))  # fmt: skip
    border: Literal["black", "white", "edge", "blur"] | None = setting(None, Flag(
        "--border", "What --crop fit puts beside an image. edge: its outermost pixels, repeated. blur: the image "
        "itself, enlarged and blurred.  [black; transparent with --alpha keep]", IMAGES))  # fmt: skip
    levels: LevelsRule = setting(AUTO_LEVELS, Flag(
        "--levels", "Which values become black and white in images with more than 8 bits; the same for all of them. "
        "auto: the fewest bits (8, 10, 12, 14 or 16) that all values fit into; floating-point values from 0 to 1; a "
        "narrow band far from black by its ends. "
        "full: all that the files could hold. MIN:MAX: these values, as in 0:4095.", IMAGES, parse=parse_levels,
        metavar="auto|full|MIN:MAX", typed="auto"))  # fmt: skip
    channels: Literal["auto", "1", "3", "4"] = setting("auto", Flag(
        "--channels", "1: grey, 3: RGB, 4: RGBA. auto: grey if all images are, RGBA with --alpha keep if any is "
        "transparent, RGB otherwise.", IMAGES))  # fmt: skip
    alpha: Literal["white", "drop", "keep"] = setting("white", Flag(
        "--alpha", "Transparency. white: laid on white. drop: ignored, which shows the colours below it. keep: RGBA.",
        IMAGES))  # fmt: skip
    resize_filter: Literal["lanczos", "box"] = setting("lanczos", Flag(
        "--resize-filter", "Filter for scaling; both average over all pixels concerned.", IMAGES))  # fmt: skip
    labels: str = setting("auto", Flag(
        "--labels", "Classes. folders: the first level of sub-folders. FILE: a table (.csv, or CelebA's .txt) with a "
        "column of file names; FILE:COLUMN says which other column is the class. auto: what the source provides "
        "(dataset.json, IDX, CIFAR), or else its sub-folders, unless they are named 00000, 01000, ... none: no "
        "classes.", SELECTION,
        metavar="folders|none|auto|FILE[:COLUMN]"))  # fmt: skip
    max_images: int | None = setting(None, Flag("--max-images", "Use only the first N images.", SELECTION, metavar="N"))
    duplicates: Literal["keep", "skip"] = setting("keep", Flag(
        "--duplicates", "What to do with files that are equal byte for byte.", SELECTION))  # fmt: skip
    upscale: bool = False


def check_rules(rules: Rules) -> None:
    """Raises UserError for rules that contradict each other, or a size that no network can have."""
    if rules.channels == "4" and rules.alpha != "keep":
        raise UserError(f"--channels 4 stores transparency, but --alpha {rules.alpha} removes it: add --alpha keep")
    if rules.alpha == "keep" and rules.channels in ("1", "3"):
        raise UserError(
            f"--alpha keep needs four channels, and --channels {rules.channels} has fewer: leave out one of the two"
        )
    if rules.border is not None and rules.crop != "fit":
        raise UserError(f"--border {rules.border} has no effect with --crop {rules.crop}: add --crop fit")
    if rules.max_images is not None and rules.max_images < 1:
        raise UserError(f"--max-images must be at least 1, got {rules.max_images}")
    if rules.resolution is not None:
        base_for(*rules.resolution)
