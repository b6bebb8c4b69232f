"""What a run says and shows of itself: times, lines, curves and images."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from stylegan.editing.film_files import WebPFrame, read_webp, webp_frame, write_webp
from stylegan.networks.base import Generator
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.sampling import z_for_seeds
from torch_utils.files import atomic_write, write_atomically
from torch_utils.images import MODES, BadImage, decode, enlarge, grid, open_image, to_pil
from torch_utils.text import safe_lines, say
from torch_utils.untrusted import read_plain, regular_here
from training.config import RunConfig
from training.data.dataset import Dataset
from training.runs.plan import TYPICAL, Machine, duration
from training.state import TrainState


class Clock:
    """Where the time goes since the last tick, and since the last save; and all of it, whatever it goes into.

    machine: whose time it is, by which the time that is left is reckoned
    images: worked through in that time; not what the run got on by, of which a resumed one did a part before
    """

    def __init__(self, machine: Machine = TYPICAL) -> None:
        self.machine = machine
        self.saved = self.lapped = time.perf_counter()
        self.restart()

    def restart(self) -> None:
        self.images, self.data_seconds, self.began = 0, 0.0, time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def lap(self) -> float:
        """Seconds since it was last asked, saving and measuring included."""
        before, self.lapped = self.lapped, time.perf_counter()
        return self.lapped - before

    def late(self, state: TrainState, cfg: RunConfig) -> bool:
        """Is the time up that --hours gave the run?"""
        spent = state.seconds + time.perf_counter() - self.lapped
        return cfg.time_limit is not None and spent > cfg.time_limit

    @contextmanager
    def data(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.data_seconds += time.perf_counter() - begin


# What a run says of itself: a bar on a terminal, one line per tick, and the same as data for curves


LOG, STATS = "log.txt", "stats.jsonl"

# Names under which the field's scripts look for them.
STAT_NAMES = {
    "d": "Loss/D/loss", "g": "Loss/G/loss", "real": "Loss/scores/real", "fake": "Loss/scores/fake",
    "sign_real": "Loss/signs/real", "sign_fake": "Loss/signs/fake", "r1": "Loss/r1_penalty", "r2": "Loss/r2_penalty",
    "gp": "Loss/gradient_penalty", "norm_d": "Gradient/D", "norm_g": "Gradient/G",
    "aid_d": "Loss/aid/D", "aid_g": "Loss/aid/G", "aid_r": "Loss/aid/penalty",
}  # fmt: skip


class Report:
    """log.txt, stats.jsonl, tensorboard events (where tensorboard is installed) and the bar. A context manager.

    keep: length in bytes up to which each of the two files is kept: a resumed run forgets what came after its state.
    quiet: say and write nothing, as one of several processes that all know the same
    """

    def __init__(self, run_dir: Path, total_kimg: float, nimg: int, keep: dict[str, int], quiet: bool = False):
        self._files = {} if quiet else {name: _open(run_dir / name, keep.get(name, 0)) for name in (LOG, STATS)}
        self._curves = None if quiet else _tensorboard(run_dir, nimg)
        self._bar = None
        self._speed = ""
        self._said: set[str] = set()
        if sys.stderr.isatty() and not quiet:
            form = "{l_bar}{bar}| {n:.1f}/{total:.0f} kimg [{elapsed}{postfix}]"
            self._bar = tqdm(total=total_kimg, initial=nimg / 1000, bar_format=form, dynamic_ncols=True)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._curves is not None:
            self._curves.close()
        for file in self._files.values():
            file.close()

    def say(self, text: str) -> None:
        """A line on the terminal and in log.txt."""
        if not self._files:
            return
        text = safe_lines(text)  # the bar and the log need that as well
        if self._bar is not None:
            self._bar.write(text)
        else:
            say(text)
        self._files[LOG].write(text + "\n")
        self._files[LOG].flush()

    def say_once(self, text: str) -> None:
        """The same, unless this process has said it already."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def advance(self, nimg: int, resolution: int, alpha: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.n = nimg / 1000
            self._bar.set_postfix_str(f"res {resolution}, alpha {alpha:.2f}{self._speed}", refresh=False)
            self._bar.update(0)

    def tick(self, values: dict[str, Any], nimg: int, eta_phase: float, eta_run: float) -> None:
        """The tick's line, its data, and the speed that the bar shows from now on."""
        self._speed = f", {values['Timing/img_per_sec']:.1f} img/s, ETA {duration(eta_run)}"
        self.stats(values, nimg)
        self.say(status_line(values, eta_phase, eta_run))

    def stats(self, values: dict[str, Any], nimg: int) -> None:
        """One line of stats.jsonl, and a point on each curve."""
        if not self._files:
            return
        self._files[STATS].write(json.dumps(values) + "\n")
        self._files[STATS].flush()
        self.points(values, nimg)

    def points(self, values: Mapping[str, Any], nimg: int) -> None:
        """A point on the curve of each number."""
        if self._curves is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._curves.add_scalar(name, value, nimg)

    def lengths(self) -> dict[str, int]:
        """How long the files are now, on the disk: a state must not know of lines that a power cut takes."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {name: file.tell() for name, file in self._files.items()}


def status_line(values: dict[str, Any], eta_phase: float, eta_run: float) -> str:
    """The tick's line, from its stats."""

    def mean(name: str) -> str:
        return f"{values[STAT_NAMES[name]]:.3g}" if STAT_NAMES[name] in values else "-"

    return (
        f"tick {values['Progress/tick']:<4d} kimg {values['Progress/kimg']:<8.1f} "
        f"res {values['Progress/resolution']:<4d} "
        f"alpha {values['Progress/alpha']:.2f}  {values['Timing/sec_per_kimg']:.1f} s/kimg "
        f"{values['Timing/img_per_sec']:.1f} img/s "
        f"(data {values['Timing/data_percent']:.1f}%)  ETA phase {duration(eta_phase)} run {duration(eta_run)}  "
        f"D {mean('d')} G {mean('g')} sign {mean('sign_real')}/{mean('sign_fake')} r1 {mean('r1')} "
        f"grad {mean('norm_d')}/{mean('norm_g')}  mem {values['Resources/peak_mem_mb']:.0f} MB"
    )


