"""Film files: mp4, GIF, WebP, APNG, or a folder of PNGs, from frames that come one by one.

GIF, WebP and APNG are rows of ordinary images with some bytes of timing between them: Pillow encodes one frame at a
time, and they are joined here. Pillow's own films keep all frames in memory and leave out those that look like the one
before: a slow WebP film moves in jerks, and a WebP or PNG film that stands still has no time at all. mp4 is for PyAV.

`--help` imports this file, so the functions that write import numpy, PyAV and `torch_utils.images` late.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from importlib.util import find_spec
from itertools import count, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch_utils.errors import UserError
from torch_utils.files import atomic_write
from torch_utils.output import writing_to
from torch_utils.text import counted

if TYPE_CHECKING:
    import numpy as np

Timed = Iterable[tuple["np.ndarray", int]]
"""Frames, uint8 [H,W,C] each, and for how long each is shown."""

LOWEST_FPS, HIGHEST_FPS = 0.01, 1000
GIF_FPS = 50  # GIF counts hundredths of a second, and players slow down frames shorter than two
SHORTEST_S = 0.011  # browsers show frames of at most 10 ms, in WebP and APNG too, for a tenth of a second each
LOSSLESS = {"lossless": True, "exact": True, "quality": 20, "method": 1}  # three times as fast as usual, 4 % larger
HD_LINES = 720  # players take the colours of larger films for BT.709, those of smaller ones for BT.601
_PARTS = {".gif": 100, ".webp": 1000}  # of a second, in which the time of a frame is counted
_LARGEST = {".gif": 65535, ".webp": 16383, ".mp4": 16384}  # pixels a side
_FILM_KINDS = ("", ".mp4", ".gif", ".webp", ".apng", ".png")


def check_film(path: Path, fps: float, channels: int, size: tuple[int, int] = (1, 1)) -> None:
    """Raises UserError unless a film of frames with so many channels can be written to `path`. Writes nothing.

    path: ends in .mp4, .gif, .webp, .apng or .png (animated too); without a suffix it is a new folder of PNGs.
    size: (height, width) of a frame
    """
    kind, longest = path.suffix.lower(), max(size)
    if kind not in _FILM_KINDS:
        raise UserError(
            f"Invalid film {path}: expected .mp4, .gif, .webp or .apng, or a name without suffix for a folder of frames"
        )
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:
        raise UserError(f"--fps must be from {LOWEST_FPS} to {HIGHEST_FPS} frames a second, got {fps:g}; 30 is usual")
    if kind == ".gif" and fps > GIF_FPS:
        raise UserError(f"GIF supports at most {GIF_FPS} frames a second, got {fps:g}; use --fps {GIF_FPS}, or .webp")
    if kind == ".mp4" and find_spec("av") is None:
        raise UserError("mp4 needs PyAV: pip install 'stylegan-engine[video]', or use .gif, .webp or .apng")
    if kind == ".mp4" and channels == 4:
        raise UserError("mp4 cannot store the alpha channel of this network's images; use .webp or .apng")
    if longest > _LARGEST.get(kind, longest):
        raise UserError(
            f"a {kind} film can have {_LARGEST[kind]} pixels a side, but its frames would have {longest}; use .apng, "
            "or show fewer images side by side"
        )
    if not kind and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already; name a new folder")


def too_fast(path: Path, fps: float) -> str:
    """A line on a film that browsers play more slowly than it says; "" for others."""
    if path.suffix.lower() not in (".webp", ".apng", ".png") or 1 / fps >= SHORTEST_S:
        return ""
    return (f"browsers show frames of 10 ms or less for 100 ms each, so they would play {path} slowly; use --fps "
            f"{math.floor(1 / SHORTEST_S)} or less, or .mp4")  # fmt: skip


def frames_and_seconds(path: Path, frames: int, fps: float) -> str:
    """ "30 frames, 1.00 s", the time that the film really lasts."""
    return f"{counted(frames, 'frame')}, {film_seconds(path, frames, fps):.2f} s"


def film_seconds(path: Path, frames: int, fps: float) -> float:
    """How long a film of so many frames lasts: frames / fps, as nearly as its format can count time."""
    kind = path.suffix.lower()
    if kind in _PARTS:
        return sum(islice(delays(fps, _PARTS[kind]), frames)) / _PARTS[kind]
    return float(frames / _rate(fps)) if kind == ".mp4" else frames / fps


def delays(fps: float, parts: int) -> Iterator[int]:
    """Yield for how long each frame is shown, in whole parts of a second.

    Each frame ends as near to its time as it can: 30 a second are 3, 4, 3, 3, 4, 3 ... hundredths, 100 in all.
    """
    ends = (math.floor(parts * number / fps + 0.5) for number in count())
    return (end - start for start, end in pairwise(ends))


def write_film(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames, uint8 [H,W,C] each, to a path that `check_film` allows, atomically and in the memory of one frame.

    Every frame is in the film, for its time. WebP, APNG and folders are lossless, GIF has 256 colours for each frame,
    mp4 is H.264. GIF, WebP and APNG loop. Raises UserError if the film cannot be written.
    """
    from torch_utils.images import encode

    kind = path.suffix.lower()
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as scratch:
            if kind == "":
                scratch.mkdir()
                for number, frame in enumerate(frames):
                    (scratch / f"frame{number:05d}.png").write_bytes(encode(frame, "png"))
            elif kind == ".mp4":
                _write_mp4(scratch, frames, fps)
            elif kind in _PARTS:
                timed = zip(frames, delays(fps, _PARTS[kind]), strict=False)
                if kind == ".gif":
                    _write_gif(scratch, timed)
                else:
                    write_webp(scratch, ((webp_frame(pixels, LOSSLESS), time) for pixels, time in timed))
            else:
                _write_apng(scratch, frames, fps)


