"""Latents come back from their file as they were, to the network they belong to and to no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.checkpoints.snapshot import Snapshot, fingerprint
from stylegan.latents.latents import SUFFIX, Latents, joined, load_latents, mixed_names, pairs_of, save_latents
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from tests.stylegan.tiny import TINY, snapshot
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError

CONDITIONAL = replace(TINY, num_classes=3)


def latents(snap: Snapshot, count: int = 3, noise: bool = False) -> Latents:
    torch.manual_seed(1)
    z = torch.randn(count, snap.config.z_dim)
    c = torch.arange(count) % 3 if snap.config.num_classes else None
    sizes = snap.config.noise_shapes(16) if noise else []
    return Latents(
        snap.G.latents(z, c), tuple(f"seed{i:04d}" for i in range(count)), tuple(f"seed {i}" for i in range(count)),
        z, c, tuple(torch.randn(count, 1, h, w) for h, w in sizes), psi=1.0,
    )  # fmt: skip


def edited(latents: Latents, snap: Snapshot) -> Latents:
    sizes = snap.config.style_dims()
    return replace(latents, styles=tuple(torch.randn(len(latents), size) for size in sizes))


def same(a: Latents, b: Latents) -> bool:
    tensors = [(a.ws, b.ws), (a.z, b.z), (a.c, b.c), *zip(a.noise, b.noise, strict=True),
               *zip(a.styles, b.styles, strict=True)]  # fmt: skip
    if any((x is None) != (y is None) or (x is not None and not torch.equal(x, y)) for x, y in tensors):
        return False
    return (a.names, a.origins, a.psi) == (b.names, b.origins, b.psi)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"a{SUFFIX}"


@pytest.mark.parametrize("cfg", [TINY, CONDITIONAL, ProGANConfig(resolution=16, z_dim=8, fmap_max=16)])
@pytest.mark.parametrize("noise", [False, True])
def test_what_was_saved_comes_back(cfg, noise, path):
    snap = snapshot(cfg)
    saved = latents(snap, noise=noise and cfg.noise)
    save_latents(path, saved, snap)
    found = load_latents(path, snap)
    assert same(found, saved)


def test_parts_and_the_whole():
    snap = snapshot(CONDITIONAL)
    whole = latents(snap, 5, noise=True)
    assert len(whole) == 5 and same(whole[1:3][1:], whole[2:3])
    assert same(joined([whole[:2], whole[2:]]), whole)
    assert joined([whole[:2], replace(whole[2:], noise=())]).noise == ()
    assert joined([whole]) is whole
    assert joined([whole[:1], replace(whole[1:2], z=None, psi=0.5)]).z is None
    assert joined([whole[:1], replace(whole[1:2], psi=0.5)]).psi is None


def test_edits_of_styles_come_back_and_are_zero_for_parts_without_any(path):
    snap = snapshot()
    saved = edited(latents(snap), snap)
    save_latents(path, saved, snap)
    assert same(load_latents(path, snap), saved)
    whole = joined([saved[:2], replace(saved[2:], styles=())])
    assert torch.equal(whole.styles[3][:2], saved.styles[3][:2]) and not whole.styles[3][2].any()
    assert joined([saved[:2], saved[2:]]).styles[0].equal(saved.styles[0]) and len(whole[1:].styles) == 6
    save_latents(path, replace(saved, styles=saved.styles[:4]), snap)
    with pytest.raises(UserError, match="edits styles of"):
        load_latents(path, snap)


def test_w_plus_is_distinguished_from_w():
    w = latents(snapshot())
    assert not w.plus
    moved = w.ws.clone()
    moved[0, 1] += 1
    assert replace(w, ws=moved).plus


def test_another_network_is_an_error_with_both_fingerprints(path):
    one, other = snapshot(), snapshot(seed=1)
    save_latents(path, latents(one), one)
    with pytest.raises(UserError) as caught:
        load_latents(path, other)
    assert all(word in str(caught.value) for word in (one.fingerprint, other.fingerprint, "--force"))
    assert len(load_latents(path, other, force=True)) == 3


def test_a_network_of_another_shape_is_an_error_even_if_forced(path):
    one, wider = snapshot(), snapshot(replace(TINY, resolution=8))
    save_latents(path, latents(one), one)
    with pytest.raises(UserError, match=r"\[6, 8\].*needs \[4, 8\]"):
        load_latents(path, wider, force=True)


def test_the_fingerprint_is_of_weights_and_config():
    same = replace(snapshot(), kimg=7.0, data="others", stage=Stage(8, 0.5))
    assert snapshot().fingerprint == same.fingerprint == fingerprint(TINY, same.G.state_dict())
    changed = snapshot()
    changed.G.mapping.w_avg += 1e-6
    assert len({s.fingerprint for s in (snapshot(), snapshot(seed=1), snapshot(CONDITIONAL), changed)}) == 4


def test_names_that_are_none(tmp_path):
    with pytest.raises(UserError, match="must end in"):
        save_latents(tmp_path / "a.safetensors", latents(snapshot()), snapshot())


def damage(path: Path, **changes: object) -> None:
    """Tensors (or None: gone) and header fields put in place of what is there."""
    tensors, header = load_tensors(path)
    for name, value in changes.items():
        (tensors if name in tensors else header)[name] = value  # type: ignore[index]
    save_tensors(path, {name: t for name, t in tensors.items() if t is not None}, header)


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": "else"}, "holds no latents"), ({"ws": None}, "cannot be read: 'ws'"),
    ({"ws": torch.zeros(3, 8)}, "different lengths"), ({"names": ["a"]}, "different lengths"),
    ({"names": 5}, "names.*must be"), ({"z": torch.full((3, 8), torch.nan)}, "not finite"),
    ({"ws": torch.full((3, 6, 8), 1e30)}, "numbers up to 1e\\+30"),
    ({"psi": "much"}, "psi.*must be"), ({"names": ["a", "../b", "c"]}, "'../b' cannot be the name of an image"),
])  # fmt: skip
def test_a_file_of_something_else_is_one_clear_line(changes, message, path):
    save_latents(path, latents(snapshot()), snapshot())
    damage(path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_latents(path, snapshot())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_no_safetensors(path):
    with pytest.raises(UserError, match="there is no file|not a complete|is not a safetensors file; give one"):
        load_latents(path, snapshot())
    path.write_bytes(b"abc")
    with pytest.raises(UserError, match="not a complete"):
        load_latents(path, snapshot())


SNAP = snapshot(CONDITIONAL)


@given(data=st.data())
def test_a_damaged_file_is_latents_or_a_user_error(data, damaged, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz{SUFFIX}"
    save_latents(path, edited(latents(SNAP, 2, noise=True), SNAP), SNAP)
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        found = load_latents(path, SNAP, force=True)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert len(found.names) == len(found) and found.ws.shape[1:] == (SNAP.config.num_ws, 8)


def test_names_of_mixed_images_fit_a_file_system():
    found = snapshot()
    ws = torch.zeros(2, found.config.num_ws, found.config.ws_dim)
    latents = Latents(ws, ("\u3042" * 70 + "1", "\u3042" * 70 + "2"), ("photo a", "photo b"))
    names = mixed_names(latents, latents, pairs_of(latents, latents))
    assert len(set(names)) == 4 and all(len(f"{name}.latent.safetensors".encode()) < 200 for name in names)
