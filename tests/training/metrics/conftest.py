"""What the tests of metrics share: the published tools' own numbers, a tiny network, and features that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.config import ModelConfig
from stylegan.networks import build_generator
from stylegan.snapshot import Snapshot

FIXTURES = Path(__file__).parents[2] / "data" / "metrics_quality.npz"
TINY = ModelConfig(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


@pytest.fixture(scope="session")
def published() -> Callable[[str], Tensor]:
    """published("fid/value"): an array of the fixtures, inputs and outputs of the published code."""
    arrays = np.load(FIXTURES)
    return lambda name: torch.from_numpy(np.asarray(arrays[name]))


@pytest.fixture
def snapshot() -> Snapshot:
    torch.manual_seed(0)
    G = build_generator(TINY).eval().requires_grad_(False)
    return Snapshot(G=G, D=None, config=TINY, resolution=16, alpha=1.0, kimg=1.0, data="blotches")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a feature network of our own: the mean colours of the four quarters, [N,12]."""
    (tmp_path / "corners.py").write_text(
        "import torch.nn.functional as F\n"
        "def embed(pictures):\n"
        "    return F.adaptive_avg_pool2d(pictures.double() / 255, 2).flatten(1)\n"
        "def broken(pictures):\n"
        "    return embed(pictures) / (pictures.flatten(1).double().mean(dim=1, keepdim=True) != 0)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "corners", raising=False)
    return "corners:embed"
