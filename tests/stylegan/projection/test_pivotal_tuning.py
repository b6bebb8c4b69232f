"""Tuning makes the pivot right, the file holds exactly what was measured, and it fits one network only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import SUFFIX, Latents, load_latents, save_latents
from stylegan.networks.config import Stage
from stylegan.projection.distance import PIXELS
from stylegan.projection.pivotal_tuning import (
    DELTA,
    Delta,
    apply_delta,
    delta_between,
    load_delta,
    nearby_statistics,
    points_near,
    save_delta,
    tune,
    with_delta,
)
from stylegan.projection.settings import TuningSettings
from tests.stylegan.tiny import TINY, snapshot
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError

FULL = Stage(16)
SMALL_CONFIG = replace(TINY, resolution=8)
FAST = TuningSettings(steps=40, lr=3e-3, maps="float32")


SMALL = snapshot(SMALL_CONFIG, stage=Stage(8))


def pivots(snap: Snapshot, count: int = 1) -> Latents:
    torch.manual_seed(1)
    names = tuple(f"photo{i}" for i in range(count))
    noise = tuple(torch.randn(count, 1, h, w) for h, w in snap.config.noise_shapes(snap.stage.resolution))
    return Latents(snap.G.latents(torch.randn(count, 8)), names, names, noise=noise)


def targets(count: int = 1) -> torch.Tensor:
    return torch.nn.functional.interpolate(torch.rand(count, 3, 4, 4), (16, 16), mode="bilinear") * 2 - 1


def weights(snap: Snapshot) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in snap.G.state_dict().items()}


@pytest.mark.parametrize("count", [1, 2])
def test_the_pivots_become_the_images_and_the_network_stays_as_it_was(count):
    snap, wanted = snapshot(), targets(count)
    points, before = pivots(snap, count), weights(snap)
    tuned, delta, report = tune(snap, points, wanted, FAST, PIXELS)
    start = PIXELS(snap.renderer.draw(points.ws, points.noise), wanted)
    assert (report.distance < 0.5 * start).all() and delta.origins == points.origins
    torch.testing.assert_close(PIXELS(tuned.renderer.draw(points.ws, points.noise), wanted), report.distance)
    assert all(torch.equal(value, before[name]) for name, value in snap.G.state_dict().items())
    assert not any(p.requires_grad for p in tuned.G.parameters())
    assert all(name.startswith("synthesis.") and not name.endswith(".noise") for name in delta.changes)


@pytest.mark.parametrize("locality", [0.0, 0.5])
def test_a_half_grown_network_is_tuned_at_its_stage(locality):
    snap, wanted = snapshot(stage=Stage(8, 0.4)), torch.nn.functional.avg_pool2d(targets(), 2)
    points = pivots(snap)
    start = PIXELS(snap.renderer.draw(points.ws, points.noise), wanted)
    tuned, delta, report = tune(snap, points, wanted, replace(FAST, locality=locality, reach=0.5), PIXELS)
    assert tuned.stage == snap.stage and float(report.distance) < 0.5 * float(start)
    torch.testing.assert_close(PIXELS(tuned.renderer.draw(points.ws, points.noise), wanted), report.distance)
    assert not any(".16." in name for name in delta.changes)  # what is not drawn does not change


def test_locality_leaves_what_lies_around_as_it_was():
    snap, wanted = snapshot(), targets()
    start = PIXELS(snap.renderer.draw(pivots(snap).ws, pivots(snap).noise), wanted)
    moved = []
    for locality in (0.0, 1.0):
        settings = replace(FAST, locality=locality, reach=0.5)
        tuned, _, report = tune(snap, pivots(snap), wanted, settings, PIXELS)
        assert (report.distance < 0.5 * start).all()
        near = points_near(snap, pivots(snap).ws, None, 0.5, nearby_statistics(snap))
        unseen = torch.cat([near(1000 + i) for i in range(8)])
        moved.append(float(PIXELS(tuned.renderer.draw(unseen), snap.renderer.draw(unseen)).mean()))
    assert moved[1] < 0.8 * moved[0]


def test_points_around_a_pivot_lie_as_far_from_it_as_was_asked_for():
    snap = snapshot(replace(TINY, num_classes=2))
    ws = torch.randn(3, snap.config.num_ws, 8)
    c = torch.tensor([0, 1, 0])
    statistics = nearby_statistics(snap)
    near = points_near(snap, ws, c, 0.7, statistics)
    _, spread = statistics.of(c, 3)
    assert statistics.samples == 1000
    torch.testing.assert_close((near(0) - ws).norm(dim=2, keepdim=True), 0.7 * spread.expand(-1, snap.config.num_ws, 1))
    assert torch.equal(near(0), near(0)) and not torch.equal(near(0), near(1))


def test_in_bfloat16_it_comes_as_near():
    snap, wanted = snapshot(), targets()
    fine, rough = (
        float(tune(snap, pivots(snap), wanted, replace(FAST, maps=maps), PIXELS)[2].distance)
        for maps in ("float32", "bfloat16")
    )
    assert fine != rough and rough < 1.3 * fine


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_file_gives_exactly_the_network_that_was_measured(dtype, tmp_path: Path):
    snap = snapshot()
    tuned, delta, report = tune(snap, pivots(snap), targets(), replace(FAST, steps=3, dtype=dtype), PIXELS)
    assert {change.dtype for change in delta.changes.values()} == {getattr(torch, dtype)}
    path = tmp_path / "a.delta.safetensors"
    save_delta(path, delta, snap)
    found = apply_delta(snap, path)
    assert found.fingerprint == tuned.fingerprint != snap.fingerprint
    assert load_delta(path, snap).origins == ("photo0",)
    in_file = found.G.state_dict()
    assert all(torch.equal(value, in_file[name]) for name, value in with_delta(snap, delta).G.state_dict().items())
    assert torch.equal(found.renderer.draw(pivots(snap).ws, pivots(snap).noise), report.images)


def test_nothing_changed_is_nothing_kept():
    snap = snapshot()
    assert not delta_between(snap.G, snap.G, torch.float16).changes
    assert with_delta(snap, delta_between(snap.G, snap.G, torch.float32)).fingerprint == snap.fingerprint


def test_latents_of_the_network_are_taken_by_what_was_tuned_from_it(tmp_path: Path):
    snap = snapshot()
    tuned, _, _ = tune(snap, pivots(snap), targets(), replace(FAST, steps=2), PIXELS)
    save_latents(tmp_path / f"a{SUFFIX}", pivots(snap), snap)
    assert torch.equal(load_latents(tmp_path / f"a{SUFFIX}", tuned).ws, pivots(snap).ws)
    with pytest.raises(UserError, match="belongs to another network"):
        load_latents(tmp_path / f"a{SUFFIX}", snapshot(seed=1))


def test_files_that_do_not_fit(tmp_path: Path):
    snap = snapshot()
    _, delta, _ = tune(snap, pivots(snap), targets(), replace(FAST, steps=2), PIXELS)
    path = tmp_path / "a.delta.safetensors"
    save_delta(path, delta, snap)
    with pytest.raises(UserError, match="belongs to another network.*--force") as caught:
        load_delta(path, snapshot(seed=1))
    assert snap.fingerprint in str(caught.value) and snapshot(seed=1).fingerprint in str(caught.value)
    assert load_delta(path, snapshot(seed=1), force=True).changes
    with pytest.raises(UserError, match="does not fit this network"):
        load_delta(path, snapshot(replace(TINY, fmap_max=8)), force=True)
    with pytest.raises(UserError, match="must end in"):
        save_delta(tmp_path / "a.safetensors", delta, snap)
    with pytest.raises(UserError, match="there is no file"):
        load_delta(tmp_path / "absent.delta.safetensors", snap)
    save_tensors(path, load_tensors(path)[0], {"format": "else"})
    with pytest.raises(UserError, match="holds no tuned weights"):
        load_delta(path, snap)


def test_targets_that_do_not_fit():
    snap = snapshot()
    with pytest.raises(UserError, match="got 1 pivots and 2 targets"):
        tune(snap, pivots(snap), targets(2), FAST, PIXELS)


def test_a_name_in_a_damaged_file_cannot_speak_to_the_terminal(tmp_path):
    path = tmp_path / f"escape{DELTA}"
    save_delta(path, Delta({"\x1b[2Jmapping": torch.ones(8)}, ("photo eva.jpg",)), SMALL)
    with pytest.raises(UserError, match="does not fit this network") as caught:
        load_delta(path, SMALL, force=True)
    assert str(caught.value).isprintable()


@given(data=st.data())
def test_a_damaged_file_is_tuned_weights_or_a_user_error(data, damaged, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz{DELTA}"
    name = next(name for name, value in SMALL.G.state_dict().items() if value.ndim == 1)
    save_delta(path, Delta({name: torch.ones_like(SMALL.G.state_dict()[name])}, ("photo eva.jpg",)), SMALL)
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        found = load_delta(path, SMALL, force=True)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert all(value.isfinite().all() for value in with_delta(SMALL, found).G.state_dict().values())
