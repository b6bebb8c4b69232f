"""How a film goes through its keyframes, as it is typed. `paths.py` and `journey.py` do it.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stylegan.latents.view import require_psi
from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting

THROUGH = "Film"
Space = Literal["z", "w"]
Path = Literal["linear", "cubic", "circular"]
Ease = Literal["none", "sine", "cubic", "quintic"]


def parse_sweep(text: str) -> tuple[float, float]:
    """ "0:1.2" -> (0.0, 1.2). Raises UserError for anything but two numbers."""
    try:
        start, end = (float(part) for part in text.split(":"))
    except ValueError:
        raise UserError(f"'{text}' is no sweep; write FROM:TO, as in 0:1") from None
    for psi in (start, end):
        require_psi(psi, "--psi-sweep")
    return start, end


@dataclass(frozen=True)
class Course:
    """space: None for w where there is one, else z. psi_sweep: truncation at the start and at the end."""

    space: Space | None = setting(None, Flag(
        "--space", "z turns (slerp); w is straight, w+ included.  [w; ProGAN: z]", THROUGH))  # fmt: skip
    path: Path = setting("linear", Flag(
        "--path", "From keyframe to keyframe straight, in a smooth curve, or on a circle through 3 of them (through 2: "
        "round the average face, or the middle of the averages of their classes).", THROUGH))  # fmt: skip
    loop: bool = setting(False, Flag("--loop", "Come back to the first keyframe. A circle always does.", THROUGH))
    frames: int = setting(60, Flag("--frames", "Frames from one keyframe to the next.", THROUGH))
    ease: Ease = setting("none", Flag("--ease", "Slow down at keyframes, less or more.", THROUGH))
    even: bool = setting(False, Flag(
        "--even-speed", "Make steps equal to the eye: keyframes that differ more get more frames.",
        THROUGH))  # fmt: skip
    psi_sweep: tuple[float, float] | None = setting(None, Flag(
        "--psi-sweep", "Truncation psi from the first frame to the last, as in 0:1; with --loop there and back.",
        THROUGH, parse=parse_sweep, metavar="FROM:TO"))  # fmt: skip

    @property
    def closed(self) -> bool:
        """Does the film end where it began?"""
        return self.loop or self.path == "circular"


def require_frames(course: Course) -> None:
    """Raises UserError for a film of nothing."""
    if course.frames < 1:
        raise UserError(f"--frames {course.frames} is no number of frames; use 1 or more")


def check_course(course: Course, keyframes: int) -> None:
    """Raises UserError for what cannot be done with so many keyframes."""
    require_frames(course)
    if course.path == "circular" and keyframes not in (2, 3):
        raise UserError(f"--path circular goes through 2 or 3 keyframes, not {keyframes}; use --path cubic --loop")
    if keyframes < 2 and course.psi_sweep is None:
        raise UserError("a film needs two keyframes; name more with --seeds, or use --psi-sweep")
    if keyframes < 2 and course.path == "cubic":
        raise UserError("--path cubic needs two keyframes; name more with --seeds")
