"""Films: mp4 with PyAV, GIF, WebP and animated PNG with Pillow, or a folder of frames.

Not imageio: its writers wrap the same two libraries, so the checks, even sizes, frame durations and options below would
remain, and it would be one more dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from torch_utils.errors import UserError
from torch_utils.files import atomic_write
from torch_utils.images import encode, to_pil
from torch_utils.output import writing_to

Frames = Iterable[np.ndarray]
GIF_FPS = 50  # GIF counts hundredths of a second, and players slow down frames shorter than two


def check_film(path: Path, fps: float, channels: int) -> None:
    """Raises UserError unless a film of images with so many channels can be written to `path`. Writes nothing.

    path: ends in .mp4, .gif, .webp, .apng or .png (animated too); without a suffix it is a new folder of PNGs.
    """
    kind = path.suffix.lower()
    if kind not in _WRITERS:
        raise UserError(
            f"Invalid film {path}: expected .mp4, .gif, .webp or .apng, or a name without suffix for a folder of frames"
        )
    if not 0 < fps <= 1000:
        raise UserError(f"--fps must be above 0 and at most 1000 frames a second, got {fps:g}; 30 is usual")
    if kind == ".gif" and fps > GIF_FPS:
        raise UserError(f"GIF supports at most {GIF_FPS} frames a second, got {fps:g}; use --fps {GIF_FPS}, or .webp")
    if kind == ".mp4" and find_spec("av") is None:
        raise UserError("mp4 needs PyAV: pip install 'stylegan-engine[video]', or use .gif, .webp or .apng")
    if kind == ".mp4" and channels == 4:
        raise UserError("mp4 cannot store the alpha channel of this network's images; use .webp or .apng")
    if not kind and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already; name a new folder")


def write_film(path: Path, frames: Frames, fps: float) -> None:
    """Write frames, uint8 [H,W,C] each, to a path that `check_film` allows, atomically.

    Frames of mp4 and folders are written one by one; Pillow keeps those of the other formats in memory until the last,
    and writes films that loop. Raises UserError if the film cannot be written.
    """
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as scratch:
            _WRITERS[path.suffix.lower()](scratch, frames, fps)


def _write_folder(scratch: Path, frames: Frames, fps: float) -> None:
    scratch.mkdir()
    for number, pixels in enumerate(frames):
        (scratch / f"frame{number:05d}.png").write_bytes(encode(pixels, "png"))


def _write_mp4(scratch: Path, frames: Frames, fps: float) -> None:
    """Write H.264 that every player supports, in even sizes: others get their last row or column twice."""
    import av

    with av.open(str(scratch), "w", format="mp4", options={"movflags": "faststart"}) as film:
        stream: Any = None
        for pixels in frames:
            height, width, channels = pixels.shape
            even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            rgb = even.repeat(3, axis=2) if channels == 1 else even
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                try:
                    stream = film.add_stream("libx264", rate=rate, options={"crf": "16"})
                except ValueError as error:
                    raise UserError(
                        f"this PyAV was built without H.264 ({error}); install it with pip, or use .webp"
                    ) from None
                stream.height, stream.width, stream.pix_fmt = *rgb.shape[:2], "yuv420p"
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        if stream is not None:
            film.mux(stream.encode())


def _by_pillow(kind: str) -> Callable[[Path, Frames, float], None]:
    def write(scratch: Path, frames: Frames, fps: float) -> None:
        rest: Iterator[np.ndarray] = iter(frames)
        first = to_pil(next(rest))
        others = map(to_pil, rest) if kind == "GIF" else [to_pil(pixels) for pixels in rest]
        duration = round(100 / fps) * 10 if kind == "GIF" else 1000 / fps
        with scratch.open("wb") as file:
            first.save(
                file, kind, save_all=True, append_images=others, duration=duration, loop=0, quality=90, method=4
            )  # fmt: skip (the last two for WebP)

    return write


_WRITERS: dict[str, Callable[[Path, Frames, float], None]] = {
    "": _write_folder,
    ".mp4": _write_mp4,
    ".gif": _by_pillow("GIF"),
    ".webp": _by_pillow("WEBP"),
    ".apng": _by_pillow("PNG"),
    ".png": _by_pillow("PNG"),
}