def _write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write H.264 that every player supports, in even sizes: others get their last row or column twice.

    PyAV converts colours as the frame says and marks them as the stream says, so both are told the same.
    """
    import av
    import numpy as np

    def even(pixels: np.ndarray) -> np.ndarray:
        height, width, channels = pixels.shape
        padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return np.ascontiguousarray(padded.repeat(3, axis=2) if channels == 1 else padded)

    stream: Any = None
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as film:
            for rgb in map(even, frames):
                height, width = rgb.shape[:2]
                matrix, mark = ("ITU709", "bt709") if height >= HD_LINES else ("ITU601", "smpte170m")
                if stream is None:
                    # Primaries and curve are those of sRGB, in which images are, so that no player changes them.
                    colours = {"colorspace": mark, "color_primaries": "bt709", "color_trc": "iec61966-2-1"}
                    options = {"crf": "16", "color_range": "tv", **colours}
                    try:
                        stream = film.add_stream("libx264", rate=_rate(fps), options=options)
                    except ValueError as error:
                        raise UserError(
                            f"this PyAV was built without H.264 ({error}); install it with pip, or use .webp"
                        ) from None
                    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                film.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix)))
            if stream is not None:
                film.mux(stream.encode())
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise  # the disk's fault, which the caller names
        raise UserError(f"H.264 cannot store these frames ({error}); use .webp or .apng") from error


def _rate(fps: float) -> Fraction:
    """The frames a second of an mp4."""
    return Fraction(fps).limit_denominator(1001)


def _write_gif(path: Path, frames: Timed) -> None:
    """Write a GIF with a palette for each frame, from times in hundredths of a second.

    Format: https://www.w3.org/Graphics/GIF/spec-gif89a.txt
    """
    from torch_utils.images import to_pil

    with path.open("wb") as film:
        for pixels, hundredths in frames:
            content = io.BytesIO()
            to_pil(pixels).save(content, "GIF")
            one = content.getvalue()
            if not film.tell():  # without a palette for all, and repeated for ever
                film.write(b"GIF89a" + one[6:10] + b"\0\0\0" + b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
            depth = one[10] & 7
            at = 13 + (6 << depth)
            palette, flags, transparent = one[13:at], 4, 0
            while one[at] == 0x21:  # extensions; that of label F9 says which colour is transparent
                if one[at + 1] == 0xF9 and one[at + 3] & 1:
                    flags, transparent = 9, one[at + 6]  # the frame before is not seen through it
                at += 2
                while one[at]:
                    at += one[at] + 1
                at += 1
            film.write(struct.pack("<3sBHBx", b"!\xf9\x04", flags, hundredths, transparent))
            film.write(one[at : at + 9] + bytes([one[at + 9] | 0x80 | depth]) + palette + one[at + 10 : -1])
        film.write(b";")


class WebPFrame(NamedTuple):
    """An encoded frame of a WebP film.

    key: 16 bytes by which it is found again when the film is made longer; empty if nobody looks for it
    """

    width: int
    height: int
    alpha: bool
    data: bytes
    key: bytes = b""


def webp_frame(pixels: np.ndarray, options: Mapping[str, Any], key: bytes = b"") -> WebPFrame:
    """Encode a frame, uint8 [H,W,C]. options: of Pillow's encoder, such as LOSSLESS or {"quality": 80}"""
    from torch_utils.images import to_pil

    height, width, channels = pixels.shape
    content = io.BytesIO()
    to_pil(pixels).save(content, "WEBP", **options)
    data = b"".join(_riff(name, data) for name, data in _riffs(content.getvalue()) if name in _WEBP_IMAGE)
    return WebPFrame(width, height, channels == 4, data, key)


