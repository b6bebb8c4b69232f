"""Latent walks: from keyframes and a time to the latents at that time.

Time is counted in keyframes: at 0 a walk is at the first, at 1 at the second, at 1.5 between that and the third. At
whole numbers it is at the keyframe itself, to the last bit. Curves are pure functions of keys [K,...].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from stylegan.editing.settings import FilmSettings, check_film_settings
from stylegan.latents.latents import Latents
from stylegan.latents.render import View
from stylegan.networks.base import require_w
from stylegan.networks.mapping import class_weights
from stylegan.networks.sampling import slerp, truncate
from torch_utils.errors import UserError
from torch_utils.text import counted

# Curves


@dataclass(frozen=True)
class Curve:
    """A path through keys [K,...]. segments: the number of pieces from key to key; as many as keys if it is closed.

    between: takes the number of a segment and a phase, 0 < phase < 1, and returns the point there, of any shape.
    """

    keys: Tensor
    segments: int
    between: Callable[[int, float], Tensor]

    def at(self, times: Sequence[float]) -> Tensor:
        """The points [N,...] at these times, 0 to `segments`."""
        return torch.stack([self._at(time) for time in times])

    def _at(self, time: float) -> Tensor:
        segment = math.floor(time)
        if time == segment:
            return self.keys[segment % len(self.keys)]
        return self.between(segment, time - segment).view_as(self.keys[0]).to(self.keys.dtype)


def straight(keys: Tensor, closed: bool = False) -> Curve:
    """Lines from key to key."""
    return Curve(keys, _segments(keys, closed), lambda i, t: torch.lerp(keys[i], keys[(i + 1) % len(keys)], t))


def turning(keys: Tensor, closed: bool = False) -> Curve:
    """From key to key by `slerp`, with all of a key as one vector."""
    flat = keys.flatten(1)
    return Curve(keys, _segments(keys, closed), lambda i, t: slerp(flat[i], flat[(i + 1) % len(flat)], t))


def smooth(keys: Tensor, closed: bool = False, keep_length: bool = False) -> Curve:
    """A cubic spline with continuous speed and acceleration: periodic if closed, else without curvature at its ends.

    keep_length: points are as long as those of `slerp` from key to key, as the networks need it of z.
    """
    points = torch.cat([keys, keys[:1]]) if closed else keys
    spline = CubicSpline(range(len(points)), points.double().numpy(), bc_type="periodic" if closed else "natural")
    lengths = [float(point.double().norm()) for point in points]

    def between(i: int, t: float) -> Tensor:
        point = torch.from_numpy(spline(i + t))
        return point * ((lengths[i] + (lengths[i + 1] - lengths[i]) * t) / point.norm()) if keep_length else point

    return Curve(keys, _segments(keys, closed), between)


def circle(keys: Tensor, centre: Tensor) -> Curve:
    """The circle through 3 keys; for 2 keys the one about `centre` [...], through both and their opposites.

    Raises UserError for keys on one line, through which there is no circle.
    """
    if len(keys) == 2:
        four = torch.cat([keys, 2 * centre - keys])
        around = (four - centre).flatten(1)
        return Curve(four, 4, lambda i, t: centre.flatten() + slerp(around[i], around[(i + 1) % 4], t))
    middle, first, second, angles = _through_three(keys)
    ends = [*angles, 2 * math.pi]

    def between(i: int, t: float) -> Tensor:
        angle = ends[i] + (ends[i + 1] - ends[i]) * t
        return middle + math.cos(angle) * first + math.sin(angle) * second

    return Curve(keys, 3, between)


def _through_three(keys: Tensor) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """Centre, two perpendicular radii, and the rising angles of the keys."""
    a, b, c = keys.double()
    u, v = b - a, c - a
    uu, vv, uv = float((u * u).sum()), float((v * v).sum()), float((u * v).sum())
    area = uu * vv - uv * uv
    if area <= 1e-9 * max(uu, vv) ** 2:
        raise UserError("there is no circle through these three keyframes, because they are on one line or two of them "
                        "are the same; choose others, or another --path")  # fmt: skip
    centre = a + (vv * (uu - uv) * u + uu * (vv - uv) * v) / (2 * area)
    first = a - centre
    radius = float(first.norm())
    second = (b - centre) - first * float(((b - centre) * first).sum() / radius**2)
    second = second * (radius / float(second.norm()))

    def angle(point: Tensor) -> float:
        x, y = float(((point - centre) * first).sum()), float(((point - centre) * second).sum())
        return math.atan2(y, x) % (2 * math.pi)

    if angle(c) < angle(b):  # so that the circle goes from a to b to c
        second = -second
    return centre, first, second, [0.0, angle(b), angle(c)]


def _segments(keys: Tensor, closed: bool) -> int:
    return len(keys) if closed else max(1, len(keys) - 1)


# Walks


@dataclass(frozen=True)
class Walk:
    """A walk through the latents of one network. segments: from keyframe to keyframe   ws: times [N] -> [N,L,w_dim].

    noise, styles: curves of the noise maps and style edits of each layer; empty if the keyframes bring none
    """

    segments: int
    ws: Callable[[Sequence[float]], Tensor]
    noise: tuple[Curve, ...] = ()
    styles: tuple[Curve, ...] = ()

    def at(self, times: Sequence[float]) -> Latents:
        """The latents at these times."""
        names = tuple(f"time {time:g}" for time in times)
        noise, styles = (tuple(curve.at(times) for curve in curves) for curves in (self.noise, self.styles))
        return Latents(self.ws(times), names, names, noise=noise, styles=styles)


def plan_walks(keys: Latents, count: int, view: View, film: FilmSettings) -> list[Walk]:
    """Walks for `count` films side by side, which get the same number of keyframes each, in order.

    Raises UserError if the keyframes cannot be divided equally, and as `plan_walk` and `check_film_settings` do.
    """
    each, left = divmod(len(keys), count)
    if left or not each:
        raise UserError(f"{counted(len(keys), 'keyframe')} cannot be divided equally among {counted(count, 'film')}; "
                        f"use a multiple of {count}")  # fmt: skip
    check_film_settings(film, each)
    return [plan_walk(keys[start : start + each], view, film) for start in range(0, len(keys), each)]


def plan_walk(keys: Latents, view: View, film: FilmSettings) -> Walk:
    """The walk through `keys`. At a keyframe it is at its ws to the last bit, or at its ws truncated by the sweep.

    Noise stays the same in every frame; only maps and style edits that keyframes bring fade from one to the next.
    Raises UserError if the walk is not possible, as in z for latents without z.
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
    maps = [m[:1] for m in keys.noise] if view.noise_mode == "random" else list(keys.noise)
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
        maps = maps[[0, 1, 0, 1]]  # the circle goes through the opposites of both as well
    return straight(maps, film.closed) if len(maps) > 1 else Curve(maps, 1, lambda i, t: maps[0])


