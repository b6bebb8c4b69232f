"""Where the time of a run goes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from stylegan.networks.base import Generator
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.inference import Renderer
from torch_utils.files import atomic_write, write_atomically
from torch_utils.images import enlarge, grid, to_pil, to_uint8
from torch_utils.text import safe_lines, say
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


class _Curves(Protocol):
    def add_scalar(self, tag: str, value: float, step: int) -> None: ...
    def close(self) -> None: ...


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
    if path.exists():
        os.truncate(path, min(keep, path.stat().st_size))
    return path.open("a", encoding="utf-8")


def _tensorboard(run_dir: Path, nimg: int) -> _Curves | None:
    """Curves that go on after `nimg` images: what an earlier process drew beyond is hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: _Curves = SummaryWriter(str(run_dir), purge_step=nimg + 1)
    return writer


# Images of a run: grids of reals and fakes, and their growth as a film


FRAME_MS, LAST_FRAME_MS, MAX_FRAMES = 120, 3000, 150
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
    pixels = to_uint8(Renderer.of(G, stage).render(seeds, c, psi=1.0))
    _save(path, grid(enlarge(pixels, G.config.resolution // stage.resolution), columns))


def save_key(path: Path, model: NetworkConfig) -> None:
    """Which seed (and class) each cell of the fakes is, so that generate.py can make it again."""
    seeds, columns, c = seeds_and_classes(model)
    key = {"columns": columns, "seeds": seeds, "classes": None if c is None else c.tolist(), "trunc": 1.0}
    write_atomically(path, f"{json.dumps(key)}\n".encode())


def save_growth(run_dir: Path) -> None:
    """growth.webp: the grid of fakes over the whole run, from the images that are there."""
    files = [run_dir / FIRST, *sorted(run_dir.glob("fakes[0-9]*.png"))]
    save_film(
        run_dir / "growth.webp", [files[i] for i in np.unique(np.linspace(0, len(files) - 1, MAX_FRAMES).astype(int))]
    )


def save_film(path: Path, files: list[Path]) -> None:
    """The images that are whole, one after the other; the last stays for longer. None at all leaves no file."""
    frames = [frame for frame in map(_opened, files) if frame]
    if not frames:
        return
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    with atomic_write(path) as scratch:
        frames[0].save(scratch, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80)


def _opened(file: Path) -> Image.Image | None:
    """An image, None if it is damaged: a film without it is better than a run that cannot go on."""
    try:
        return Image.open(file).convert("RGB")
    except (OSError, SyntaxError):  # the latter is Pillow's word for a broken PNG
        return None


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_write(path) as scratch:
        to_pil(pixels).save(scratch, "PNG")
