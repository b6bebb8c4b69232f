"""Pictures of a run: grids of reals and fakes, and their growth as a film."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stylegan.config import ModelConfig
from stylegan.generator import Generator
from torch_utils.images import enlarge, grid, to_pil, to_uint8
from training.dataset import Dataset

FRAME_MS, LAST_FRAME_MS, MAX_FRAMES = 120, 3000, 150
FIRST = "fakes_init.png"


def seeds_and_classes(model: ModelConfig) -> tuple[list[int], int, torch.Tensor | None]:
    """Seed of each cell, number of columns, and classes (a column each, as far as they go) of the grid of fakes."""
    columns = min(model.num_classes, 16) if model.num_classes > 1 else 8
    rows = 4 if model.resolution >= 256 or columns > 8 else 6
    seeds = list(range(rows * columns))
    c = torch.tensor([seed % columns % model.num_classes for seed in seeds]) if model.num_classes else None
    return seeds, columns, c


def save_reals(path: Path, data: Dataset, model: ModelConfig) -> None:
    """The first pictures of the data, as many as there are fakes."""
    seeds, columns, _ = seeds_and_classes(model)
    images, _ = data.batch(0, len(seeds), *model.size(model.resolution))
    _save(path, grid(images.permute(0, 2, 3, 1).numpy(), columns))


def save_fakes(path: Path, G: Generator, resolution: int, alpha: float) -> None:
    """What the averaged generator makes of the grid's seeds now, without truncation, enlarged to the final size."""
    seeds, columns, c = seeds_and_classes(G.cfg)
    G.synthesis.grown = (resolution, alpha)
    pixels = to_uint8(G.render(seeds, psi=1.0, c=c))
    _save(path, grid(enlarge(pixels, G.cfg.resolution // resolution), columns))


def save_key(path: Path, model: ModelConfig) -> None:
    """Which seed (and class) each cell of the fakes is, so that generate.py can make it again."""
    seeds, columns, c = seeds_and_classes(model)
    key = {"columns": columns, "seeds": seeds, "classes": None if c is None else c.tolist(), "trunc": 1.0}
    path.write_text(json.dumps(key) + "\n")


def save_growth(run_dir: Path) -> None:
    """growth.webp: the grid of fakes over the whole run, from the pictures that are there."""
    files = [run_dir / FIRST, *sorted(run_dir.glob("fakes[0-9]*.png"))]
    save_film(
        run_dir / "growth.webp", [files[i] for i in np.unique(np.linspace(0, len(files) - 1, MAX_FRAMES).astype(int))]
    )


def save_film(path: Path, files: list[Path]) -> None:
    """The pictures that are whole, one after the other; the last stays for longer. None at all leaves no file."""
    frames = [frame for frame in map(_opened, files) if frame]
    if not frames:
        return
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    scratch = path.with_name(f".{path.name}.tmp")
    frames[0].save(scratch, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80)
    scratch.replace(path)


def _opened(file: Path) -> Image.Image | None:
    """A picture, None if it is damaged: a film without it is better than a run that cannot go on."""
    try:
        return Image.open(file).convert("RGB")
    except (OSError, SyntaxError):  # the latter is Pillow's word for a broken PNG
        return None


def _save(path: Path, pixels: np.ndarray) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    to_pil(pixels).save(scratch, "PNG")
    scratch.replace(path)
