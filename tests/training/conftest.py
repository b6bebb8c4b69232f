"""Tiny runs for the tests of training: images of 16x16 in three classes, networks that take milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stylegan.networks.stylegan1 import StyleGAN1Config, StyleGAN1Discriminator
from torch_utils.settings import replaced
from training.config import DataConfig, LossConfig, RunConfig
from training.data.archive import Archive, ArchiveWriter
from training.loop import train
from training.schedule import GrowthSchedule, PerResolution
from training.state import TrainState

Images = Callable[..., Path]


def make_images(path: Path, size: tuple[int, int] = (16, 16), channels: int = 3, count: int = 40) -> Path:
    """An archive of soft random blotches, in classes 0, 1 and 2 by their brightness."""
    rng = np.random.default_rng(0)
    with ArchiveWriter(path) as writer:
        for index in range(count):
            coarse = rng.integers(0, 120, (size[0] // 4, size[1] // 4, channels)) + 60 * (index % 3)
            writer.add(coarse.repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8), index % 3)
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive that most tests train on."""
    return make_images(tmp_path_factory.mktemp("images") / "blotches.zip")


@pytest.fixture
def new_images(tmp_path: Path) -> Images:
    """Makes another archive: new_images(size=(16, 24), channels=1, count=40)."""
    return partial(make_images, tmp_path / "images.zip")


@pytest.fixture
def uneven() -> Callable[[TrainState], None]:
    """Gives the constant of G, which starts as ones, a deviation: where there is none, the norm of the first layer
    enlarges rounding ten thousand times, and that differs from processor to processor.
    """

    def roughen(state: TrainState) -> None:
        constant = state.G.get_parameter("synthesis.blocks.4.0.const")
        constant.data += torch.randn(constant.shape, generator=torch.Generator().manual_seed(0))

    return roughen


def tiny_run(data: Path, **changes: Any) -> RunConfig:
    """A run of 240 images, 4x4 to 16x16, with settings changed by their dotted names, where __ stands for a dot."""
    archive = Archive.open(data)
    base = archive.height // 4, archive.width // 4
    cfg = RunConfig(
        data=DataConfig(path=str(data), content_hash=archive.content_hash),
        total_kimg=0.24,
        model=StyleGAN1Config(
            resolution=16, base=base, channels=archive.channels, z_dim=16, w_dim=16, mapping_dim=16, mapping_layers=2,
            fmap_base=128, fmap_max=16,
        ),
        growth=GrowthSchedule(
            initial=4, final=16, stable_kimg=PerResolution(0.032), fade_kimg=PerResolution(0.048),
            batch=PerResolution(8), lr=PerResolution(0.002),
        ),
        loss=LossConfig(r1_gamma=PerResolution(1.0)),
        ema_kimg=0.1,
        tick_kimg=PerResolution(0.08),
        snap=1,
        precision="fp32",
        device="cpu",
        threads=1,
    )  # fmt: skip
    if changes.get("data__cond"):
        changes["model__num_classes"] = archive.num_classes
    return replaced(cfg, {name.replace("__", "."): value for name, value in changes.items()})


@pytest.fixture(scope="session")
def tiny(images: Path) -> Callable[..., RunConfig]:
    """tiny(data__cond=True, loss__name="hinge", data=other_archive) -> RunConfig"""
    return lambda data=images, **changes: tiny_run(data, **changes)


@pytest.fixture(scope="session")
def straight(tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of `tiny()` from its start to its end without a stop. To read only."""
    run_dir = tmp_path_factory.mktemp("straight")
    train(tiny(), run_dir)
    return run_dir


@pytest.fixture
def memory_for() -> Callable[[StyleGAN1Discriminator, int, int], None]:
    """Gives a discriminator memory for so many images of 16x16 at once, and for any number in its first few calls."""

    def limit(D: StyleGAN1Discriminator, images: int, spared: int = 0) -> None:
        left = [spared]

        def before(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            left[0] -= 1
            if len(arguments[0]) > images and left[0] < 0:
                raise torch.OutOfMemoryError("CUDA out of memory")

        D.from_rgb["16"].register_forward_pre_hook(before)

    return limit
