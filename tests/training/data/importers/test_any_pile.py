"""Whatever lies in the folder: each picture is in the archive, as promised, or in the list of skips, with a reason."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import UserError
from training.data.archive import Archive
from training.data.importers.convert import Job, run
from training.data.importers.geometry import Size
from training.data.importers.rules import Rules

MODES = {
    "1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "JPEG", "RGBA": "WEBP", "CMYK": "JPEG", "I;16": "PNG",
    "I": "TIFF", "F": "TIFF", "YCbCr": "JPEG", "LAB": "TIFF",
}  # fmt: skip
pictures = st.tuples(
    st.sampled_from(sorted(MODES)),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["", "cut", "text", "turned"]),
)


@settings(max_examples=100, deadline=None)
@given(
    pile=st.lists(pictures, min_size=1, max_size=8),
    size=st.sampled_from([Size(8, 8), Size(8, 12), Size(24, 16)]),
    crop=st.sampled_from(["center", "fit", "none"]),
    alpha=st.sampled_from(["white", "drop", "keep"]),
    upscale=st.booleans(),
)
def test_every_picture_conforms_or_is_listed(pile, size: Size, crop, alpha, upscale: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "in"
        source.mkdir()
        for index, spec in enumerate(pile):
            (source / f"{index}.png").write_bytes(make(*spec))
        rules = Rules(resolution=size, crop=crop, alpha=alpha, upscale=upscale)
        must = {
            f"{index}.png"
            for index, (mode, width, height, damage) in enumerate(pile)
            if mode != "F" and damage == "" and ((upscale and crop != "none") or Size(height, width) == size)
        }
        try:
            dest = Path(scratch) / "out.zip"
            job = Job(source, dest, progress=False)
            skipped = {skip.name: skip.reason for skip in run(job, rules, say=lambda text: None)}
        except UserError as error:
            assert str(error).startswith("none of the") and not must
            assert [path.name for path in Path(scratch).iterdir()] == ["in"]
            return
        assert not must & set(skipped)
        archive = Archive.open(dest)
        assert len(archive) + len(skipped) == len(pile)
        assert all(skipped.values())
        for index in range(len(archive)):
            assert archive.read(index).shape == (size.height, size.width, archive.channels)


def make(mode: str, width: int, height: int, damage: str) -> bytes:
    """An encoded picture of the mode, whole or damaged or turned by EXIF."""
    if damage == "text":
        return b"words"
    ramp = np.linspace(0, 255, width * height).reshape(height, width)
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray((ramp * 200).astype(kind))
    elif mode == "LAB":
        image = Image.merge("LAB", [Image.fromarray(ramp.astype(np.uint8))] * 3)
    else:
        image = Image.fromarray(ramp.astype(np.uint8)).convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    kind = MODES[mode]
    if kind == "TIFF" or damage != "turned":
        image.save(buffer, kind)
    else:
        image.save(buffer, kind, exif=exif)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2] if damage == "cut" else buffer.getvalue()
