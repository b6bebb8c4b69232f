"""Photographs -> latents in one call, for Python and for the tools that take photographs in the place of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from stylegan.classes import classes_for_seeds
from stylegan.latent_file import Latents
from stylegan.painter import Painter
from stylegan.points import Project
from stylegan.projection.distance import AnyDistance, pick_distance
from stylegan.projection.photos import Align, Photo, as_targets, read_photos
from stylegan.projection.projector import project
from stylegan.projection.settings import Moment, ProjectionSettings, Watch
from stylegan.snapshot import Snapshot
from torch_utils.errors import UserError
from torch_utils.progress import Progress


def project_photos(
    snapshot: Snapshot, paths: Sequence[str | Path], settings: ProjectionSettings | None = None,
    distance: AnyDistance | str = "", c: Sequence[int] = (), align: Align | None = None, watch: Watch | None = None,
) -> Latents:  # fmt: skip
    """The latents of photographs, all at once, named after their files.

    distance: one of `DISTANCES`, "" for the default, or any function. c: classes; of a list, photo I gets number I,
    counted round. Raises UserError for a file that is no picture, and as `project` does.
    """
    photos, faults = read_photos([Path(path) for path in paths], snapshot, align)
    if faults:
        raise UserError("; ".join(faults.values()))
    if isinstance(distance, str):
        distance = pick_distance(distance, snapshot)
    classes = classes_for_seeds(c, range(len(photos)), snapshot.config.num_classes)
    latents, _ = project(snapshot, as_targets(photos), settings or ProjectionSettings(), distance, classes, watch)
    return named(latents, photos)


def named(latents: Latents, photos: Sequence[Photo]) -> Latents:
    """Called after the photographs that they are of, and on the CPU."""
    cpu = torch.device("cpu")
    return replace(
        latents, ws=latents.ws.to(cpu), c=None if latents.c is None else latents.c.to(cpu),
        noise=tuple(m.to(cpu) for m in latents.noise), names=tuple(photo.name for photo in photos),
        origins=tuple(f"photo {photo.path.name}" for photo in photos),
    )  # fmt: skip


def projecting(settings: ProjectionSettings | None = None, distance: str = "", c: Sequence[int] = ()) -> Project:
    """What `points.gather` takes to open photographs with: projects them, with a progress bar."""
    chosen = settings or ProjectionSettings()

    def find(paths: Sequence[Path], painter: Painter) -> Latents:
        with Progress(f"Projecting {len(paths)} photos", total_steps(chosen), unit="step") as bar:
            return project_photos(painter.snapshot, paths, chosen, distance, c, watch=lambda moment: show(bar, moment))

    return find


def total_steps(settings: ProjectionSettings) -> int:
    return settings.num_steps + (settings.plus_steps if settings.space == "w+" else 0)


def show(bar: Progress, moment: Moment) -> None:
    """One step further, and how far off the pictures are on average."""
    bar.advance(note=f"{moment.stage} {float(moment.distances.mean()):.4f}")


def as_pictures(found: Tensor, targets: Tensor) -> Tensor:
    """Side by side: target | what was found | their difference, black where there is none. [N,C,H,W] -> [N,C,H,3W]."""
    return torch.cat([targets, found.clamp(-1, 1), (found.clamp(-1, 1) - targets).abs() - 1], dim=3)
