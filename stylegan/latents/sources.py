"""Seeds, latent files and photographs as latents of one network: where every tool that generates images begins.

Sources are gathered in three steps. `Sources.of` finds the class of each point and opens latent files. `projected`
replaces photographs by their latents. `batches` maps seeds, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path

import torch
from torch import Tensor

from stylegan.latents.latents import Latents, distinct, joined, load_latents
from stylegan.latents.notation import Point, is_photograph
from stylegan.latents.render import View
from stylegan.networks.sampling import z_for_seeds
from torch_utils.errors import UserError
from torch_utils.text import counted

Project = Callable[[Sequence[Path], View, Sequence[int]], Latents]
"""Finds the latents of photographs: (paths, view, a class for each if the network has classes) -> one for each."""


# Classes


def require_classes(classes: Sequence[int], num_classes: int, flag: str = "--class") -> None:
    """Raises UserError if the network does not have these classes, or has classes and none was given. flag: the cure"""
    if classes and not num_classes:
        raise UserError(f"{flag}: this network is unconditional and has no classes; leave the option out")
    if num_classes and not (classes and max(classes) < num_classes):
        raise UserError(f"this network has {num_classes} classes; choose with {flag}, 0 to {num_classes - 1}")


def classes_for_seeds(classes: Sequence[int], seeds: Sequence[int], num_classes: int) -> Tensor | None:
    """The class of each seed [N]; None without classes. If several classes are given, they repeat: seed S gets class S
    of the list, so that a seed is the same image in any list of seeds.

    Raises UserError as `require_classes` does.
    """
    require_classes(classes, num_classes)
    return torch.tensor([classes[seed % len(classes)] for seed in seeds]) if classes else None


def classes_of(
    points: Sequence[Point], classes: Sequence[int], num_classes: int, each: bool = False, flag: str = "--class"
) -> list[int | None]:
    """The class of each point; None without classes, and for latent files, which contain theirs.

    If several classes are given, they repeat: seed S gets class S of the list, photograph I gets class I. With `each`,
    every seed and every photograph gets the next class, and there must be one for each.

    Raises UserError as `require_classes` does, and with `each` for a wrong number of classes. flag: for the message
    """
    takers = [point for point in points if isinstance(point, int) or is_photograph(point)]
    if takers or classes:
        require_classes(classes, num_classes, flag)
    if not classes:
        return [None] * len(points)
    each = each and len(classes) > 1
    if each and len(classes) != len(takers):
        raise UserError(f"{flag}: there are {len(classes)} classes for {counted(len(takers), 'seed')}, photographs "
                        "included; give one class for all, or one for each")  # fmt: skip
    turn = count()

    def class_of(point: Point) -> int | None:
        if isinstance(point, Path) and not is_photograph(point):
            return None
        return classes[(point if isinstance(point, int) and not each else next(turn)) % len(classes)]

    return [class_of(point) for point in points]


# Latents


@dataclass(frozen=True)
class Sources:
    """What images are generated from, in order.

    points: seeds, which cost nothing until their turn; latents; and photographs that are not projected yet
    classes: the class of each, see `classes_of`
    """

    view: View
    points: tuple[int | Latents | Path, ...]
    classes: tuple[int | None, ...]

    @staticmethod
    def of(
        points: Sequence[Point], view: View, classes: Sequence[int] = (), *,
        force: bool = False, each: bool = False, flag: str = "--class",
    ) -> Sources:  # fmt: skip
        """Opens the latent files among `points`. classes, each, flag: see `classes_of`. force: see `load_latents`.

        Raises UserError for files and classes that cannot be used.
        """
        found = classes_of(points, classes, view.config.num_classes, each, flag)
        paths = dict.fromkeys(point for point in points if isinstance(point, Path))
        files = {path: load_latents(path, view.snapshot, force) for path in paths if not is_photograph(path)}
        for path in paths:
            if path not in files and not path.is_file():
                raise UserError(f"there is no photograph {path}")
        opened = tuple(point if isinstance(point, int) else files.get(point, point) for point in points)
        return Sources(view, opened, tuple(found))

    def projected(self, project: Project | None) -> Sources:
        """With latents instead of photographs: each is projected once for each class. Raises UserError as it does."""
        pairs = list(zip(self.points, self.classes, strict=True))
        photos = list(dict.fromkeys((point, c) for point, c in pairs if isinstance(point, Path)))
        if not photos:
            return self
        if project is None:
            raise UserError(f"{photos[0][0]} is a photograph: find its latents with project.py, and give their file")
        latents = project([path for path, _ in photos], self.view, [c for _, c in photos if c is not None])
        found = {photo: latents[i : i + 1] for i, photo in enumerate(photos)}
        return replace(self, points=tuple(found[point, c] if isinstance(point, Path) else point for point, c in pairs))

    @property
    def names(self) -> list[str]:
        """A name for each image, without repetition."""
        return distinct([name for point in self.points for name in _names_of(point)])

    def batches(self, batch: int) -> Iterator[Latents]:
        """Yields latents in order, at most `batch` at a time. Seeds are mapped when it is their turn."""
        pairs = zip(self.points, self.classes, strict=True)
        for are_seeds, group in groupby(pairs, lambda pair: isinstance(pair[0], int)):
            if are_seeds:
                seeds = [(seed, c) for seed, c in group if isinstance(seed, int)]
                for start in range(0, len(seeds), batch):
                    part = seeds[start : start + batch]
                    yield of_seeds([seed for seed, _ in part], self.view, [c for _, c in part if c is not None])
            else:
                for latents, _ in group:
                    assert isinstance(latents, Latents)
                    ready = _with_random_noise(latents, range(len(latents)), self.view)
                    yield from (ready[start : start + batch] for start in range(0, len(ready), batch))

    def latents(self) -> Latents:
        """All latents in one."""
        return together(list(self.batches(max(1, len(self.points)))), self.view)


def gather(
    points: Sequence[Point], view: View, classes: Sequence[int] = (), *,
    project: Project | None = None, force: bool = False, each: bool = False, flag: str = "--class",
) -> Latents:  # fmt: skip
    """The latents of all points, in order, on the CPU. Raises UserError as `Sources.of` and `Sources.projected` do."""
    return Sources.of(points, view, classes, force=force, each=each, flag=flag).projected(project).latents()


def of_seeds(seeds: Sequence[int], view: View, classes: Sequence[int] = ()) -> Latents:
    """Maps seeds, with the truncation of the view. classes: one for each, if the network has classes."""
    z, c = z_for_seeds(seeds, view.config.z_dim), torch.tensor(classes) if classes else None
    latents = Latents(
        ws=view.renderer.map(z, c, psi=view.psi, cutoff=view.cutoff),
        names=tuple(map(_seed_name, seeds)), origins=tuple(f"seed {seed}" for seed in seeds), z=z, c=c, psi=view.psi,
    )  # fmt: skip
    return _with_random_noise(latents, seeds, view)


def together(parts: Sequence[Latents], view: View) -> Latents:
    """Concatenates latents. If some have noise maps, the others get those of the network, as they would without."""
    layers = max((len(part.noise) for part in parts), default=0)
    own = view.snapshot.G.own_noise()[:layers]
    return joined([
        part if part.noise or not layers
        else replace(part, noise=tuple(maps.cpu().expand(len(part), -1, -1, -1) for maps in own))
        for part in parts
    ])  # fmt: skip


def _with_random_noise(latents: Latents, seeds: Sequence[int], view: View) -> Latents:
    """With noise maps drawn from `seeds`, if the view asks for random noise. Latents of a file get their positions."""
    if view.noise_mode != "random":
        return latents
    return replace(latents, noise=tuple(view.renderer.noise_of(seeds)))


def _names_of(point: int | Latents | Path) -> tuple[str, ...]:
    if isinstance(point, Latents):
        return point.names
    return (_seed_name(point) if isinstance(point, int) else point.stem,)


def _seed_name(seed: int) -> str:
    return f"seed{seed:04d}"
