"""Photographs -> latents in one call, for Python and for the tools that take photographs in the place of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents, joined
from stylegan.latents.render import View
from stylegan.latents.sources import Project, classes_for_seeds
from stylegan.networks.base import require_w
from stylegan.networks.sampling import z_for_seeds
from stylegan.projection.distance import AnyDistance, pick_distance
from stylegan.projection.photos import Align, Photo, as_targets, read_photos
from stylegan.projection.projector import project
from stylegan.projection.settings import Moment, ProjectionSettings, Watch
from torch_utils.errors import UserError
from torch_utils.progress import Progress
from torch_utils.text import counted


def project_photos(
    snapshot: Snapshot, paths: Sequence[str | Path], settings: ProjectionSettings | None = None,
    distance: AnyDistance | str = "", c: Sequence[int] = (), align: Align | None = None, watch: Watch | None = None,
) -> Latents:  # fmt: skip
    """The latents of photographs, all at once, named after their files.

    distance: one of `DISTANCES`, "" for the default, or any function. c: classes; of a list, photo I gets number I,
    counted round. Raises UserError for a file that is no picture, and as `project` does.
    """
    photos = _readable(snapshot, paths, align)
    if isinstance(distance, str):
        distance = pick_distance(distance, snapshot)
    classes = classes_for_seeds(c, range(len(photos)), snapshot.config.num_classes)
    latents, _ = project(snapshot, as_targets(photos), settings or ProjectionSettings(), distance, classes, watch)
    return named(latents, photos)


def _readable(snapshot: Snapshot, paths: Sequence[str | Path], align: Align | None = None) -> list[Photo]:
    photos, faults = read_photos([Path(path) for path in paths], snapshot, align)
    if faults:
        raise UserError("; ".join(faults.values()))
    return photos


def named(latents: Latents, photos: Sequence[Photo]) -> Latents:
    """Called after the photographs that they are of, and on the CPU."""
    cpu = torch.device("cpu")
    return replace(
        latents, ws=latents.ws.to(cpu), c=None if latents.c is None else latents.c.to(cpu),
        noise=tuple(m.to(cpu) for m in latents.noise), names=tuple(photo.name for photo in photos),
        origins=tuple(f"photo {photo.path.name}" for photo in photos),
    )  # fmt: skip


def projecting(num_steps: int, batch: int = 8) -> Project:
    """What `points.gather` takes to open photographs with: projects each once, `batch` of them together."""
    chosen = ProjectionSettings(num_steps=num_steps)

    known: dict[tuple[Path, int | None], Latents] = {}

    def find(paths: Sequence[Path], view: View, c: Sequence[int]) -> Latents:
        kinds: Sequence[int | None] = c or [None] * len(paths)
        wished = list(zip(paths, kinds, strict=True))
        todo = [photograph for photograph in wished if photograph not in known]
        steps = num_steps * math.ceil(len(todo) / batch)
        with Progress(f"Projecting {counted(len(todo), 'photo')}", steps, "step", quiet=not todo) as bar:
            for start in range(0, len(todo), batch):
                part = todo[start : start + batch]
                files, own = [path for path, _ in part], [kind for _, kind in part if kind is not None]
                watch = partial(show, bar)
                found = project_photos(view.snapshot, files, chosen, c=own, watch=watch)
                known.update((photograph, found[i : i + 1]) for i, photograph in enumerate(part))
        return joined([known[photograph] for photograph in wished])

    return find


def standing_in(paths: Sequence[Path], view: View, c: Sequence[int]) -> Latents:
    """In the place of `projecting`, for plans and to find mistakes early: any latents, at once, for photographs.

    Raises UserError for those that cannot be projected.
    """
    require_w(view.snapshot.G)
    photos, config = _readable(view.snapshot, paths), view.config
    ws = view.snapshot.G.broadcast(z_for_seeds(range(len(paths)), config.ws_dim))
    names = tuple(photo.name for photo in photos)
    return Latents(ws, names, names, c=torch.tensor(c) if c else None)


def total_steps(settings: ProjectionSettings) -> int:
    return settings.num_steps + (settings.plus_steps if settings.space == "w+" else 0)


def show(bar: Progress, moment: Moment) -> None:
    """One step further, and how far off the pictures are on average."""
    bar.advance(note=f"{moment.stage} {float(moment.distances.mean()):.4f}")


def as_pictures(found: Tensor, targets: Tensor) -> Tensor:
    """Side by side: target | what was found | their difference, black where there is none. [N,C,H,W] -> [N,C,H,3W]."""
    return torch.cat([targets, found.clamp(-1, 1), (found.clamp(-1, 1) - targets).abs() - 1], dim=3)
