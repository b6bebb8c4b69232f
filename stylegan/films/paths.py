"""Ways through latent space: pure functions from keyframes [K,...] and a time to the point at that time.

Time is counted in keyframes: at 0 a path is at the first, at 1 at the second, at 1.5 between that and the third. At
whole numbers it is at the keyframe itself, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from stylegan.films.course import Ease
from torch_utils.errors import UserError

EASINGS: dict[Ease, Callable[[float], float]] = {
    "none": lambda x: x,
    "sine": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "cubic": lambda x: x * x * (3 - 2 * x),
    "quintic": lambda x: x * x * x * (10 - 15 * x + 6 * x * x),
}


@dataclass(frozen=True)
class Curve:
    """A path through keys [K,...]. segments: how many there are from key to key; as many as keys if it is closed.

    between: the number of a segment, and how far it has been gone, 0 < phase < 1, to a point [...].
    """

    keys: Tensor
    segments: int
    between: Callable[[int, float], Tensor]

    def at(self, times: Sequence[float]) -> Tensor:
        """The points at these times, 0 to `segments`. [N,...]"""
        return torch.stack([self._at(time) for time in times])

    def _at(self, time: float) -> Tensor:
        segment = math.floor(time)
        if time == segment:
            return self.keys[segment % len(self.keys)]
        return self.between(segment, time - segment).to(self.keys.dtype)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Turn from a to b by the fraction t of the angle between them, at even speed; the length goes from |a| to |b|.

    All of a and b is one vector (Shoemake, Animating Rotation with Quaternion Curves, 1985). Computed in float64.
    """
    a, b = a.double(), b.double()
    length_a, length_b = float(a.norm()), float(b.norm())
    if length_a == 0 or length_b == 0:
        return torch.lerp(a, b, t)
    u, v = a / length_a, b / length_b
    angle = 2 * math.atan2(float((u - v).norm()), float((u + v).norm()))  # exact for small angles, as acos is not
    length = length_a + (length_b - length_a) * t
    if math.sin(angle) < 1e-9:
        return torch.lerp(u, v, t) * length
    return (math.sin((1 - t) * angle) * u + math.sin(t * angle) * v) / math.sin(angle) * length


def straight(keys: Tensor, closed: bool = False) -> Curve:
    """Lines from key to key."""
    return Curve(keys, _segments(keys, closed), lambda i, t: torch.lerp(keys[i], keys[(i + 1) % len(keys)], t))


def turning(keys: Tensor, closed: bool = False) -> Curve:
    """From key to key by `slerp`."""
    return Curve(keys, _segments(keys, closed), lambda i, t: slerp(keys[i], keys[(i + 1) % len(keys)], t))


def smooth(keys: Tensor, closed: bool = False, keep_length: bool = False) -> Curve:
    """A cubic spline with continuous speed and acceleration: periodic if closed, else without bend at its ends.

    keep_length: points are as long as on the way from key to key by `slerp`, as a z has to be.
    """
    points = torch.cat([keys, keys[:1]]) if closed else keys
    spline = CubicSpline(range(len(points)), points.double().numpy(), bc_type="periodic" if closed else "natural")
    lengths = [float(point.double().norm()) for point in points]

    def between(i: int, t: float) -> Tensor:
        point = torch.from_numpy(spline(i + t))
        return point * ((lengths[i] + (lengths[i + 1] - lengths[i]) * t) / point.norm()) if keep_length else point

    return Curve(keys, _segments(keys, closed), between)


def circle(keys: Tensor, centre: Tensor) -> Curve:
    """The circle through 3 keys; of 2 keys the one about `centre` [...], through both and those opposite to them.

    Raises UserError for keys on one line, which no circle goes through.
    """
    if len(keys) == 2:
        around = torch.cat([keys, 2 * centre - keys]) - centre
        return Curve(
            torch.cat([keys, 2 * centre - keys]), 4,
            lambda i, t: centre + slerp(around[i], around[(i + 1) % 4], t),
        )  # fmt: skip
    middle, first, second, angles = _through_three(keys)
    ends = [*angles, 2 * math.pi]

    def between(i: int, t: float) -> Tensor:
        angle = ends[i] + (ends[i + 1] - ends[i]) * t
        return middle + math.cos(angle) * first + math.sin(angle) * second

    return Curve(keys, 3, between)


def _through_three(keys: Tensor) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """Centre, two perpendicular radii, and the growing angles at which the keys are."""
    a, b, c = keys.double()
    u, v = b - a, c - a
    uu, vv, uv = float((u * u).sum()), float((v * v).sum()), float((u * v).sum())
    area = uu * vv - uv * uv
    if area <= 1e-9 * max(uu, vv) ** 2:
        raise UserError(
            "these three keyframes are on one line, or two of them are the same: no circle goes through them"
        )
    centre = a + (vv * (uu - uv) * u + uu * (vv - uv) * v) / (2 * area)
    first = a - centre
    radius = float(first.norm())
    second = (b - centre) - first * float(((b - centre) * first).sum() / radius**2)
    second = second * (radius / float(second.norm()))

    def angle(point: Tensor) -> float:
        x, y = float(((point - centre) * first).sum()), float(((point - centre) * second).sum())
        return math.atan2(y, x) % (2 * math.pi)

    if angle(c) < angle(b):  # so that the way is from a to b to c
        second = -second
    return centre, first, second, [0.0, angle(b), angle(c)]


def _segments(keys: Tensor, closed: bool) -> int:
    return len(keys) if closed else max(1, len(keys) - 1)


def frame_times(per_segment: Sequence[int], closed: bool, ease: Ease = "none") -> list[float]:
    """The time of every frame, so many in each segment, each of which begins at its keyframe.

    The last keyframe of an open path has a frame of its own; a closed one ends a step before its beginning.
    """
    eased = EASINGS[ease]
    times = [i + eased(j / count) for i, count in enumerate(per_segment) for j in range(count)]
    return times if closed else [*times, float(len(per_segment))]


def psi_at(time: float, segments: int, sweep: tuple[float, float], closed: bool) -> float:
    """Truncation at a time: evenly from sweep[0] to sweep[1], and back again if closed."""
    part = time / segments
    if closed:
        part = 1 - abs(2 * part - 1)
    return sweep[0] * (1 - part) + sweep[1] * part  # exact at both ends
