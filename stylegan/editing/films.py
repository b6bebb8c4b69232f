"""Ways through latent space: pure functions from keyframes [K,...] and a time to the point at that time.

Time is counted in keyframes: at 0 a path is at the first, at 1 at the second, at 1.5 between that and the third. At
whole numbers it is at the keyframe itself, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import CubicSpline
from torch import Tensor

from stylegan.editing.settings import Ease, FilmSettings, check_film_settings
from stylegan.latents.latents import Latents
from stylegan.latents.render import View
from stylegan.networks.base import require_w
from stylegan.networks.mapping import class_weights
from stylegan.networks.sampling import truncate
from torch_utils.errors import UserError
from torch_utils.text import counted

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


# Even speed to the eye: a film's times, so that each frame differs as much from the one before as any other


def picture_distance(a: Tensor, b: Tensor) -> Tensor:
    """How much pictures [N,C,H,W] differ, on all scales: root mean squares of the differences of a pyramid, summed. [N]

    Each level has half the size of the one before, down to 4 pixels: what moved by a pixel is little, what became of
    another colour is much.
    """
    difference, total = a - b, torch.zeros(len(a))
    while True:
        total = total + difference.square().mean(dim=(1, 2, 3)).sqrt()
        if min(difference.shape[2:]) < 8:
            return total
        difference = F.avg_pool2d(difference, 2)


def even_times(steps: np.ndarray, frames: int, closed: bool, ease: Ease = "none") -> list[float]:
    """Times of frames that are equally far from each other, about `frames` to a segment; keyframes keep a frame each.

    steps: the distance from each of evenly timed samples to the next, [segments, samples]. Segments get frames by
    their length, and at least one; within them times are spread by length (arc-length parametrisation), then eased.
    """
    counts = _shares(steps.sum(axis=1), frames * len(steps))
    grid = np.linspace(0, 1, steps.shape[1] + 1)
    times: list[float] = []
    for i, (own, count) in enumerate(zip(steps, counts, strict=True)):
        gone = np.concatenate([[0.0], np.cumsum(own)])
        gone = gone / gone[-1] if gone[-1] > 0 else grid
        parts = [EASINGS[ease](j / count) for j in range(1, count)]
        times += [float(i), *(i + float(phase) for phase in np.interp(parts, gone, grid))]
    return times if closed else [*times, float(len(steps))]


def _shares(lengths: np.ndarray, total: int) -> Sequence[int]:
    """`total` whole frames, by length, at least one each."""
    spare = total - len(lengths)
    wished = spare * (lengths / lengths.sum() if lengths.sum() > 0 else np.full(len(lengths), 1 / len(lengths)))
    shares = np.floor(wished).astype(int)
    largest_rest = np.argsort(shares - wished, kind="stable")[: spare - shares.sum()]
    shares[largest_rest] += 1
    return [int(share) + 1 for share in shares]


# From keyframes to the latents of every frame of a film


SAMPLES = (8, 48)  # pictures in a segment, at least and at most, to measure its length with


@dataclass(frozen=True)
class Walk:
    """A film's way. segments: how many there are from keyframe to keyframe. ws: at times [N] -> [N,L,w_dim]."""

    segments: int
    ws: Callable[[Sequence[float]], Tensor]
    noise: tuple[Curve, ...] = ()
    styles: tuple[Curve, ...] = ()

    def at(self, times: Sequence[float]) -> Latents:
        """What is to be drawn at these times."""
        names = tuple(f"time {time:g}" for time in times)
        noise, styles = (tuple(curve.at(times) for curve in curves) for curves in (self.noise, self.styles))
        return Latents(self.ws(times), names, names, noise=noise, styles=styles)


def untruncated(view: View, film: FilmSettings) -> View:
    """The view to gather keyframes with: a sweep truncates them later (those of latent files once more).

    Raises UserError where there is no w, and where another truncation is asked for as well.
    """
    if film.psi_sweep is None:
        return view
    require_w(view.snapshot.G, "leave out --psi-sweep")
    return replace(view, psi=1.0)


def planned(keys: Latents, cells: int, view: View, film: FilmSettings) -> list[Walk]:
    """As many keyframes for each of so many films side by side, in order, and the way of each.

    Raises UserError if that does not come out even, and as `plan` and `check_film_settings` do.
    """
    each, left = divmod(len(keys), cells)
    if left or not each:
        raise UserError(f"{counted(len(keys), 'keyframe')} cannot be dealt out to {counted(cells, 'film')} in equal "
                        f"numbers; use a multiple of {cells}")  # fmt: skip
    check_film_settings(film, each)
    return [plan(keys[start : start + each], view, film) for start in range(0, len(keys), each)]