def _through_z(keys: Latents, view: View, film: FilmSettings) -> tuple[int, Callable[[Sequence[float]], Tensor]]:
    """Interpolates z, and the weights of classes, and maps them for each frame."""
    if keys.z is None:
        raise UserError("some keyframes have no z, such as photographs and mixed images; use --space w")
    renderer, psi, cutoff = view.snapshot.renderer, view.psi, view.cutoff
    if not torch.allclose(renderer.map(keys.z, keys.c, psi=psi, cutoff=cutoff), keys.ws, rtol=1e-3, atol=1e-4):
        raise UserError(f"some keyframes differ from what their z is mapped to with truncation {psi:g}; use --space w, "
                        "or --trunc as it was when they were saved")  # fmt: skip
    curve = _curve(keys.z, film, torch.zeros_like(keys.z[0]), turning)
    classes = None if keys.c is None else _fading(class_weights(keys.c, view.snapshot.config.num_classes), film)

    def ws(times: Sequence[float]) -> Tensor:
        c = None if classes is None else classes.at(times)
        return renderer.map(curve.at(times), c, psi=psi, cutoff=cutoff)

    return curve.segments, ws


def _centres(keys: Latents, view: View) -> Tensor:
    """The average w of the class of each keyframe, [N,w_dim] on the CPU; of all classes if keyframes have none."""
    mapping, classes = view.snapshot.G.mapping, view.snapshot.config.num_classes
    c = keys.c
    if c is None and classes:
        c = torch.full((len(keys), classes), 1 / classes)
    return mapping.centre(None if c is None else c.to(mapping.w_avg.device)).cpu().expand(len(keys), -1)


# Sweeps of truncation


def untruncated(view: View, film: FilmSettings) -> View:
    """The view to gather keyframes with: if psi sweeps, it truncates them later (those of latent files once more).

    Raises UserError for a sweep in a network without w.
    """
    if film.psi_sweep is None:
        return view
    require_w(view.snapshot.G, "leave out --psi-sweep")
    return replace(view, psi=1.0)


def psi_at(time: float, segments: int, sweep: tuple[float, float], closed: bool) -> float:
    """The truncation at a time: evenly from sweep[0] to sweep[1], and back again if closed."""
    part = time / segments
    if closed:
        part = 1 - abs(2 * part - 1)
    return sweep[0] * (1 - part) + sweep[1] * part  # exact at both ends


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
