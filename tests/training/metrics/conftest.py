"""What the tests of metrics share: the published tools' own numbers, a tiny network, and features that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from training.data.archive import Archive, ArchiveWriter
from training.metrics.context import Context
from training.metrics.evaluate import evaluate
from training.metrics.feature_store import Compute

FIXTURES = Path(__file__).parents[2] / "data" / "metrics_quality.npz"
TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


@pytest.fixture(scope="session")
def published() -> Callable[[str], Tensor]:
    """published("fid/value"): an array of the fixtures, inputs and outputs of the published code."""
    arrays = np.load(FIXTURES)
    return lambda name: torch.from_numpy(np.asarray(arrays[name]))


def tiny_snapshot(cfg: StyleGAN1Config = TINY, alpha: float = 1.0) -> Snapshot:
    """A network of random weights that makes images with some contrast, noise included."""
    torch.manual_seed(0)
    G, D = (build(cfg).eval().requires_grad_(False) for build in (build_generator, build_discriminator))
    for name, value in G.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            value += 0.3 * torch.randn_like(value)
    return Snapshot(G=G, D=D, config=cfg, stage=Stage(cfg.resolution, alpha), kimg=1.0, data="blotches")


@pytest.fixture
def tiny_network() -> Callable[..., Snapshot]:
    """tiny_network(num_classes=3, alpha=0.5) -> Snapshot of 16x16 RGB images"""
    return lambda alpha=1.0, **changes: tiny_snapshot(replace(TINY, **changes), alpha)


@pytest.fixture
def without_w() -> Callable[[], Snapshot]:
    """without_w() -> Snapshot of a ProGAN of 16x16 RGB images"""

    def made() -> Snapshot:
        cfg = ProGANConfig(resolution=16, z_dim=8, fmap_max=16)
        G = build_generator(cfg).eval().requires_grad_(False)
        return Snapshot(G=G, D=None, config=cfg, stage=cfg.full, kimg=1.0, data="x")

    return made


@pytest.fixture
def snapshot() -> Snapshot:
    return tiny_snapshot()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a feature network of our own: the mean colours of the four quarters, [N,12]."""
    (tmp_path / "corners.py").write_text(
        "import torch.nn.functional as F\n"
        "def embed(images):\n"
        "    return F.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)\n"
        "def broken(images):\n"
        "    return embed(images) / (images.flatten(1).double().mean(dim=1, keepdim=True) != 0)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "corners", raising=False)
    return "corners:embed"


@pytest.fixture(scope="session")
def tinted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images of noise, bright or dark, warm or cold."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "noise.zip"
    with ArchiveWriter(path) as writer:
        for i in range(200):
            tint = np.array([40 * (i % 2), 0, 40 - 40 * (i % 2)]) + 60 * (i // 2 % 2)
            writer.add((rng.integers(0, 100, (16, 16, 3)) + tint).astype(np.uint8))
    return path


@pytest.fixture
def context(tinted, tiny_network, corners) -> Context:
    """A tiny network and those images, seen through `corners`."""
    return Context(tiny_network(), Archive.open(tinted), corners, compute=Compute(torch.device("cpu"), quiet=True))


@pytest.fixture
def measured() -> Callable[[str, Context], dict[str, float]]:
    """measured("ppl20_wend", context): its numbers, all of which are numbers."""

    def measure(name: str, context: Context) -> dict[str, float]:
        faults: dict[str, str] = {}
        found = list(evaluate([name], context, faults.__setitem__))
        assert not faults
        assert all(np.isfinite([*found[0].results.values()]))
        return found[0].results

    return measure
