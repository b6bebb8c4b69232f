"""Pictures from elsewhere, opened by the decoders that pictures need, and by no others."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image

# Pillow goes by content, not by name, and knows more than pictures: EPS, for one, it hands to a Ghostscript program.
FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
# Above 89 million pixels Pillow warns, above 179 million it refuses. The second suffices: cameras make the first.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(source: Path | bytes) -> Image.Image:
    """The first frame, not yet decoded; `load` does that. Raises what Pillow does, and OSError for what is no file."""
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise OSError("it is no file")
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=known)
