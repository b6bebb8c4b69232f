"""Seeds, latent files and photographs as latents of one network: how every tool that starts from pictures begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from stylegan.classes import classes_for_seeds
from stylegan.latent_file import Latents, joined, load_latents
from stylegan.latents import z_for_seeds
from stylegan.painter import Painter
from stylegan.start import Point, is_photograph
from torch_utils.errors import UserError

Project = Callable[[Sequence[Path], Painter], Latents]
"""Finds the latents of photographs, one for each."""


def gather(
    points: Sequence[Point], painter: Painter, classes: Sequence[int] = (), *,
    project: Project | None = None, force: bool = False, each: bool = False,
) -> Latents:  # fmt: skip
    """The latents of `points`, in their order, on the CPU: `Painter.draw` makes of seeds what `Painter.paint` does.

    classes: as for `classes_for_seeds`, but if `each`: one for all seeds, or one for each of them in turn.
    Only seeds need them. project, force: see `opened`. Raises UserError.
    """
    found = opened(points, painter, project, force)
    if each and len(classes) > 1:
        parts = _seed_by_seed(found, painter, classes)
    else:
        parts = list(in_batches(found, painter, classes, sum(map(_count, found))))
    return together(parts, painter)


def _count(point: int | Latents) -> int:
    return 1 if isinstance(point, int) else len(point)


def _seed_by_seed(found: Sequence[int | Latents], painter: Painter, classes: Sequence[int]) -> list[Latents]:
    seeds = sum(isinstance(point, int) for point in found)
    if len(classes) != seeds:
        raise UserError(f"there are {len(classes)} classes for {seeds} seeds; name one for all, or one for each")
    rest = iter(classes)
    return [
        of_seeds([point], painter, [next(rest)]) if isinstance(point, int)
        else _with_random_noise(point, range(len(point)), painter)
        for point in found
    ]  # fmt: skip


def opened(
    points: Sequence[Point], painter: Painter, project: Project | None = None, force: bool = False
) -> list[int | Latents]:
    """The files among `points` opened and the photographs projected; seeds stay, as they cost nothing until drawn.

    Raises UserError for files that cannot be used, before any photograph is worked on, and for photographs where
    there is no `project`. force: take latents of another network.
    """
    paths = dict.fromkeys(point for point in points if isinstance(point, Path))
    files = {path: load_latents(path, painter.snapshot, force) for path in paths if not is_photograph(path)}
    photographs = [path for path in paths if is_photograph(path)]
    for path in photographs:
        if not path.is_file():
            raise UserError(f"there is no photograph {path}")
        if project is None:
            raise UserError(f"{path} is a photograph: project.py finds its latents, and this takes the file it makes")
    if project is not None and photographs:
        projected = project(photographs, painter)
        files |= {path: projected[i : i + 1] for i, path in enumerate(photographs)}
    return [files[point] if isinstance(point, Path) else point for point in points]


def stand_ins(paths: Sequence[Path], painter: Painter) -> Latents:
    """Some latents in the place of photographs, at once: for plans, where only their number matters."""
    config, names = painter.snapshot.config, tuple(path.stem for path in paths)
    return Latents(painter.snapshot.G.broadcast(z_for_seeds(range(len(paths)), config.w_dim)), names, names)


def in_batches(
    found: Sequence[int | Latents], painter: Painter, classes: Sequence[int], batch: int
) -> Iterator[Latents]:
    """Latents of what `opened` found, in its order, at most `batch` at a time, none in memory before its turn."""
    for are_seeds, group in groupby(found, lambda point: isinstance(point, int)):
        if are_seeds:
            seeds = [seed for seed in group if isinstance(seed, int)]
            for start in range(0, len(seeds), batch):
                yield of_seeds(seeds[start : start + batch], painter, classes)
        else:
            for latents in group:
                assert isinstance(latents, Latents)
                ready = _with_random_noise(latents, range(len(latents)), painter)
                yield from (ready[start : start + batch] for start in range(0, len(ready), batch))


def of_seeds(seeds: Sequence[int], painter: Painter, classes: Sequence[int] = ()) -> Latents:
    """Seeds mapped, and truncated as the view says. Raises UserError for classes, see `classes_for_seeds`."""
    G, config = painter.snapshot.G, painter.snapshot.config
    z, c = z_for_seeds(seeds, config.z_dim), classes_for_seeds(classes, seeds, config.num_classes)
    latents = Latents(
        ws=G.map(z, painter.psi, painter.view.trunc_cutoff, c),
        names=tuple(f"seed{seed:04d}" for seed in seeds), origins=tuple(f"seed {seed}" for seed in seeds),
        z=z, c=c, psi=painter.psi,
    )  # fmt: skip
    return _with_random_noise(latents, seeds, painter)


def names_of(found: Sequence[int | Latents]) -> list[str]:
    """A name for each picture of what `opened` found, no two alike."""
    return distinct([
        name for point in found for name in (point.names if isinstance(point, Latents) else (f"seed{point:04d}",))
    ])  # fmt: skip


def distinct(wishes: Sequence[str]) -> list[str]:
    """The names wished for, numbered where they come again: eva, tom, eva-2."""
    names: list[str] = []
    taken: set[str] = set()
    for wish in wishes:
        name, number = wish, 2
        while name in taken:
            name, number = f"{wish}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _with_random_noise(latents: Latents, seeds: Sequence[int], painter: Painter) -> Latents:
    """With the maps of --noise-mode random, if that is asked for: those of the seed, or of the place in a file."""
    if painter.view.noise_mode != "random":
        return latents
    return replace(latents, noise=tuple(painter.snapshot.G.noise_of(seeds)))


def together(parts: Sequence[Latents], painter: Painter) -> Latents:
    """All in one. If some bring noise maps, the others get the network's own, with which they would be drawn anyway."""
    layers = max((len(part.noise) for part in parts), default=0)
    own = painter.snapshot.G.synthesis.own_noise()[:layers]
    return joined([
        part if part.noise or not layers
        else replace(part, noise=tuple(maps.cpu().expand(len(part), -1, -1, -1) for maps in own))
        for part in parts
    ])  # fmt: skip
