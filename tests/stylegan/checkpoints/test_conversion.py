"""Converted models generate the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stylegan.checkpoints.conversion import convert
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot
from stylegan.checkpoints.tensorflow import load_published
from stylegan.networks.config import Stage
from torch_utils.errors import UserError

DATA = Path(__file__).parents[2] / "data"
STYLEGAN, PROGAN = DATA / "stylegan_r32.pkl", DATA / "progan_r32.pkl"


@pytest.mark.parametrize("path", [STYLEGAN, PROGAN])
@pytest.mark.parametrize("with_d", [False, True])
def test_a_converted_file_generates_the_same_image(path: Path, with_d: bool, tmp_path: Path) -> None:
    dest = tmp_path / "converted.safetensors"
    image = convert(path, dest, with_d).image
    again, original = load_snapshot(dest), load_published(path)
    assert torch.equal(again.renderer.render([0], psi=1.0), image)
    assert torch.equal(original.renderer.render([0], psi=1.0), image)
    assert (again.config, again.stage) == (original.config, original.stage)
    assert (again.D is not None) == with_d
    if again.D is not None and original.D is not None:
        assert torch.equal(again.D(image), original.D(image))


def test_a_half_grown_network_keeps_its_stage(models: Path, tmp_path: Path) -> None:
    made = convert(models / "half.safetensors", tmp_path / "copy.safetensors")
    assert made.copy.stage == Stage(8, 0.4) and made.image.shape == (1, 3, 8, 8)
    assert torch.equal(made.image, load_snapshot(models / "half.safetensors").renderer.render([0], psi=1.0))


@pytest.mark.parametrize("dest", ["network.pkl", "missing/network.safetensors"])
def test_a_destination_that_cannot_be_is_refused(dest: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dest"):
        convert(PROGAN, tmp_path / dest)
    assert not list(tmp_path.iterdir())


def test_half_the_size_is_nearly_the_same_image(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    convert(STYLEGAN, whole, with_d=True)
    made = convert(whole, half, with_d=True, half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    assert 0 < made.difference < 0.02
    assert made.copy.D is not None and made.copy.config == load_snapshot(whole).config
    assert torch.equal(convert(half, whole).image, made.image)  # reading gives 32-bit weights, which lose nothing


def test_a_discriminator_that_is_not_there(tmp_path: Path) -> None:
    convert(STYLEGAN, tmp_path / "alone.safetensors")
    with pytest.raises(UserError, match="--with-d"):
        convert(tmp_path / "alone.safetensors", tmp_path / "both.safetensors", with_d=True)


def test_a_discriminator_that_reads_back_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(path: Path) -> Snapshot:
        snapshot = load_snapshot(path)
        assert snapshot.D is not None
        for weight in snapshot.D.parameters():
            weight.mul_(1.5)
        return snapshot

    monkeypatch.setattr("stylegan.checkpoints.conversion.load_snapshot", faulty)
    for half in (False, True):
        with pytest.raises(UserError, match="does not score images as the discriminator of"):
            convert(STYLEGAN, tmp_path / "copy.safetensors", with_d=True, half=half)
    assert not list(tmp_path.iterdir())
