"""Frames of films, one by one, in the memory of a few: MP4, MOV, WebM, Matroska and AVI, and animated images.

PyAV reads the former. A film from elsewhere may claim to be a playlist, which would make FFmpeg open other files and
addresses, so it is told which container the first bytes show, and reads only the file that is open already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from torch_utils.errors import BadImage
from torch_utils.images import DECODER_ERRORS, decode, finished, first_line, frames_of, open_image
from torch_utils.untrusted import BEGINNING, read_plain, regular

ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
AVIF = (b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # brands of images
QUICKTIME = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
NEEDS_AV = "films need PyAV: pip install 'stylegan-engine[video]'"
HD_LINES = 720  # larger films that do not name their colours have those of BT.709, smaller ones of BT.601
BT709, UNMARKED = 1, 2  # FFmpeg's numbers of colour matrices
HDR = "HDR, whose colours are paler here"
PALE = (16, 18)  # of transfer curves: those of HDR
WHOLE = 0.8  # the share of its time that a film must have frames for; its sound may be longer
SOON, USUAL = Fraction(1, 100), Fraction(1, 10)  # players show frames of at most the one, in seconds, for the other


@dataclass(frozen=True)
class Film:
    """A file with frames to show one after the other. container: FFmpeg's name of it, "" for an animated image"""

    path: Path
    container: str = ""


@dataclass(frozen=True)
class Frame:
    """An upright image in sRGB, in mode L, LA, RGB or RGBA; for how many seconds it is shown; what is to be said."""

    image: Image.Image
    seconds: Fraction
    note: str = ""


def film_at(path: Path) -> Film | None:
    """The film in a file, by its content; None for an image of one frame, one of pages, and any other file.

    Raises OSError if it cannot be read.
    """
    with open(path, "rb", opener=regular) as file:
        container = container_of(file.read(BEGINNING))
    if container:
        return Film(path, container)
    try:
        image = open_image(read_plain(path, "picture_mib"))
    except BadImage:
        return None
    return Film(path) if image.format in ANIMATED and frames_of(image) > 1 else None


def container_of(begin: bytes) -> str:
    """What FFmpeg calls the container of a film that begins like this; "" for what is none."""
    if begin[4:8] in QUICKTIME and begin[8:12] not in AVIF:
        return "mov"
    if begin.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    return "avi" if begin.startswith(b"RIFF") and begin[8:12] == b"AVI " else ""


def frames_in(film: Film) -> Iterator[Frame]:
    """Yield the frames of a film. Raises BadImage where it is damaged, and OSError where it cannot be read."""
    return _video_frames(film) if film.container else _animated_frames(film)


def _animated_frames(film: Film) -> Iterator[Frame]:
    image = open_image(read_plain(film.path, "picture_mib"))
    for number in range(frames_of(image)):
        try:
            image.seek(number)
        except DECODER_ERRORS as error:
            raise BadImage(f"frame {number + 1} is broken ({first_line(error)})") from error
        decode(image)
        seconds = Fraction(image.info.get("duration") or 0) / 1000
        if image.format == "GIF" and seconds <= SOON:
            seconds = USUAL
        yield Frame(finished(image.copy(), image), seconds or USUAL)


def _video_frames(film: Film) -> Iterator[Frame]:
    if find_spec("av") is None:
        raise BadImage(NEEDS_AV)
    import av

    number, shown, lasts = 0, 0.0, 0.0
    try:
        with open(film.path, "rb", opener=regular) as file, av.open(file, format=film.container) as container:
            if not container.streams.video:
                raise BadImage("a film without images; perhaps it is a recording of sound")
            stream = container.streams.video[0]
            seconds = 1 / (stream.average_rate or stream.guessed_rate or 1 / USUAL)
            lasts = float(stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1e6)
            if film.container == "avi":  # of which FFmpeg takes what is there for the whole
                lasts = max(lasts, float(stream.frames * seconds))
            start: float | None = None
            for frame in container.decode(stream):
                number += 1
                start = start if start is not None else frame.time
                shown = (frame.time or 0) - (start or 0) + float(seconds)
                yield Frame(_shown(frame, stream.sample_aspect_ratio), seconds, HDR if frame.color_trc in PALE else "")
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise  # the disk's fault, which the caller names
        raise BadImage(f"broken after {number} frames ({first_line(error)})") from error
    if not number:
        raise BadImage("a film without a single frame")
    if shown < WHOLE * lasts - 2 * seconds:  # FFmpeg takes the end of a file for that of the film
        raise BadImage(f"cut off after {shown:.3g} of {lasts:.3g} seconds; copy or download it again")


def _shown(frame: Any, aspect: Fraction | None) -> Image.Image:
    """A frame as players show it: in the right colours, with square pixels, upright."""
    if frame.width * frame.height > 2 * (Image.MAX_IMAGE_PIXELS or 0):
        raise BadImage("more than 179 million pixels")
    if not hasattr(frame, "rotation"):
        raise BadImage("films need a newer PyAV: pip install --upgrade av")
    unmarked = frame.colorspace == UNMARKED and frame.height >= HD_LINES
    image = frame.to_image(src_colorspace=BT709) if unmarked else frame.to_image()
    if aspect and aspect != 1:
        image = image.resize((max(1, round(image.width * aspect)), image.height), Image.Resampling.LANCZOS)
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
