"""Photographs stand where seeds stand: in Python, and in the tools that start from pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.render import View
from stylegan.latents.sources import gather
from stylegan.model import Model
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from stylegan.projection.distance import PIXELS
from stylegan.projection.photos import as_pictures, project_photos, projecting
from stylegan.projection.settings import ProjectionSettings
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
FAST = ProjectionSettings(num_steps=4, w_samples=50)


def snapshot(num_classes: int = 0) -> Snapshot:
    torch.manual_seed(0)
    cfg = replace(TINY, num_classes=num_classes)
    return Snapshot(build_generator(cfg).eval().requires_grad_(False), None, cfg, cfg.full, 1.0, "faces")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "eva.png", tmp_path / "tom.png"]
    for seed, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return paths


def test_latents_are_called_after_their_photos(photos):
    snap = snapshot()
    found = project_photos(snap, photos, FAST, PIXELS)
    assert found.names == ("eva", "tom") and found.origins == ("photo eva.png", "photo tom.png")
    assert found.psi == 1 and len(found.noise) == 6 and found.ws.shape == (2, 6, 8)
    short = Model(snap).project(str(photos[1]), num_steps=4)
    assert short.names == ("tom",) and snap.renderer.draw(short.ws, short.noise).shape == (1, 3, 16, 16)


def test_classes_are_counted_round(photos):
    found = project_photos(snapshot(3), photos, FAST, "pixels", c=[2])
    assert found.c is not None and found.c.tolist() == [2, 2]
    with pytest.raises(UserError, match="3 classes"):
        project_photos(snapshot(3), photos, FAST)


def test_a_file_that_is_no_picture_is_named(photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(UserError, match="broken.png"):
        project_photos(snapshot(), [*photos, tmp_path / "broken.png"], FAST)


def test_photos_and_seeds_are_gathered_together(photos, capsys):
    view = View.of(snapshot(), psi=1.0)
    found = gather([photos[0], 5, photos[0]], view, project=projecting(4))
    assert found.names[0] == "eva" and torch.equal(found.ws[0], found.ws[2])
    torch.testing.assert_close(view.draw(found)[1:2], view.render([5]))
    assert "Projecting 1 photo:" in capsys.readouterr().err


def test_target_found_and_difference_stand_side_by_side():
    a, b = torch.full((1, 3, 4, 4), 2.0), torch.zeros(1, 3, 4, 4)
    assert as_pictures(a, b)[0, 0, 0].tolist() == [0] * 4 + [1] * 4 + [0] * 4
    assert as_pictures(b, b)[0, 0, 0, -1] == -1