def write_webp(path: Path, frames: Iterable[tuple[WebPFrame, int]]) -> None:
    """Write a WebP film that loops, from frames and the milliseconds of each, in the memory of one frame.

    Format: https://developers.google.com/speed/webp/docs/riff_container; players skip the keys, which stand at the end.
    Raises UserError for more than 4 GB.
    """
    keys = b""
    with path.open("wb") as film:
        for frame, milliseconds in frames:
            size = _uint24(frame.width - 1) + _uint24(frame.height - 1)
            if not film.tell():
                film.write(b"RIFF\0\0\0\0WEBP")
                film.write(_riff(b"VP8X", bytes([0x10 * frame.alpha | 2, 0, 0, 0]) + size) + _riff(b"ANIM", bytes(6)))
            film.write(_riff(b"ANMF", bytes(6) + size + _uint24(milliseconds) + b"\x02" + frame.data))  # do not blend
            keys += frame.key
            if film.tell() + len(keys) >= 1 << 32:
                raise UserError("the film has more than 4 GB, the limit of WebP; use .mp4 or fewer frames")
        if keys:
            film.write(_riff(b"KEYS", keys))
        length = film.tell() - 8
        film.seek(4)
        film.write(struct.pack("<I", length))


def read_webp(path: Path) -> list[WebPFrame]:
    """The frames of a film that `write_webp` has written with keys; none if it is damaged, or another file."""
    if not path.is_file() or path.stat().st_size > LARGEST_READ:
        return []
    try:
        parts = list(_riffs(path.read_bytes()))
    except struct.error:
        return []
    frames = [data for name, data in parts if name == b"ANMF" and len(data) > 16]
    keys = b"".join(data for name, data in parts if name == b"KEYS")
    if len(keys) != 16 * len(frames):
        return []
    alpha = any(data[0] & 0x10 for name, data in parts if name == b"VP8X" and data)
    return [
        WebPFrame(1 + _int24(data[6:9]), 1 + _int24(data[9:12]), alpha, data[16:], keys[16 * i : 16 * i + 16])
        for i, data in enumerate(frames)
    ]


LARGEST_READ = 1 << 30  # bytes of a film
_WEBP_IMAGE = (b"ALPH", b"VP8 ", b"VP8L")


def _uint24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _int24(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _riffs(webp: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the data of each part of a WebP file."""
    at = 12
    while at < len(webp):
        name, length = struct.unpack_from("<4sI", webp, at)
        yield name, webp[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _write_apng(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write an animated PNG that loops. Format: https://www.w3.org/TR/png-3/#apng-frame-based-animation"""
    from torch_utils.images import encode

    time = Fraction(1 / fps).limit_denominator(min(65535, int(65535 * fps)))
    number = 0  # of the parts that belong to the animation

    def numbered(data: bytes) -> bytes:
        nonlocal number
        number += 1
        return struct.pack(">I", number - 1) + data

    with path.open("wb") as film:
        written = place = 0
        for written, pixels in enumerate(frames, 1):
            height, width = pixels.shape[:2]
            parts = list(_png_parts(encode(pixels, "png")))
            if written == 1:
                film.write(b"\x89PNG\r\n\x1a\n" + _png_part(*parts[0]))
                place = film.tell()
                film.write(_png_part(b"acTL", bytes(8)))
            about = struct.pack(">4I2H2x", width, height, 0, 0, time.numerator, time.denominator)
            film.write(_png_part(b"fcTL", numbered(about)))
            for data in (data for name, data in parts if name == b"IDAT"):
                film.write(_png_part(b"IDAT", data) if written == 1 else _png_part(b"fdAT", numbered(data)))
        film.write(_png_part(b"IEND", b""))
        film.seek(place)
        film.write(_png_part(b"acTL", struct.pack(">2I", written, 0)))


def _png_part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png_parts(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the data of each part of a PNG file."""
    at = 8
    while at < len(png):
        length, name = struct.unpack_from(">I4s", png, at)
        yield name, png[at + 8 : at + 8 + length]
        at += length + 12
