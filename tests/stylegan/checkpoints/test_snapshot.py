"""A snapshot file gives back what was put in, and anything else is refused in one line."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan.checkpoints import snapshot as snapshots
from stylegan.checkpoints.snapshot import FORMAT, Snapshot, fingerprint, load_snapshot, store
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.sampling import z_for_seeds
from stylegan.networks.stylegan1 import StyleGAN1Config
from tests.stylegan.tiny import TINY, snapshot
from torch_utils.checkpoint import save_tensors
from torch_utils.errors import UserError

HALF = Stage(8, 0.4)


def save(path: Path, cfg: StyleGAN1Config = TINY, with_d: bool = False, stage: Stage = HALF) -> Path:
    torch.manual_seed(0)
    G, D = build_generator(cfg), build_discriminator(cfg) if with_d else None
    store(path, Snapshot(G, D, cfg, stage, 12.5, "faces"))
    return path


@pytest.mark.parametrize(
    "cfg",
    [TINY, replace(TINY, base=(4, 6), channels=1, num_classes=3), ProGANConfig(resolution=16, z_dim=8, fmap_max=16)],
)
@pytest.mark.parametrize("with_d", [False, True])
def test_what_was_saved_comes_back(cfg, with_d, tmp_path):
    path = save(tmp_path / "x.safetensors", cfg, with_d)
    torch.manual_seed(0)
    G, D = build_generator(cfg), build_discriminator(cfg) if with_d else None
    random_before = torch.get_rng_state()
    snap = load_snapshot(path)
    assert torch.equal(torch.get_rng_state(), random_before)
    assert (snap.config, snap.stage, snap.kimg, snap.data) == (cfg, Stage(8, 0.4), 12.5, "faces")
    assert type(snap.config) is type(cfg) and snap.renderer.stage == snap.stage
    assert not snap.G.training
    assert (snap.D is not None) == with_d
    for mine, theirs in [(snap.G, G), *([(snap.D, D)] if with_d else [])]:
        assert not any(p.requires_grad for p in mine.parameters())
        assert mine.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())


def test_names_of_classes_travel_and_older_files_have_none(tmp_path):
    cfg, path = replace(TINY, num_classes=3), tmp_path / "x.safetensors"
    assert load_snapshot(save(path, cfg)).class_names == ()

    def named(*names: object) -> Path:
        G = build_generator(cfg)
        store(path, Snapshot(G, None, cfg, HALF, 1, "x", class_names=names))  # type: ignore[arg-type]
        return path

    assert load_snapshot(named("cat", "dog")).class_names == ("cat", "dog")
    escape, long = load_snapshot(named("\x1b[2J", "y" * 999)).class_names
    assert escape == "\\x1b[2J" and len(long) == 80
    for names, says in (("aaaa", "4 names for 3 classes"), ([1], "class_names"), ([["a"]], "class_names")):
        with pytest.raises(UserError, match=f"header of .* is invalid: .*{says}"):
            load_snapshot(named(*names))


def test_classes_without_images_travel(tmp_path):
    cfg, path = replace(TINY, num_classes=3), tmp_path / "x.safetensors"
    assert load_snapshot(save(path, cfg)).empty_classes == ()
    for numbers in ((1, 2), (3,), (-1,)):
        G = build_generator(cfg)
        store(path, Snapshot(G, None, cfg, HALF, 1.0, "x", empty_classes=numbers))
        if max(numbers) < 3 and min(numbers) >= 0:
            assert load_snapshot(path).empty_classes == numbers
        else:
            with pytest.raises(UserError, match="empty_classes must be from 0 to 2"):
                load_snapshot(path)


def test_it_generates_the_same_images(tmp_path):
    snap = load_snapshot(save(tmp_path / "x.safetensors"))
    torch.manual_seed(0)
    original = build_generator(TINY)
    drawn = snap.renderer.render([3])
    assert torch.equal(drawn, Renderer.of(original, Stage(8, 0.4)).render([3]))
    z = z_for_seeds([3], 8)
    torch.testing.assert_close(drawn, original(z, psi=0.7, stage=Stage(8, 0.4)), rtol=1e-3, atol=1e-4)


def test_its_weights_are_prepared_and_hashed_once(tmp_path, monkeypatch):
    snap = load_snapshot(save(tmp_path / "x.safetensors"))
    hashed = []

    def counting(config: NetworkConfig, weights: Mapping[str, torch.Tensor]) -> str:
        hashed.append(config)
        return fingerprint(config, weights)

    monkeypatch.setattr(snapshots, "fingerprint", counting)
    assert snap.fingerprint == snap.fingerprint == fingerprint(TINY, snap.G.state_dict()) and hashed == [TINY]
    assert snap.renderer is snap.renderer


def test_another_stage_is_the_same_network(tmp_path):
    """It has a renderer of its own, and the same fingerprint."""
    snap = load_snapshot(save(tmp_path / "x.safetensors"))
    before = snap.renderer.render([3])
    other = replace(snap, stage=Stage(16))
    assert other.renderer.render([3]).shape[2:] == (16, 16) and torch.equal(snap.renderer.render([3]), before)
    assert other.fingerprint == snap.fingerprint


def test_half_precision_files_are_read_as_float32(tmp_path):
    G = build_generator(TINY)
    tensors = {f"G.{name}": value.half() for name, value in G.state_dict().items()}
    save_tensors(tmp_path / "x.safetensors", tensors, header())
    assert {value.dtype for value in load_snapshot(tmp_path / "x.safetensors").G.state_dict().values()} == {
        torch.float32
    }


def header() -> dict[str, object]:
    return {"format": FORMAT, "config": TINY.to_json(), "resolution": 16, "alpha": 1.0, "kimg": 1, "data": "x"}


@pytest.mark.parametrize(
    "change, says",
    [
        ({"format": None}, "not a snapshot"),
        ({"format": "stylegan-snapshot-999"}, "not a snapshot"),
        ({"config": {**TINY.to_json(), "colour": 1}}, "setting 'config.colour'"),
        ({"config": {**TINY.to_json(), "z_dim": "many"}}, "setting 'config.z_dim'"),
        ({"config": {**TINY.to_json(), "resolution": 17}}, "17"),
        ({"config": {**TINY.to_json(), "z_dim": -3}}, "z_dim"),
        ({"config": {**TINY.to_json(), "w_dim": 0}}, "w_dim"),
        ({"config": {**TINY.to_json(), "fmap_max": 1 << 40, "fmap_base": 1 << 44}}, "fmap_base"),
        ({"config": {**TINY.to_json(), "w_dim": 9}}, "fit"),
        ({"config": {**TINY.to_json(), "mapping_layers": 10**9}}, "mapping_layers"),
        ({"config": {**TINY.to_json(), "mapping_layers": -1}}, "mapping_layers"),
        ({"config": {**TINY.to_json(), "d_fmap_max": 0}}, "d_fmap_max"),
        ({"config": {**TINY.to_json(), "d_fmap_max": 1 << 40}}, "d_fmap_max"),
        ({"config": {**TINY.to_json(), "resolution": 1 << 4000}}, "4001 bits"),
        ({"config": {**TINY.to_json(), "resolution": 1 << 14, "base": [64, 64]}}, "262144x262144"),
        ({"config": {**TINY.to_json(), "base": [0, 4]}}, "base"),
        ({"config": {**TINY.to_json(), "num_classes": 10**12}}, "num_classes"),
        ({"config": {**TINY.to_json(), "z_dim": 1 << 20, "mapping_dim": 1 << 20}}, "million weights"),
        ({"config": {**TINY.to_json(), "blur": [0.0, 0.0]}}, "blur"),
        ({"config": {**TINY.to_json(), "blur": [1.0] * 10000}}, "blur"),
        ({"config": {**TINY.to_json(), "mapping_lr_mul": float("nan")}}, "mapping_lr_mul"),
        ({"config": {**TINY.to_json(), "z_dim": "x" * 10**6}}, "z_dim"),
        ({"config": {**TINY.to_json(), "y" * 10**6: 1}}, "yyy"),
        ({"kimg": float("inf")}, "kimg must be a number from 0 to 1e12, got inf"),
        ({"config": [1, 2]}, "setting 'config' must be a group"),
        ({"config": {**TINY.to_json(), "family": "biggan"}}, "family 'biggan'; this version has stylegan, progan"),
        ({"config": {**TINY.to_json(), "family": 3}}, "config.family"),
        ({"resolution": "8"}, "resolution"),
        ({"resolution": 32}, "grown"),
        ({"alpha": 1.5}, "grown"),
        ({"alpha": float("nan")}, "grown"),
        ({"kimg": None}, "kimg"),
        ({"data": 3}, "data"),
    ],
)
def test_malformed_headers_are_one_line(change, says, tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {f"G.{k}": v for k, v in build_generator(TINY).state_dict().items()}, header() | change)
    with pytest.raises(UserError, match=says) as caught:
        load_snapshot(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("key", sorted(header()))
def test_missing_keys_are_named(key, tmp_path):
    path, rest = tmp_path / "x.safetensors", {k: v for k, v in header().items() if k != key}
    save_tensors(path, {"G.x": torch.zeros(1)}, rest)
    with pytest.raises(UserError, match="not a snapshot" if key == "format" else key):
        load_snapshot(path)


@pytest.mark.parametrize("change", ["drop", "add", "shape"])
def test_weights_that_do_not_fit(change, tmp_path):
    tensors = {f"G.{name}": value for name, value in build_generator(TINY).state_dict().items()}
    if change == "add":
        tensors["G.extra"] = torch.zeros(1)
    elif change == "drop":
        del tensors["G.mapping.w_avg"]
    else:
        tensors["G.mapping.w_avg"] = torch.zeros(3)
    save_tensors(tmp_path / "x.safetensors", tensors, header())
    with pytest.raises(UserError, match="do not fit its config"):
        load_snapshot(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"<!DOCTYPE html><html>", b"\n <html>", b"PK\3\4 a zip, as a training state is", b"\xff" * 64,
     struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", 4) + b"oops"],
)  # fmt: skip
def test_files_that_are_something_else(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="web page" if b"html" in content else "x.safetensors"):
        load_snapshot(path)


@pytest.mark.parametrize("keep", [4, 100, 0.5, -1])
def test_files_that_were_cut_short(keep, tmp_path):
    path = save(tmp_path / "x.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="not a complete"):
        load_snapshot(path)


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(UserError, match="there is no file .*x.safetensors"):
        load_snapshot(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is a folder"):
        load_snapshot(tmp_path)


def test_a_header_whose_length_looks_like_html_is_a_header(tmp_path):
    """A file with a header of 0x3c20 bytes begins with " <", as a web page may."""
    path = save(tmp_path / "x.safetensors")
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    padded = content[8 : 8 + length].ljust(0x3C20)
    path.write_bytes(struct.pack("<Q", len(padded)) + padded + content[8 + length :])
    assert path.read_bytes().startswith(b" <") and load_snapshot(path).kimg == 12.5


def test_the_header_can_be_read_without_this_project(tmp_path):
    content = save(tmp_path / "x.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    assert json.loads(metadata["config"])["resolution"] == 16


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("net, what", [("G", "generator"), ("D", "discriminator")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value, net, what):
    found = snapshot(with_d=True)
    name, weight = list(getattr(found, net).named_parameters())[-1]
    weight.data.view(-1)[-1] = value
    store(tmp_path / "a.safetensors", Snapshot(found.G, found.D, found.config, found.stage, 1.0, "faces"))
    with pytest.raises(UserError, match=f"not finite, in {name} of the {what}.*take an earlier snapshot"):
        load_snapshot(tmp_path / "a.safetensors")
