"""From seeds to images: an opened network, how its images are rendered, and what they start from.

Seeds, latent files and photographs become latents of one network in three steps. `Sources.of` finds the class of each
point and opens latent files. `projected` replaces photographs by their latents. `batches` maps seeds, a few at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents, distinct, joined, load_latents
from stylegan.latents.notation import (
    GeneratingOptions,
    NetworkOptions,
    Point,
    RenderingOptions,
    is_photograph,
    require_psi,
)
from stylegan.networks.base import Noise, require_w
from stylegan.networks.config import NoiseMode, Stage
from stylegan.networks.inference import Execution, require_precision, with_kernels
from stylegan.networks.sampling import z_for_seeds
from torch_utils.device import (
    GENERATING,
    keep_freed_memory,
    pick_device,
    require_memory,
    set_gpu_math,
    total_memory,
)
from torch_utils.errors import UserError
from torch_utils.text import Class, counted, listed_classes


@dataclass(frozen=True)
class View:
    """A network, which is evaluated at the stage of its snapshot, and how latents become images.

    psi, cutoff: truncation of seeds, see `sampling.truncate`
    noise_mode: the network's own noise, noise drawn from the seed, or none
    """

    snapshot: Snapshot
    psi: float
    cutoff: int | None = None
    noise_mode: NoiseMode = "const"

    @staticmethod
    def of(
        snapshot: Snapshot, *, psi: float | None = None, cutoff: int | None = None, noise_mode: NoiseMode = "const",
        resolution: int | None = None, alpha: float | None = None,
    ) -> View:  # fmt: skip
        """A view with these settings; None stands for the default of the network.

        Raises UserError for settings that are out of range, or that the network does not support.
        """
        if psi is not None:
            require_psi(psi)
        num_ws = snapshot.config.num_ws
        if cutoff is not None and not 0 <= cutoff <= num_ws:
            raise UserError(
                f"--trunc-cutoff must be from 0 to {num_ws}, the number of layers of this network, got {cutoff}"
            )
        psi = snapshot.G.default_psi if psi is None else psi
        if psi != 1:
            require_w(snapshot.G, f"leave out the truncation of {psi:g}")
        stage = stage_of(snapshot, resolution, alpha)
        return View(snapshot if stage == snapshot.stage else replace(snapshot, stage=stage), psi, cutoff, noise_mode)

    def batch(self, asked: int | None) -> int:
        """How many images to compute at a time: as many as asked for, else what suits the network and the device."""
        return self.snapshot.renderer.batch(asked)

    def render(self, seeds: Sequence[int], c: Tensor | None = None, batch: int | None = None) -> Tensor:
        """Seeds, classes [N] -> images [N,channels,H,W] on the CPU. See `Renderer.render`."""
        renderer = self.snapshot.renderer
        return renderer.render(seeds, c, psi=self.psi, cutoff=self.cutoff, noise=self.noise_mode, batch=batch)

    def draw(self, latents: Latents, batch: int | None = None) -> Tensor:
        """Latents -> images [N,channels,H,W] on the CPU, with the noise maps of the latents, if they have any.

        Raises UserError if these maps have other sizes than those of the network at this resolution, and for random
        noise without maps.
        """
        return self.snapshot.renderer.draw(latents.ws, self._noise(latents), batch, latents.styles)

    def pixels(self, latents: Latents, batch: int | None = None) -> np.ndarray:
        """The same as uint8 [N,H,W,channels]."""
        return self.snapshot.renderer.pixels(latents.ws, self._noise(latents), batch, latents.styles)

    def _noise(self, latents: Latents) -> Noise:
        snapshot, maps = self.snapshot, latents.noise
        wanted = snapshot.config.noise_shapes(snapshot.stage.resolution)
        noise: Noise = "const"
        if self.noise_mode == "none":
            noise = "none"
        elif maps:
            noise = maps
            if [tuple(m.shape[2:]) for m in maps[: len(wanted)]] != wanted:
                raise UserError(f"the noise maps of {latents.origins[0]} do not have the sizes of this network at this "
                                "resolution; leave them out with --noise-mode none")  # fmt: skip
        elif self.noise_mode == "random" and wanted:
            raise UserError("noise_mode='random' needs seeds, but these latents do not come from seeds")
        return noise


def stage_of(snapshot: Snapshot, resolution: int | None = None, alpha: float | None = None) -> Stage:
    """The stage at which to evaluate a network; None stands for its own. Raises UserError for an impossible one."""
    own = snapshot.stage
    resolution = resolution or own.resolution
    trained = [r for r in snapshot.config.stages if r <= own.resolution]
    if resolution not in trained:
        raise UserError(f"--resolution must be one of {', '.join(map(str, trained))} here, got {resolution}")
    if alpha is not None and not 0 <= alpha <= 1:
        raise UserError(f"--alpha must be from 0 to 1, got {alpha:g}")
    grown = own.alpha if resolution == own.resolution else 1.0
    return Stage(resolution, grown if alpha is None else alpha)


def opened(options: NetworkOptions, force: bool = False, batch: int | None = None) -> View:
    """Open a network, with how its images are rendered. From now on, the process keeps freed memory, and a GPU computes
    the same numbers each time.

    force: accept a --delta of another network   batch: images at a time, see `require_room`
    Raises UserError if the network cannot be opened, or does not support an option.
    """
    keep_freed_memory()
    set_gpu_math(GENERATING)
    device = with_kernels(pick_device(options.device))
    if isinstance(options, GeneratingOptions):
        require_precision(options.precision, device)
    snapshot = open_snapshot(options.network, device)
    if isinstance(options, GeneratingOptions):
        snapshot = replace(snapshot, execution=Execution(options.precision))
    require_room(snapshot, batch or 1)
    if not isinstance(options, RenderingOptions):
        return View.of(snapshot)
    if options.delta:
        from stylegan.projection.pivotal_tuning import apply_delta

        snapshot = apply_delta(snapshot, Path(options.delta), force)
    return View.of(
        snapshot, psi=options.trunc, cutoff=options.trunc_cutoff, noise_mode=options.noise_mode,
        resolution=options.resolution, alpha=options.alpha,
    )  # fmt: skip


SEARCH_BYTES = 12  # for each number in a feature map while latents are searched for, measured with faces64 on a CPU


def require_room(snapshot: Snapshot, batch: int, searched: bool = False) -> None:
    """Raises UserError, naming what fits, if so many images at a time do not fit into the memory of this machine.

    Images are drawn one by one (a few side by side), so each takes its latents, its noise and its pixels, as float32
    and as bytes. searched: with gradients through the networks, all images at once
    """
    config, resolution = snapshot.config, snapshot.stage.resolution
    height, width = config.size(resolution)
    noise = sum(h * w for h, w in config.noise_shapes(resolution))
    each = 5 * config.channels * height * width + 4 * (config.num_ws * config.ws_dim + noise)
    if searched:
        costs = [config.generator_cost(resolution)] + [config.discriminator_cost(resolution)] * (snapshot.D is not None)
        each += SEARCH_BYTES * sum(cost.activations for cost in costs)
    require_memory(batch * each, f"--batch {batch}", f"give at most {int(min(total_memory(), batch * each) // each):,}")


# What images start from


Project = Callable[[Sequence[Path], View, Sequence[int]], Latents]
"""Finds the latents of photographs: (paths, view, a class for each if the network has classes) -> one for each."""


# Classes


def class_numbers(
    classes: Sequence[Class], num_classes: int, names: Sequence[str] = (), flag: str = "--class"
) -> list[int]:
    """The number of each class. Names are found whatever their case, and by what is before a comma in them.

    Of classes named by numbers, such as folders 1 and 2, what is typed is the name, as files are called after it.
    Raises UserError if the network does not have these classes, or has classes and none was given. flag: the cure
    """
    if classes and not num_classes:
        raise UserError(f"{flag}: this network is unconditional and has no classes; leave the option out")
    typed = flag.startswith("--")
    numbers = [_numbered(str(c), names, flag) if isinstance(c, str) or (typed and str(c) in names) else c
               for c in classes]  # fmt: skip
    if num_classes and not (numbers and min(numbers) >= 0 and max(numbers) < num_classes):
        every = listed_classes(range(num_classes), names) if names else f"0 to {num_classes - 1}"
        raise UserError(f"this network has {num_classes} classes; choose with {flag}, {every}")
    return numbers


def _numbered(name: str, names: Sequence[str], flag: str) -> int:
    """The class of a name. Raises UserError unless there is one."""
    if not names:
        raise UserError(f"{flag} {name}: the classes of this network have no names; give numbers, as in {flag} 0")
    keys: list[Callable[[str], str]] = [str, str.casefold, lambda text: text.casefold().split(",")[0].strip()]
    found: list[int] = []
    for key in keys:
        found = found or [number for number, known in enumerate(names) if key(known) == key(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{flag} {name}: classes {', '.join(map(str, found))} have that name; give the number of one")
    raise UserError(f"{flag} {name}: no class has that name; there are {listed_classes(range(len(names)), names)}")


def classes_for_seeds(
    classes: Sequence[Class], seeds: Sequence[int], num_classes: int, names: Sequence[str] = ()
) -> Tensor | None:  # fmt: skip
    """The class of each seed [N]; None without classes. If several classes are given, they repeat: seed S gets class S
    of the list, so that a seed is the same image in any list of seeds.

    Raises UserError as `class_numbers` does.
    """
    numbers = class_numbers(classes, num_classes, names)
    return torch.tensor([numbers[seed % len(numbers)] for seed in seeds]) if numbers else None


def classes_of(
    points: Sequence[Point], classes: Sequence[Class], num_classes: int, each: bool = False, flag: str = "--class",
    names: Sequence[str] = (),
) -> list[int | None]:  # fmt: skip
    """The class of each point; None without classes, and for latent files, which contain theirs.

    If several classes are given, they repeat: seed S gets class S of the list, photograph I gets class I. With `each`,
    every seed and every photograph gets the next class, and there must be one for each.

    Raises UserError as `class_numbers` does, and with `each` for a wrong number of classes. flag: for the message
    """
    takers = [point for point in points if takes_class(point)]
    numbers = class_numbers(classes, num_classes, names, flag) if takers or classes else []
    if not numbers:
        return [None] * len(points)
    each = each and len(numbers) > 1
    if each and len(numbers) != len(takers):
        raise UserError(f"{flag}: there are {len(numbers)} classes for {counted(len(takers), 'seed')}, photographs "
                        "included; give one class for all, or one for each")  # fmt: skip
    turn = count()

    def class_of(point: Point) -> int | None:
        if not takes_class(point):
            return None
        return numbers[(point if isinstance(point, int) and not each else next(turn)) % len(numbers)]

    return [class_of(point) for point in points]


def takes_class(point: Point) -> bool:
    """Whether this is a seed or a photograph. Latent files contain their class."""
    return isinstance(point, int) or is_photograph(point)


def in_each_class(
    points: Sequence[Point], classes: Sequence[Class], num_classes: int, names: Sequence[str] = ()
) -> list[tuple[Point, int | None]]:
    """Each point that takes a class with each of the classes, or with all that there are; the others once.

    Raises UserError as `class_numbers` does.
    """
    numbers = class_numbers(classes, num_classes, names) if classes else list(range(num_classes))
    if not numbers:
        raise UserError("--each-class: this network is unconditional and has no classes; leave the option out")
    return [(point, c) for point in points for c in (numbers if takes_class(point) else [None])]


@dataclass(frozen=True)
class Sources:
    """What images are generated from, in order.

    points: seeds, which cost nothing until their turn; latents; and photographs that are not projected yet
    classes: the class of each, see `classes_of`
    suffixes: what is added to the name of each image, where seeds are in several classes
    """

    view: View
    points: tuple[int | Latents | Path, ...]
    classes: tuple[int | None, ...]
    suffixes: tuple[str, ...]

    @staticmethod
    def of(
        points: Sequence[Point], view: View, classes: Sequence[Class] = (), *,
        force: bool = False, each: bool = False, flag: str = "--class", each_class: bool = False,
    ) -> Sources:  # fmt: skip
        """Opens the latent files among `points`. classes, each, flag: see `classes_of`. force: see `load_latents`.

        each_class: every point in every class, see `in_each_class`
        Raises UserError for files and classes that cannot be used.
        """
        num_classes, names = view.snapshot.config.num_classes, view.snapshot.class_names
        suffixes = [""] * len(points)
        if each_class:
            pairs = in_each_class(points, classes, num_classes, names)
            points, found = [point for point, _ in pairs], [c for _, c in pairs]
            suffixes = ["" if c is None else class_suffix(c, names) for c in found]
        else:
            found = classes_of(points, classes, num_classes, each, flag, names)
        paths = dict.fromkeys(point for point in points if isinstance(point, Path))
        files = {path: load_latents(path, view.snapshot, force) for path in paths if not is_photograph(path)}
        for path in paths:
            if path not in files and not path.is_file():
                raise UserError(f"there is no photograph {path}")
        opened = tuple(point if isinstance(point, int) else files.get(point, point) for point in points)
        return Sources(view, opened, tuple(found), tuple(suffixes))

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
    def known_classes(self) -> set[int]:
        """The classes that occur, also those in latent files."""
        stored = [point.known_classes for point in self.points if isinstance(point, Latents)]
        return {c for c in self.classes if c is not None}.union(*stored)

    @property
    def names(self) -> list[str]:
        """A name for each image, without repetition."""
        pairs = zip(self.points, self.suffixes, strict=True)
        return distinct([name + suffix for point, suffix in pairs for name in _names_of(point)])

    def batches(self, batch: int) -> Iterator[Latents]:
        """Yields latents in order, at most `batch` at a time. Seeds are mapped when it is their turn."""
        view, every = self.view, zip(self.points, self.classes, self.suffixes, strict=True)
        for are_seeds, group in groupby(every, lambda one: isinstance(one[0], int)):
            if not are_seeds:
                for latents, _, suffix in group:
                    assert isinstance(latents, Latents)
                    named = replace(latents, names=tuple(name + suffix for name in latents.names))
                    ready = _with_random_noise(named, range(len(latents)), view)
                    yield from (ready[start : start + batch] for start in range(0, len(ready), batch))
                continue
            run = [(seed, c, suffix) for seed, c, suffix in group if isinstance(seed, int)]
            for start in range(0, len(run), batch):
                part = run[start : start + batch]
                seeds, classes = [seed for seed, _, _ in part], [c for _, c, _ in part if c is not None]
                z, c = z_for_seeds(seeds, view.snapshot.config.z_dim), torch.tensor(classes) if classes else None
                ws = view.snapshot.renderer.map(z, c, psi=view.psi, cutoff=view.cutoff)
                names = (_seed_name(seed) + suffix for seed, _, suffix in part)
                origins = (f"seed {seed}" for seed in seeds)
                mapped = Latents(ws, tuple(names), tuple(origins), z, c, psi=view.psi)
                yield _with_random_noise(mapped, seeds, view)

    def latents(self) -> Latents:
        """All latents in one."""
        return together(list(self.batches(max(1, len(self.points)))), self.view)


def gather(
    points: Sequence[Point], view: View, classes: Sequence[Class] = (), *,
    project: Project | None = None, force: bool = False, each: bool = False, flag: str = "--class",
    each_class: bool = False,
) -> Latents:  # fmt: skip
    """The latents of all points, in order, on the CPU. Raises UserError as `Sources.of` and `Sources.projected` do."""
    sources = Sources.of(points, view, classes, force=force, each=each, flag=flag, each_class=each_class)
    return sources.projected(project).latents()


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
    return replace(latents, noise=tuple(view.snapshot.renderer.noise_of(seeds)))


def _names_of(point: int | Latents | Path) -> tuple[str, ...]:
    if isinstance(point, Latents):
        return point.names
    return (_seed_name(point) if isinstance(point, int) else point.stem,)


def class_suffix(number: int, names: Sequence[str]) -> str:
    """What the name of an image of this class ends in, valid in the name of a file: "-dog", "-class3"."""
    name = names[number] if number < len(names) else f"class{number}"
    return "-" + re.sub(r"[^\w.+-]+", "_", name)


def _seed_name(seed: int) -> str:
    return f"seed{seed:04d}"