def plan(keys: Latents, view: View, film: FilmSettings) -> Walk:
    """The way through `keys`. At a keyframe it is at its ws to the last bit, or at its ws truncated by the sweep.

    Noise stays as it is at every frame; only maps and edits of styles that keyframes bring fade from one to the next.
    Raises UserError where there is no way, as for latents without z in the space z.
    """
    G = view.snapshot.G
    space = film.space or ("w" if G.has_w else "z")
    if space == "w":
        require_w(G, "use --space z")
    if space == "z":
        segments, ws = _through_z(keys, view, film)
    else:
        centre = G.broadcast(_centres(keys, view)).mean(dim=0) if film.path == "circular" else keys.ws[0]
        curve = _curve(keys.ws, film, centre, straight)
        segments, ws = curve.segments, curve.at
    if film.psi_sweep is not None:
        ws = _swept(ws, segments, _fading(_centres(keys, view), film), view, film)
    fixed = view.noise_mode == "random"
    maps = [m[:1] for m in keys.noise] if fixed else list(keys.noise)
    fading = [tuple(_fading(part, film) for part in parts) for parts in (maps, keys.styles)]
    return Walk(segments, ws, *fading)


def _curve(keys: Tensor, film: FilmSettings, centre: Tensor, direct: Callable[[Tensor, bool], Curve]) -> Curve:
    if film.path == "circular":
        return circle(keys, centre)
    if film.path == "cubic":
        return smooth(keys, film.loop, keep_length=direct is turning)
    return direct(keys, film.loop)


def _fading(maps: Tensor, film: FilmSettings) -> Curve:
    if film.path == "circular" and len(maps) == 2:
        maps = maps[[0, 1, 0, 1]]  # the way goes through the opposites of both as well
    return straight(maps, film.closed) if len(maps) > 1 else Curve(maps, 1, lambda i, t: maps[0])


def _through_z(keys: Latents, view: View, film: FilmSettings) -> tuple[int, Callable[[Sequence[float]], Tensor]]:
    """Interpolates z, and the weights of classes, and maps each frame anew."""
    if keys.z is None:
        raise UserError("some keyframes have no z, as those of photographs and mixed pictures; use --space w")
    renderer, config = view.renderer, view.config
    psi, cutoff = view.psi, view.cutoff
    if not torch.allclose(renderer.map(keys.z, keys.c, psi=psi, cutoff=cutoff), keys.ws, rtol=1e-3, atol=1e-4):
        raise UserError(f"some keyframes are not what their z becomes at truncation {view.psi:g}; use --space w, or "
                        "--trunc as it was when they were saved")  # fmt: skip
    curve = _curve(keys.z, film, torch.zeros_like(keys.z[0]), turning)
    classes = None if keys.c is None else _fading(class_weights(keys.c, config.num_classes), film)

    def ws(times: Sequence[float]) -> Tensor:
        c = None if classes is None else classes.at(times)
        return renderer.map(curve.at(times), c, psi=psi, cutoff=cutoff)

    return curve.segments, ws


def _centres(keys: Latents, view: View) -> Tensor:
    """The average w of each keyframe's class, [N,w_dim] on the CPU; of all classes where keyframes have none."""
    mapping, classes = view.snapshot.G.mapping, view.config.num_classes
    c = keys.c
    if c is None and classes:
        c = torch.full((len(keys), classes), 1 / classes)
    return mapping.centre(None if c is None else c.to(mapping.w_avg.device)).cpu().expand(len(keys), -1)


def _swept(
    ws: Callable[[Sequence[float]], Tensor], segments: int, centres: Curve, view: View, film: FilmSettings
) -> Callable[[Sequence[float]], Tensor]:
    assert film.psi_sweep is not None
    sweep, cutoff = film.psi_sweep, view.cutoff

    def truncated(times: Sequence[float]) -> Tensor:
        psis = [psi_at(time, segments, sweep, film.closed) for time in times]
        rows = zip(ws(times).split(1), centres.at(times).split(1), psis, strict=True)
        return torch.cat([truncate(row, centre, psi, cutoff) for row, centre, psi in rows])

    return truncated


def times_of(
    walks: Sequence[Walk], view: View, film: FilmSettings, batch: int, advance: Callable[[int], None]
) -> list[float]:
    """When the frames are, of ways that are gone side by side. `advance` hears of pictures that measuring takes."""
    segments = walks[0].segments
    if not film.even:
        return frame_times([film.frames] * segments, film.closed, film.ease)
    samples = samples_of(film)
    evenly = [j / samples for j in range(segments * samples + 1)]
    steps = np.zeros(segments * samples)
    for walk in walks:
        before: Tensor | None = None
        for start in range(0, len(evenly), batch):
            pictures = view.draw(walk.at(evenly[start : start + batch]), batch)
            advance(len(pictures))
            row = pictures if before is None else torch.cat([before, pictures])
            distances = picture_distance(row[1:], row[:-1]).numpy()
            first = start if before is None else start - 1
            steps[first : first + len(distances)] += distances
            before = pictures[-1:]
    return even_times(steps.reshape(segments, samples), film.frames, film.closed, film.ease)


def samples_of(film: FilmSettings) -> int:
    """Pictures in a segment that measuring speed takes."""
    return max(SAMPLES[0], min(SAMPLES[1], film.frames))


def drawn(walks: Sequence[Walk], times: Sequence[float], view: View, batch: int) -> Iterator[list[Tensor]]:
    """Some frames at a time: of each way its pictures [N,channels,H,W]."""
    at_once = max(1, batch // len(walks))
    for start in range(0, len(times), at_once):
        yield [view.draw(walk.at(times[start : start + at_once]), batch) for walk in walks]
