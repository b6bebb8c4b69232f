"""Converted models generate the same images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan.checkpoints.conversion import blend, convert
from stylegan.checkpoints.snapshot import Snapshot, load_snapshot, store
from stylegan.checkpoints.tensorflow import load_published
from stylegan.networks.config import Stage
from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
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


# Blends


def two(tmp_path: Path, **changes: object) -> tuple[Path, Path, StyleGAN1Config]:
    """Snapshots of two networks with the same config, but for `changes` in the second."""
    config = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=1, mapping_dim=8, fmap_base=64, fmap_max=8)
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path, own in zip(paths, (config, replace(config, **changes)), strict=True):
        G = build_generator(own)
        for parameter in G.parameters():
            parameter.data += torch.rand_like(parameter)
        store(path, Snapshot(G, build_discriminator(own), own, own.full, 1.0, path.stem))
    return *paths, config


@pytest.mark.parametrize("layer", [1, 2, 3, 5])
def test_a_blend_has_the_first_layers_of_one_network_and_the_last_of_another(layer: int, tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    made = blend(a, b, layer, tmp_path / "blend.safetensors").copy
    A, B = load_snapshot(a).G, load_snapshot(b).G
    assert made.D is None and made.data == f"a up to layer {layer - 1}, b from {layer}"
    assert torch.equal(made.G.mapping.layers[0].weight, A.mapping.layers[0].weight)
    blocks = [[k for block in G.synthesis.blocks.values() for k in block] for G in (made.G, A, B)]
    for index, (ours, first, second) in enumerate(zip(*blocks, strict=True)):
        source = first if index < layer else second
        assert all(torch.equal(x, y) for x, y in zip(ours.parameters(), source.parameters(), strict=True))
        assert torch.equal(ours.noise, source.noise)
    for index, resolution in enumerate(("4", "8", "16")):
        source = A if 2 * index + 1 < layer else B
        assert torch.equal(made.G.synthesis.to_rgb[resolution].weight, source.synthesis.to_rgb[resolution].weight)


def test_a_blend_says_what_is_of_whom_and_whether_they_are_related(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    child = load_snapshot(a)
    for parameter in child.G.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    store(tmp_path / "child.safetensors", replace(child, kimg=2.0, data="child"))
    notes = blend(a, tmp_path / "child.safetensors", 3, tmp_path / "blend.safetensors").notes
    assert notes == (
        f"From {a}: the mapping network and layers 0-2 (4x4 to 8x8)",
        f"From {tmp_path / 'child.safetensors'}: layers 3-5 (8x8 to 16x16)",
    )
    assert "layer 0 (4x4)" in blend(a, b, 1, tmp_path / "blend.safetensors").notes[0]
    stranger = load_snapshot(b)
    stranger.G.synthesis.to_rgb["16"].weight.data.zero_()  # the same image whatever the w
    store(b, stranger)
    (*_, warning) = blend(a, b, 3, tmp_path / "blend.safetensors").notes
    assert "has little in common (a correlation of 0.00)" in warning


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resolution": 8}, "resolution"),
        ({"channels": 1}, "channels"),
        ({"fmap_max": 4}, "blocks"),
        ({"w_dim": 12}, "w_dim"),
        ({"instance_norm": False}, "instance_norm"),
    ],
)
def test_networks_that_do_not_fit_are_not_blended(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    a, b, _ = two(tmp_path, **changes)
    with pytest.raises(UserError, match=f"differ in .*{reason}.*; blend networks"):
        blend(a, b, 2, tmp_path / "blend.safetensors")
    assert not (tmp_path / "blend.safetensors").exists()


def test_mapping_networks_and_classes_may_differ(tmp_path: Path) -> None:
    a, b, _ = two(tmp_path, mapping_layers=2, num_classes=3, z_dim=6)
    made = blend(a, b, 2, tmp_path / "blend.safetensors")
    assert made.copy.config.num_classes == 0 and made.image.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("layer", [0, 6, 99])
def test_a_blend_needs_layers_of_both(layer: int, tmp_path: Path) -> None:
    a, b, _ = two(tmp_path)
    with pytest.raises(UserError, match="--from-layer must be from 1 to 5"):
        blend(a, b, layer, tmp_path / "blend.safetensors")


def test_dcgan_is_not_blended(tmp_path: Path) -> None:
    config = DCGANConfig(resolution=16, fmap_base=64, fmap_max=8)
    path = tmp_path / "dcgan.safetensors"
    store(path, Snapshot(build_generator(config), None, config, config.full, 1.0, "x"))
    with pytest.raises(UserError, match="layers of such networks cannot be exchanged"):
        blend(path, path, 1, tmp_path / "blend.safetensors")
