"""What a network generates is found again, each image by itself, noise maps included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.stylegan1 import StyleGAN1Config
from stylegan.projection import projector
from stylegan.projection.distance import PIXELS, pick_distance
from stylegan.projection.projector import (
    Projector,
    SearchStep,
    WStatistics,
    autocorrelation,
    jitter,
    lr_factor,
    normalize,
    project,
)
from stylegan.projection.settings import ProjectionSettings
from tests.stylegan import tiny
from tests.stylegan.tiny import TINY
from torch_utils.errors import UserError

FULL = Stage(16)
SIZES = [(4, 4), (16, 16), (10, 20)]
CONDITIONAL = replace(TINY, num_classes=3)
DEFAULTS = ProjectionSettings()
FAST = ProjectionSettings(num_steps=12, plus_steps=8, w_samples=100, dtype="float32")


def snapshot(cfg: StyleGAN1Config = TINY, noise: float = 0.1, stage: Stage = FULL) -> Snapshot:
    found = tiny.snapshot(cfg, stage=stage, with_d=True)
    for name, value in found.G.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(noise)
    return found


def drawn(snap: Snapshot, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """ws and the images of seeds."""
    z = torch.randn(count, 8, generator=torch.Generator().manual_seed(3))
    ws = snap.G.latents(z, torch.arange(count) if snap.config.num_classes else None)
    return ws, snap.renderer.draw(ws)


def statistics(snap: Snapshot) -> WStatistics:
    return WStatistics(snap.G, FAST.w_samples, FAST.seed)


def near(a: Latents, b: Latents) -> None:
    torch.testing.assert_close(a.ws, b.ws, rtol=1e-2, atol=2e-3)
    for x, y in zip(a.noise, b.noise, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(("name", "left", "off"), [("pixels", 1e-3, 0.03), ("discriminator", 0.2, 1.0)])
def test_a_generated_image_comes_back(name, left, off):
    snap = snapshot(noise=0.0)
    ws, targets = drawn(snap)
    distance = pick_distance(name, snap)
    latents, report = project(snap, targets, replace(FAST, num_steps=100), distance)
    centre = snap.G.broadcast(statistics(snap).of(None, 2)[0])
    assert (report.distance < left * distance(snap.renderer.draw(centre), targets)).all()
    assert not latents.plus and ((latents.ws - ws).norm(dim=(1, 2)) < off * (centre - ws).norm(dim=(1, 2))).all()


@pytest.mark.parametrize("name", ["pixels", "discriminator"])
def test_a_half_grown_network_is_searched_at_its_stage(name):
    snap = snapshot(noise=0.0, stage=Stage(8, 0.4))
    _, targets = drawn(snap)
    assert targets.shape == (2, 3, 8, 8)
    distance = pick_distance(name, snap)
    seen: list[torch.Tensor] = []
    settings = replace(FAST, num_steps=60)
    latents, report = project(snap, targets, settings, distance, watch=lambda step: seen.append(step.images))
    assert {tuple(images.shape) for images in seen} == {(2, 3, 8, 8)} and len(latents.noise) == 4
    torch.testing.assert_close(distance(snap.renderer.draw(latents.ws, latents.noise), targets), report.distance)
    centre = snap.G.broadcast(statistics(snap).of(None, 2)[0])
    assert (report.distance < 0.5 * distance(snap.renderer.draw(centre), targets)).all()
    with pytest.raises(UserError, match=r"must be \[N, 3, 8, 8\]"):
        project(snap, torch.zeros(1, 3, 16, 16), FAST, PIXELS)


def test_the_last_steps_are_small():
    snap = snapshot()
    _, targets = drawn(snap)
    seen: list[torch.Tensor] = []
    settings = replace(FAST, num_steps=20, jitter=0.0)
    project(snap, targets, settings, PIXELS, watch=lambda step: seen.append(step.state()["tensors"][0].clone()))
    moves = [float((b - a).abs().max()) for a, b in zip(seen, seen[1:], strict=False)]
    assert moves[-1] < 0.15 * max(moves)


def test_w_plus_finds_what_w_cannot():
    snap = snapshot(noise=0.0)
    ws, _ = drawn(snap)
    mixed = torch.cat([ws[:1, :3], ws[1:, 3:]], dim=1)
    settings = replace(FAST, num_steps=40, plus_steps=60)
    w, in_w = project(snap, snap.renderer.draw(mixed), settings, PIXELS)
    plus, in_plus = project(snap, snap.renderer.draw(mixed), replace(settings, space="w+"), PIXELS)
    assert plus.plus and not w.plus and float(in_plus.distance) < 0.6 * float(in_w.distance)
    assert (in_w.steps, in_plus.steps) == (40, 100)


def test_noise_maps_are_found_kept_and_drawn_with():
    snap = snapshot(noise=0.5)
    ws, _ = drawn(snap, 1)
    sizes = snap.config.noise_shapes(16)
    targets = snap.renderer.draw(ws, [torch.randn(1, 1, h, w) for h, w in sizes])
    latents, report = project(snap, targets, replace(FAST, num_steps=80, noise_weight=10.0), PIXELS)
    assert [tuple(m.shape) for m in latents.noise] == [(1, 1, h, w) for h, w in sizes]
    for m in latents.noise:
        assert abs(float(m.mean())) < 1e-5 and float(m.var(unbiased=False)) == pytest.approx(1, abs=1e-4)
    with_maps, without = (PIXELS(snap.renderer.draw(latents.ws, n), targets) for n in (latents.noise, "const"))
    torch.testing.assert_close(with_maps, report.distance)
    assert float(with_maps) < 0.8 * float(without)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_neighbours_do_not_matter(space):
    snap = snapshot()
    _, targets = drawn(snap, 3)
    settings = replace(FAST, space=space)
    together, report = project(snap, targets, settings, PIXELS)
    for i in range(3):
        single, own = project(snap, targets[i : i + 1], settings, PIXELS)
        near(together[i : i + 1], single)
        torch.testing.assert_close(report.distance[i : i + 1], own.distance, rtol=1e-2, atol=1e-5)


def test_threads_do_not_matter():
    snap = snapshot()
    _, targets = drawn(snap, 3)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(project(snap, targets, FAST, PIXELS)[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    near(*found)


@pytest.mark.parametrize("name", ["pixels", "discriminator"])
def test_in_bfloat16_it_comes_as_near(name):
    snap = snapshot()
    _, targets = drawn(snap)
    distance = pick_distance(name, snap)
    settings = replace(FAST, num_steps=60)
    fine, rough = (
        project(snap, targets, replace(settings, dtype=dtype), distance)[1] for dtype in ("float32", "bfloat16")
    )
    start = distance(snap.renderer.draw(snap.G.broadcast(statistics(snap).of(None, 2)[0])), targets)
    assert not torch.equal(fine.distance, rough.distance)
    assert (rough.distance - fine.distance < 0.05 * start).all()


@pytest.mark.parametrize(("asked", "fast", "taken"), [
    ("auto", True, torch.bfloat16), ("auto", False, torch.float32), ("float32", True, torch.float32),
    ("bfloat16", False, torch.bfloat16),
])  # fmt: skip
def test_bfloat16_is_taken_where_it_is_fast(asked, fast, taken, monkeypatch):
    monkeypatch.setattr(projector, "fast_bf16", lambda device: fast)
    assert projector.pick_dtype(asked, torch.device("cpu")) == taken


@pytest.mark.parametrize("stop", [("w", 5), ("w", 11), ("w+", 3)])
def test_a_search_goes_on_to_the_last_bit(stop):
    snap = snapshot()
    _, targets = drawn(snap)
    settings = replace(FAST, space="w+")
    kept: dict[str, Any] = {}

    def watch(step: SearchStep) -> None:
        assert step.images.shape == targets.shape and step.distances.shape == (2,)
        if (step.phase, step.step) == stop:
            state = step.state()
            assert set(state) == {"stage", "step", "tensors", "adam"}  # as in files of earlier versions
            kept.update(state, tensors=[t.clone() for t in state["tensors"]])
            kept["adam"] = {
                "state": {i: {k: v.clone() for k, v in e.items()} for i, e in state["adam"]["state"].items()}
            }

    whole, _ = project(snap, targets, settings, PIXELS, watch=watch)
    resumed, _ = project(snap, targets, settings, PIXELS, resume=kept)
    assert torch.equal(whole.ws, resumed.ws) and all(map(torch.equal, whole.noise, resumed.noise))


def first_images(snap: Snapshot, targets: torch.Tensor, start: Latents | None, **changes: Any) -> torch.Tensor:
    """What a search without noise on w generates in its first step."""
    seen: list[SearchStep] = []
    settings = replace(FAST, jitter=0.0, **changes)
    project(snap, targets, settings, PIXELS, watch=seen.append, start=start)
    assert len(seen) == sum(phase.steps for phase in projector.phases(settings, start))
    return seen[0].images


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_search_starts_at_given_latents_and_their_noise(space):
    snap = snapshot()
    _, images = drawn(snap)
    start, _ = project(snap, images, replace(FAST, space=space), PIXELS)
    assert start.plus == (space == "w+")
    for given in (start, start[:1], replace(start, noise=())):
        rows = given.ws.expand(2, -1, -1), [m.expand(2, -1, -1, -1) for m in given.noise]
        expected = snap.renderer.draw(rows[0], rows[1] or "const")
        torch.testing.assert_close(first_images(snap, images, given, space=space), expected, rtol=1e-3, atol=1e-3)
    _, again = project(snap, images, replace(FAST, space=space), PIXELS, start=start)
    _, report = project(snap, images, replace(FAST, space=space), PIXELS)
    assert (again.distance < report.distance).all()
    assert again.steps == (FAST.plus_steps if space == "w+" else FAST.num_steps)


def test_where_a_search_cannot_start():
    snap = snapshot()
    ws, images = drawn(snap)
    start = Latents(ws, ("a", "b"), ("a", "b"))
    plus = replace(start, ws=ws + torch.arange(6)[None, :, None])
    wrong: list[tuple[Latents, str]] = [
        (plus, "use space w\\+"), (replace(start, ws=ws[:, :3]), "ws must be"), (start[:0], "there are 0 latents"),
        (replace(start, noise=(torch.zeros(2, 1, 5, 5),)), "noise maps"),
        (replace(start, styles=(torch.zeros(2, 3),)), "change styles"),
    ]  # fmt: skip
    for given, message in wrong:
        with pytest.raises(UserError, match=message):
            project(snap, images, FAST, PIXELS, start=given)
    with pytest.raises(UserError, match="2 latents to start at, for 1 images"):
        project(snap, images[:1], FAST, PIXELS, start=start)


def test_classes_begin_at_their_own_centre():
    snap = snapshot(CONDITIONAL)
    _, targets = drawn(snap)
    c = torch.tensor([2, 0])
    latents, _ = project(snap, targets, FAST, PIXELS, c)
    assert latents.c is not None and latents.c.tolist() == [2, 0]
    centres, spread = statistics(snap).of(c, 2)
    assert not torch.equal(centres[0], centres[1]) and spread.shape == (2, 1, 1)
    for wrong, message in ((None, "choose a class"), (torch.tensor([3, 0]), "must be from 0 to 2, got 3$")):
        with pytest.raises(UserError, match=message):
            project(snap, targets, FAST, PIXELS, wrong)
    with pytest.raises(UserError, match="unconditional"):
        project(snapshot(), targets, FAST, PIXELS, c)


def test_batches_share_what_is_computed_once(monkeypatch):
    snap = snapshot(CONDITIONAL)
    _, targets = drawn(snap, 3)
    measured, measure = [], WStatistics._measure
    monkeypatch.setattr(WStatistics, "_measure", lambda self, kind: measured.append(kind) or measure(self, kind))
    projector = Projector(snap, FAST, PIXELS)
    for rows, c in ((slice(0, 2), [1, 0]), (slice(2, 3), [1])):
        latents, report = projector.project(targets[rows], torch.tensor(c))
        whole, own = project(snap, targets[rows], FAST, PIXELS, torch.tensor(c))
        assert torch.equal(latents.ws, whole.ws) and torch.equal(report.images, own.images)
    assert measured == [0, 1] + [0, 1, 1]  # once by the projector, and for each call of `project`
    assert projector.G is projector.G


def test_a_search_begins_at_the_image_of_the_mean_which_is_generated_once(monkeypatch):
    snap, c = snapshot(CONDITIONAL), torch.tensor([2, 0, 2])
    projector = Projector(snap, FAST, PIXELS)
    images = projector.mean_images(c, 3)
    mean, _ = statistics(snap).of(c, 3)
    assert torch.equal(images, snap.renderer.draw(snap.G.broadcast(mean)))
    monkeypatch.setattr(type(snap.renderer), "draw", None)  # would fail
    assert torch.equal(projector.mean_images(c[:2], 2), images[:2])


def test_the_report_measures_the_images_that_the_latents_give():
    snap = snapshot()
    _, targets = drawn(snap, 3)
    latents, report = project(snap, targets, FAST, PIXELS)
    assert torch.equal(report.images, snap.renderer.draw(latents.ws, latents.noise))
    for i in range(3):
        pair = report.images[i : i + 1], targets[i : i + 1]
        assert torch.equal(report.distance[i : i + 1], PIXELS(*pair))
        torch.testing.assert_close(report.mse[i], (pair[0] - pair[1]).square().mean())


def test_what_cannot_be_projected():
    snap = snapshot()
    with pytest.raises(UserError, match=r"must be \[N, 3, 16, 16\], got \[1, 3, 8, 8\]"):
        project(snap, torch.zeros(1, 3, 8, 8), FAST, PIXELS)
    with pytest.raises(UserError, match="not finite"):
        project(snap, torch.full((1, 3, 16, 16), torch.nan), FAST, PIXELS)
    with pytest.raises(UserError, match="ProGAN has no w"):
        project(snapshot(ProGANConfig(resolution=16, z_dim=8, fmap_max=16)), torch.zeros(1, 3, 16, 16), FAST, PIXELS)


# The schedule


def test_the_learning_rate_rises_stays_and_falls_to_nearly_nothing():
    rates = [lr_factor(DEFAULTS, step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1) and rates[9:150] == [1.0] * 141
    assert all(a < b for a, b in zip(rates[:9], rates[1:10])) and all(a > b for a, b in zip(rates[150:], rates[151:]))
    assert rates[-1] < 0.001
    flat = replace(DEFAULTS, lr_rampup=0.0, lr_rampdown=0.0)
    assert {lr_factor(flat, step, 200) for step in range(200)} == {1.0}


def test_noise_on_w_falls_to_0():
    strengths = [jitter(DEFAULTS, step, 200) for step in range(200)]
    assert strengths[0] == DEFAULTS.jitter and strengths[75] == pytest.approx(DEFAULTS.jitter / 4)
    assert strengths[150:] == [0.0] * 50
    assert jitter(replace(DEFAULTS, jitter_until=0.0), 0, 200) == 0


# Noise maps: white noise passes for noise, and a pattern does not


def test_normalized_maps_have_mean_0_and_variance_1():
    maps = [torch.randn(2, 1, h, w) * torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1) + 3 for h, w in SIZES]
    normalize([*maps, torch.zeros(1, 1, 4, 4)])
    for m in maps:
        torch.testing.assert_close(m.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(m.var(dim=(1, 2, 3), unbiased=False), torch.ones(2))


def test_patterns_of_every_scale_are_not_taken_for_noise():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    normalize([noise])
    plain = autocorrelation([noise])
    for block in (2, 4, 8):
        pattern = noise[:, :, ::block, ::block].repeat_interleave(block, 2).repeat_interleave(block, 3)
        normalize([pattern])
        assert autocorrelation([pattern]) > 20 * plain


def test_each_image_has_its_own_sum():
    maps = [torch.randn(3, 1, 16, 16), torch.randn(3, 1, 4, 4)]
    torch.testing.assert_close(autocorrelation(maps)[1:2], autocorrelation([m[1:2] for m in maps]))


def written_out(maps: list[torch.Tensor]) -> torch.Tensor:
    """Appendix D of the paper, map by map and scale by scale."""
    total = torch.zeros(len(maps[0]))
    for m in maps:
        while True:
            for dim in (2, 3):
                total = total + (m * m.roll(1, dim)).mean(dim=(1, 2, 3)).square()
            if min(m.shape[2:]) <= 8 or m.shape[2] % 2 or m.shape[3] % 2:
                break
            m = F.avg_pool2d(m, 2) * 2
    return total


@pytest.mark.parametrize("sizes", [
    [(4, 4), (4, 4), (8, 8), (8, 8), (16, 16), (16, 16), (32, 32), (32, 32)], [(10, 20), (5, 10), (20, 40), (5, 10)],
    [(18, 24), (9, 12)], [(5, 16), (16, 5)],
])  # fmt: skip
def test_sizes_together_are_the_sum_of_the_maps(sizes):
    maps = [torch.randn(3, 1, h, w, requires_grad=True) for h, w in sizes]
    torch.testing.assert_close(autocorrelation(maps), written_out(maps))
    ours, theirs = (torch.autograd.grad(f(maps).sum(), maps) for f in (autocorrelation, written_out))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