def _open(path: Path, keep: int) -> Any:
    file = open(path, "a", encoding="utf-8", opener=regular_here)  # noqa: SIM115 (a run keeps it open)
    file.truncate(min(keep, os.fstat(file.fileno()).st_size))
    file.seek(0, os.SEEK_END)
    return file


def _tensorboard(run_dir: Path, nimg: int) -> Any:
    """Curves that go on after `nimg` images: what an earlier process drew beyond is hidden. None: no tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run_dir), purge_step=nimg + 1)


# Images of a run: grids of reals and fakes, and their growth as a film


FRAME_MS, LAST_FRAME_MS, MAX_FRAMES, MAX_FRAME_PIXELS = 120, 3000, 150, 2048 * 1024
FILM_QUALITY = {"quality": 80}
BYTES_PER_PIXEL = 0.17  # of faces in a frame of that quality
FIRST = "fakes_init.png"


def seeds_and_classes(model: NetworkConfig) -> tuple[list[int], int, torch.Tensor | None]:
    """Seed of each cell, number of columns, and classes (a column each, as far as they go) of the grid of fakes."""
    columns = min(model.num_classes, 16) if model.num_classes > 1 else 8
    rows = 4 if model.resolution >= 256 or columns > 8 else 6
    seeds = list(range(rows * columns))
    c = torch.tensor([seed % columns % model.num_classes for seed in seeds]) if model.num_classes else None
    return seeds, columns, c


def save_reals(path: Path, data: Dataset, model: NetworkConfig) -> None:
    """The first images of the data, as many as there are fakes."""
    seeds, columns, _ = seeds_and_classes(model)
    images, _ = data.batch(0, len(seeds), *model.size(model.resolution))
    _save(path, grid(images.permute(0, 2, 3, 1).numpy(), columns))


def save_fakes(path: Path, G: Generator, stage: Stage) -> None:
    """What the averaged generator makes of the grid's seeds now, without truncation, enlarged to the final size."""
    seeds, columns, c = seeds_and_classes(G.config)
    renderer = Renderer.of(G, stage)
    pixels = renderer.pixels(renderer.map(z_for_seeds(seeds, G.config.z_dim), c, psi=1.0))
    _save(path, grid(enlarge(pixels, G.config.resolution // stage.resolution), columns))


def save_key(path: Path, model: NetworkConfig, class_names: Sequence[str] = ()) -> None:
    """Which seed (and class) each cell of the fakes is, so that generate.py can make it again."""
    seeds, columns, c = seeds_and_classes(model)
    key = {"columns": columns, "seeds": seeds, "classes": None if c is None else c.tolist(), "trunc": 1.0}
    if class_names:
        key["class_names"] = list(class_names)
    write_atomically(path, f"{json.dumps(key)}\n".encode())


def growth_frame(model: NetworkConfig) -> tuple[int, tuple[int, int]]:
    """By how much the frames of growth.webp are smaller than the grids of fakes, and their (height, width).

    Whole grids above 256x256 are more than a screen can show, and at 1024x1024 a film of them would have a gigabyte.
    """
    seeds, columns, _ = seeds_and_classes(model)
    height, width = model.size(model.resolution)
    height, width, smaller = height * len(seeds) // columns, width * columns, 1
    while height // smaller * (width // smaller) > MAX_FRAME_PIXELS:
        smaller *= 2
    return smaller, (-(-height // smaller), -(-width // smaller))


def about_growth(model: NetworkConfig) -> str:
    """What growth.webp will be, for the plan and the log."""
    smaller, (height, width) = growth_frame(model)
    megabytes = MAX_FRAMES * height * width * BYTES_PER_PIXEL / 1e6
    reduced = f", the grids at 1/{smaller} of their size" if smaller > 1 else ""
    return f"growth.webp, up to {MAX_FRAMES} frames of {width}x{height}{reduced}, about {megabytes:.2g} MB in the end"


def save_growth(run_dir: Path, model: NetworkConfig) -> None:
    """growth.webp: the grid of fakes over the whole run, from the images that are there.

    Of many, every second, fourth, eighth ... is shown, and the last, so that most are those of the film before.
    """
    files = [run_dir / FIRST, *sorted(run_dir.glob("fakes[0-9]*.png"))]
    step = 1
    while -(-len(files) // step) >= MAX_FRAMES:
        step *= 2
    shown = files[::step] + files[-1:] * ((len(files) - 1) % step > 0)
    save_film(run_dir / "growth.webp", shown, *growth_frame(model))


def save_film(path: Path, files: Sequence[Path], smaller: int, size: tuple[int, int]) -> None:
    """The images, one after the other, in the memory of one; the last stays for longer. None at all leaves no file.

    smaller: by how much each is reduced   size: (height, width) after that
    What the film before has of the same images is taken from there. Damaged images and those of another size are left
    out: a film without them is better than a run that cannot go on.
    """
    known = {frame.key: frame for frame in read_webp(path) if (frame.height, frame.width) == size}
    frames = (frame for file in files if (frame := _frame(file, smaller, size, known)) is not None)
    first, rest = next(frames, None), frames
    if first is None:
        return
    with atomic_write(path) as scratch:
        write_webp(scratch, _timed(chain([first], rest)))


def _timed(frames: Iterable[WebPFrame]) -> Iterator[tuple[WebPFrame, int]]:
    """With the milliseconds of each."""
    before: WebPFrame | None = None
    for frame in frames:
        if before is not None:
            yield before, FRAME_MS
        before = frame
    if before is not None:
        yield before, LAST_FRAME_MS


def _frame(
    file: Path, smaller: int, size: tuple[int, int], known: Mapping[bytes, WebPFrame]
) -> WebPFrame | None:  # fmt: skip
    """RGB, reduced by averaging; None if the image is damaged or of another size. known: frames by the hash of files"""
    try:
        content = read_plain(file, "picture_mib")
        key = hashlib.sha256(content).digest()[:16]
        if key in known:
            return known[key]
        image = open_image(content)
        if (-(-image.height // smaller), -(-image.width // smaller)) != size:
            return None
        decode(image)
    except (OSError, BadImage):
        return None
    plain = image if image.mode in MODES.values() else image.convert("RGB")
    return webp_frame(np.asarray(plain.reduce(smaller).convert("RGB")), FILM_QUALITY, key)


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_write(path) as scratch:
        to_pil(pixels).save(scratch, "PNG")
