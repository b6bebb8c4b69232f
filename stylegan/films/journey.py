"""From keyframes to the latents of every frame of a film."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stylegan.films.course import Course, check_course
from stylegan.films.paths import Curve, circle, frame_times, psi_at, smooth, straight, turning
from stylegan.films.speed import even_times, picture_distance
from stylegan.latent_file import Latents
from stylegan.latents import truncate
from stylegan.mapping import class_weights
from stylegan.painter import Painter
from torch_utils.errors import UserError
from torch_utils.words import counted

SAMPLES = (8, 48)  # pictures in a segment, at least and at most, to measure its length with


@dataclass(frozen=True)
class Journey:
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


def untruncated(painter: Painter, course: Course) -> Painter:
    """The painter to gather keyframes with: a sweep truncates them later (those of latent files once more).

    Raises UserError where there is no w, and where another truncation is asked for as well.
    """
    if course.psi_sweep is None:
        return painter
    if painter.view.trunc is not None:
        raise UserError("--psi-sweep sets the truncation of each frame; leave out --trunc")
    if painter.snapshot.config.family == "progan":
        raise UserError("--psi-sweep: ProGAN has no w to truncate")
    return replace(painter, psi=1.0)


def planned(keys: Latents, cells: int, painter: Painter, course: Course) -> list[Journey]:
    """As many keyframes for each of so many films side by side, in order, and the way of each.

    Raises UserError if that does not come out even, and as `plan` and `check_course` do.
    """
    each, left = divmod(len(keys), cells)
    if left or not each:
        raise UserError(f"{counted(len(keys), 'keyframe')} cannot be dealt out to {counted(cells, 'film')} in equal "
                        f"numbers; use a multiple of {cells}")  # fmt: skip
    check_course(course, each)
    return [plan(keys[start : start + each], painter, course) for start in range(0, len(keys), each)]


def plan(keys: Latents, painter: Painter, course: Course) -> Journey:
    """The way through `keys`. At a keyframe it is at its ws to the last bit, or at its ws truncated by the sweep.

    Noise stays as it is at every frame; only maps and edits of styles that keyframes bring fade from one to the next.
    Raises UserError where there is no way, as for latents without z in the space z.
    """
    G = painter.snapshot.G
    progan = painter.snapshot.config.family == "progan"
    space = course.space or ("z" if progan else "w")
    if space == "w" and progan:
        raise UserError("ProGAN has no w: it draws from z directly; use --space z")
    if space == "z":
        segments, ws = _through_z(keys, painter, course)
    else:
        centre = G.broadcast(_centres(keys, painter)).mean(dim=0) if course.path == "circular" else keys.ws[0]
        curve = _curve(keys.ws, course, centre, straight)
        segments, ws = curve.segments, curve.at
    if course.psi_sweep is not None:
        ws = _swept(ws, segments, _fading(_centres(keys, painter), course), painter, course)
    fixed = painter.view.noise_mode == "random"
    maps = [m[:1] for m in keys.noise] if fixed else list(keys.noise)
    fading = [tuple(_fading(part, course) for part in parts) for parts in (maps, keys.styles)]
    return Journey(segments, ws, *fading)


def _curve(keys: Tensor, course: Course, centre: Tensor, direct: Callable[[Tensor, bool], Curve]) -> Curve:
    if course.path == "circular":
        return circle(keys, centre)
    if course.path == "cubic":
        return smooth(keys, course.loop, keep_length=direct is turning)
    return direct(keys, course.loop)


def _fading(maps: Tensor, course: Course) -> Curve:
    if course.path == "circular" and len(maps) == 2:
        maps = maps[[0, 1, 0, 1]]  # the way goes through the opposites of both as well
    return straight(maps, course.closed) if len(maps) > 1 else Curve(maps, 1, lambda i, t: maps[0])


def _through_z(keys: Latents, painter: Painter, course: Course) -> tuple[int, Callable[[Sequence[float]], Tensor]]:
    """Interpolates z, and the weights of classes, and maps each frame anew."""
    if keys.z is None:
        raise UserError("some keyframes have no z, as those of photographs and mixed pictures; use --space w")
    G, config, cutoff = painter.snapshot.G, painter.snapshot.config, painter.view.trunc_cutoff
    if not torch.allclose(G.map(keys.z, painter.psi, cutoff, keys.c), keys.ws, rtol=1e-3, atol=1e-4):
        raise UserError(f"some keyframes are not what their z becomes at truncation {painter.psi:g}; use --space w, or "
                        "--trunc as it was when they were saved")  # fmt: skip
    curve = _curve(keys.z, course, torch.zeros_like(keys.z[0]), turning)
    classes = None if keys.c is None else _fading(class_weights(keys.c, config.num_classes), course)

    def ws(times: Sequence[float]) -> Tensor:
        return G.map(curve.at(times), painter.psi, cutoff, None if classes is None else classes.at(times))

    return curve.segments, ws


def _centres(keys: Latents, painter: Painter) -> Tensor:
    """The average w of each keyframe's class, [N,w_dim] on the CPU; of all classes where keyframes have none."""
    mapping, classes = painter.snapshot.G.mapping, painter.snapshot.config.num_classes
    c = keys.c
    if c is None and classes:
        c = torch.full((len(keys), classes), 1 / classes)
    return mapping.centre(None if c is None else c.to(mapping.w_avg.device)).cpu().expand(len(keys), -1)


def _swept(
    ws: Callable[[Sequence[float]], Tensor], segments: int, centres: Curve, painter: Painter, course: Course
) -> Callable[[Sequence[float]], Tensor]:
    assert course.psi_sweep is not None
    sweep, cutoff = course.psi_sweep, painter.view.trunc_cutoff

    def truncated(times: Sequence[float]) -> Tensor:
        psis = [psi_at(time, segments, sweep, course.closed) for time in times]
        rows = zip(ws(times).split(1), centres.at(times).split(1), psis, strict=True)
        return torch.cat([truncate(row, centre, psi, cutoff) for row, centre, psi in rows])

    return truncated


def times_of(
    journeys: Sequence[Journey], painter: Painter, course: Course, batch: int, advance: Callable[[int], None]
) -> list[float]:
    """When the frames are, of ways that are gone side by side. `advance` hears of pictures that measuring takes."""
    segments = journeys[0].segments
    if not course.even:
        return frame_times([course.frames] * segments, course.closed, course.ease)
    samples = samples_of(course)
    evenly = [j / samples for j in range(segments * samples + 1)]
    steps = np.zeros(segments * samples)
    for journey in journeys:
        before: Tensor | None = None
        for start in range(0, len(evenly), batch):
            pictures = painter.draw(journey.at(evenly[start : start + batch]), batch)
            advance(len(pictures))
            row = pictures if before is None else torch.cat([before, pictures])
            distances = picture_distance(row[1:], row[:-1]).numpy()
            first = start if before is None else start - 1
            steps[first : first + len(distances)] += distances
            before = pictures[-1:]
    return even_times(steps.reshape(segments, samples), course.frames, course.closed, course.ease)


def samples_of(course: Course) -> int:
    """Pictures in a segment that measuring speed takes."""
    return max(SAMPLES[0], min(SAMPLES[1], course.frames))


def drawn(journeys: Sequence[Journey], times: Sequence[float], painter: Painter, batch: int) -> Iterator[list[Tensor]]:
    """Some frames at a time: of each way its pictures [N,channels,H,W]."""
    at_once = max(1, batch // len(journeys))
    for start in range(0, len(times), at_once):
        yield [painter.draw(journey.at(times[start : start + at_once]), batch) for journey in journeys]
