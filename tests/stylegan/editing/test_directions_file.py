"""Directions come back from their file as they were, to the network they belong to and to no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.directions import Directions, load_directions, save_directions, together
from stylegan.latents.notation import DIRECTIONS
from stylegan.networks.config import Stage
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)


def snapshot(cfg: StyleGAN1Config = TINY, seed: int = 0) -> Snapshot:
    torch.manual_seed(seed)
    G = build_generator(cfg).eval().requires_grad_(False)
    return Snapshot(G=G, D=None, config=cfg, stage=Stage(16), kimg=1.0, data="faces")


def some(rows: int = 1, styles: bool = False, count: int = 3) -> Directions:
    torch.manual_seed(1)
    sizes = TINY.style_dims() if styles else []
    return Directions(
        torch.randn(count, rows, 8), tuple("abcdef"[:count]), ((0, 1), (2,), (0, 5))[:count], torch.rand(count),
        "by chance", torch.tensor([0.9, 0.6, torch.nan])[:count], torch.tensor([0.5, 0.25, torch.nan])[:count],
        tuple(torch.randn(count, size) for size in sizes),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"a{DIRECTIONS}"


@pytest.mark.parametrize(("rows", "styles"), [(1, False), (6, False), (1, True)])
def test_what_was_saved_comes_back(rows, styles, path):
    snap, saved = snapshot(), some(rows, styles)
    save_directions(path, saved, snap)
    for found in (load_directions(path, snap), load_directions(path, None)):
        assert (found.names, found.layers, found.method) == (saved.names, saved.layers, saved.method)
        pairs = [(found.vectors, saved.vectors), (found.scales, saved.scales), *zip(found.styles, saved.styles)]
        assert all(torch.equal(a, b) for a, b in pairs) and len(found.styles) == len(saved.styles)
        torch.testing.assert_close(found.accuracies, saved.accuracies, equal_nan=True)
        torch.testing.assert_close(found.shares, saved.shares, equal_nan=True)


def test_one_by_name_or_number():
    found = some()
    assert found.named("b").names == found.named("1").names == found.named(1).names == ("b",)
    assert torch.equal(found.named("c").vectors, found.vectors[2:])
    for wrong in ("d", "3", "-1", ""):
        with pytest.raises(UserError, match="there are a, b, c, or numbers from 0 to 2"):
            found.named(wrong)
    again = together([found[:1], found[1:]])
    assert again.names == found.names and torch.equal(again.vectors, found.vectors) and again.layers == found.layers


def test_another_network_is_an_error_with_both_fingerprints(path):
    one, other = snapshot(), snapshot(seed=1)
    save_directions(path, some(), one)
    with pytest.raises(UserError) as caught:
        load_directions(path, other)
    assert all(word in str(caught.value) for word in (one.fingerprint, other.fingerprint, "--force"))
    assert len(load_directions(path, other, force=True)) == 3


@pytest.mark.parametrize(("cfg", "rows", "styles", "says"), [
    (replace(TINY, resolution=8), 1, False, "moves layer 5: this network has 4 layers"),
    (replace(TINY, resolution=8), 6, False, r"\[6, 8\] numbers.*\[4, 8\]"),
    (replace(TINY, w_dim=16), 1, False, r"\[1, 8\] numbers.*\[1, 16\]"),
    (replace(TINY, fmap_max=8), 1, True, "other sizes"),
])  # fmt: skip
def test_a_network_of_another_shape_is_an_error_even_if_forced(path, cfg, rows, styles, says):
    save_directions(path, some(rows, styles), snapshot())
    with pytest.raises(UserError, match=says):
        load_directions(path, snapshot(cfg), force=True)


@pytest.mark.parametrize(("changes", "says"), [
    ({"format": "else"}, "holds no directions"), ({"vectors": None}, "cannot be read: 'vectors'"),
    ({"vectors": torch.zeros(3, 8)}, "different lengths"), ({"names": ["a"]}, "different lengths"),
    ({"layers": [[0], [1], ["x"]]}, "layers.*must be"), ({"layers": [[0], [1], [-1]]}, "below 0"),
    ({"scales": torch.full((3,), torch.inf)}, "not finite"), ({"names": ["a", "b", "\n"]}, "no name"),
])  # fmt: skip
def test_a_file_of_something_else_is_one_clear_line(changes, says, path):
    save_directions(path, some(), snapshot())
    tensors, header = load_tensors(path)
    for name, value in changes.items():
        (tensors if name in tensors else header)[name] = value
    save_tensors(path, {name: t for name, t in tensors.items() if t is not None}, header)
    with pytest.raises(UserError, match=says) as caught:
        load_directions(path, snapshot())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_files_that_are_none(path):
    with pytest.raises(UserError, match="must end in"):
        save_directions(path.with_name("a.safetensors"), some(), snapshot())
    with pytest.raises(UserError, match="there is no file"):
        load_directions(path, None)


SNAP = snapshot()


@given(data=st.data())
def test_a_damaged_file_is_directions_or_a_user_error(data, damaged, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz{DIRECTIONS}"
    save_directions(path, some(styles=True), SNAP)
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        found = load_directions(path, SNAP, force=True)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert len(found.names) == len(found.vectors)
        assert all(0 <= layer < TINY.num_ws for layers in found.layers for layer in layers)
