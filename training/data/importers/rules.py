"""What the user can decide about a conversion, with the flags and the help of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch_utils.settings import Flag, setting
from training.data.importers.geometry import Size, parse_size

PICTURES, SELECTION = "Pictures", "Selection"


@dataclass(frozen=True)
class Rules:
    """How pictures become an archive. `upscale`: enlarge the ones that are too small, where others skip them."""

    resolution: Size | None = setting(
        None,
        Flag(
            "--resolution",
            "Size of every picture in the archive; without it they must all have one size already.",
            PICTURES,
            parse=parse_size,
            metavar="N|WxH",
        ),
    )
    crop: Literal["center", "fit", "none"] = setting(
        "center",
        Flag(
            "--crop",
            "center: the largest centred part of the target's shape. fit: the whole picture, with a black border"
            " (transparent with --alpha keep). none: pictures of any other size are skipped.",
            PICTURES,
        ),
    )
    channels: Literal["auto", "1", "3", "4"] = setting(
        "auto",
        Flag(
            "--channels",
            "1: grey, 3: RGB, 4: RGBA. auto: grey if all pictures are, RGBA with --alpha keep if any is transparent,"
            " RGB otherwise.",
            PICTURES,
        ),
    )
    alpha: Literal["white", "drop", "keep"] = setting(
        "white",
        Flag(
            "--alpha",
            "Transparency. white: laid on white. drop: ignored, which shows the colours below it. keep: RGBA.",
            PICTURES,
        ),
    )
    resize_filter: Literal["lanczos", "box"] = setting(
        "lanczos", Flag("--resize-filter", "Filter for scaling; both average over all pixels concerned.", PICTURES)
    )
    labels: str = setting(
        "auto",
        Flag(
            "--labels",
            "Classes. folders: the first level of sub-folders. FILE: a table (.csv, or CelebA's .txt) with a column of"
            " file names; FILE:COLUMN says which other column is the class. auto: what the source brings along"
            " (dataset.json, IDX, CIFAR), or else its sub-folders. none: no classes.",
            SELECTION,
            metavar="folders|none|auto|FILE[:COLUMN]",
        ),
    )
    max_images: int | None = setting(
        None, Flag("--max-images", "Look at the first N pictures only.", SELECTION, metavar="N")
    )
    duplicates: Literal["keep", "skip"] = setting(
        "keep", Flag("--duplicates", "What to do with files that are equal byte for byte.", SELECTION)
    )
    upscale: bool = False
