"""Which class each picture is of, from what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path

import torch
from torch import Tensor

from stylegan.latents.latents import Latents, joined, load_latents
from stylegan.latents.notation import Point, is_photograph
from stylegan.latents.render import View
from stylegan.networks.sampling import z_for_seeds
from torch_utils.errors import UserError
from torch_utils.text import counted


def classes_for_seeds(asked: Sequence[int], seeds: Sequence[int], num_classes: int) -> Tensor | None:
    """The class of each seed's picture, [N]: of a list, seed S gets number S, counted round. None without classes.

    By seed and not by place in the list, so that a seed stays the same picture whatever stands beside it.
    Raises UserError unless the network has what is asked for, and where it has classes and none is asked for.
    """
    require_classes(asked, num_classes)
    return torch.tensor([asked[seed % len(asked)] for seed in seeds]) if asked else None


def require_classes(asked: Sequence[int], num_classes: int, flag: str = "--class") -> None:
    """Raises UserError unless the network has what is asked for, and where it has classes and none is asked for."""
    if asked and not num_classes:
        raise UserError(f"{flag}: this network is unconditional, it has no classes; leave the option out")
    if num_classes and not (asked and max(asked) < num_classes):
        raise UserError(f"this network has {num_classes} classes; choose with {flag}, 0 to {num_classes - 1}")


# Seeds, latent files and photographs as latents of one network: how every tool that starts from pictures begins


Project = Callable[[Sequence[Path], View, Sequence[int]], Latents]
"""Finds the latents of photographs, one for each; of their classes, where there are some."""


def gather(
    points: Sequence[Point], view: View, classes: Sequence[int] = (), *,
    project: Project | None = None, force: bool = False, each: bool = False, flag: str = "--class",
) -> Latents:  # fmt: skip
    """The latents of `points`, in their order, on the CPU: `View.draw` makes of seeds what `View.render` does.

    classes, each, flag: see `classes_of`. project, force: see `opened`. Raises UserError.
    """
    kinds = classes_of(points, classes, view.config.num_classes, each, flag)
    found = opened(points, view, kinds, project=project, force=force)
    return together(list(in_batches(found, view, kinds, sum(map(_count, found)))), view)


def _count(point: int | Latents) -> int:
    return 1 if isinstance(point, int) else len(point)


def classes_of(
    points: Sequence[Point], classes: Sequence[int], num_classes: int, each: bool = False, flag: str = "--class"
) -> list[int | None]:
    """The class of each of `points`, None where the network has none, and for latent files, which bring theirs.

    Of several classes seed S gets number S, and photograph I number I, counted round; but if `each`, then every seed
    and every photograph gets the next. Raises UserError for classes that the network has not, for none where seeds or
    photographs need one, and if `each` for more or less than there are of these. flag: what it names as the cure.
    """
    takers = [point for point in points if isinstance(point, int) or is_photograph(point)]
    if takers or classes:
        require_classes(classes, num_classes, flag)
    if not classes:
        return [None] * len(points)
    each = each and len(classes) > 1
    if each and len(classes) != len(takers):
        raise UserError(f"{flag}: there are {len(classes)} classes for {counted(len(takers), 'seed')}, photographs "
                        "included; name one for all, or one for each")  # fmt: skip
    turn = count()

    def kind(point: Point) -> int | None:
        if isinstance(point, Path) and not is_photograph(point):
            return None
        return classes[(point if isinstance(point, int) and not each else next(turn)) % len(classes)]

    return [kind(point) for point in points]


def opened(
    points: Sequence[Point], view: View, kinds: Sequence[int | None], *,
    project: Project | None = None, force: bool = False,
) -> list[int | Latents]:  # fmt: skip
    """The files among `points` opened and the photographs projected; seeds stay, as they cost nothing until drawn.

    kinds: the class of each, see `classes_of`. Raises UserError for files that cannot be used, before any photograph is
    worked on, and for photographs where there is no `project`. force: take latents of another network.
    """
    paths = dict.fromkeys(point for point in points if isinstance(point, Path))
    files = {path: load_latents(path, view.snapshot, force) for path in paths if not is_photograph(path)}
    photographs = list(dict.fromkeys(
        (point, kind) for point, kind in zip(points, kinds, strict=True)
        if isinstance(point, Path) and is_photograph(point)
    ))  # fmt: skip
    for path, _ in photographs:
        if not path.is_file():
            raise UserError(f"there is no photograph {path}")
        if project is None:
            raise UserError(f"{path} is a photograph: project.py finds its latents, and this takes the file it makes")
    found: dict[tuple[Path, int | None], Latents] = {}
    if project is not None and photographs:
        asked = [kind for _, kind in photographs if kind is not None]
        projected = project([path for path, _ in photographs], view, asked)
        found = {photograph: projected[i : i + 1] for i, photograph in enumerate(photographs)}
    return [
        point if isinstance(point, int) else files[point] if point in files else found[point, kind]
        for point, kind in zip(points, kinds, strict=True)
    ]


def in_batches(
    found: Sequence[int | Latents], view: View, kinds: Sequence[int | None], batch: int
) -> Iterator[Latents]:
    """Latents of what `opened` found, in its order, at most `batch` at a time, none in memory before its turn."""
    for are_seeds, group in groupby(zip(found, kinds, strict=True), lambda pair: isinstance(pair[0], int)):
        if are_seeds:
            seeds = [(seed, kind) for seed, kind in group if isinstance(seed, int)]
            for start in range(0, len(seeds), batch):
                part = seeds[start : start + batch]
                yield of_seeds([seed for seed, _ in part], view, [kind for _, kind in part if kind is not None])
        else:
            for latents, _ in group:
                assert isinstance(latents, Latents)
                ready = _with_random_noise(latents, range(len(latents)), view)
                yield from (ready[start : start + batch] for start in range(0, len(ready), batch))


def of_seeds(seeds: Sequence[int], view: View, classes: Sequence[int] = ()) -> Latents:
    """Seeds mapped, and truncated as the view says. classes: one for each, where the network has some."""
    z, c = z_for_seeds(seeds, view.config.z_dim), torch.tensor(classes) if classes else None
    latents = Latents(
        ws=view.renderer.map(z, c, psi=view.psi, cutoff=view.cutoff),
        names=tuple(f"seed{seed:04d}" for seed in seeds), origins=tuple(f"seed {seed}" for seed in seeds),
        z=z, c=c, psi=view.psi,
    )  # fmt: skip
    return _with_random_noise(latents, seeds, view)


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


def _with_random_noise(latents: Latents, seeds: Sequence[int], view: View) -> Latents:
    """With the maps of --noise-mode random, if that is asked for: those of the seed, or of the place in a file."""
    if view.noise_mode != "random":
        return latents
    return replace(latents, noise=tuple(view.renderer.noise_of(seeds)))


def together(parts: Sequence[Latents], view: View) -> Latents:
    """All in one. If some bring noise maps, the others get the network's own, with which they would be drawn anyway."""
    layers = max((len(part.noise) for part in parts), default=0)
    own = view.snapshot.G.own_noise()[:layers]
    return joined([
        part if part.noise or not layers
        else replace(part, noise=tuple(maps.cpu().expand(len(part), -1, -1, -1) for maps in own))
        for part in parts
    ])  # fmt: skip
