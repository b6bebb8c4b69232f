"""Films show at their keyframes what generate.py makes of them, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stylegan.latents.view import View

from stylegan.checkpoints.snapshot import save_snapshot
from stylegan.editing.films import picture_distance, plan, samples_of, times_of, untruncated
from stylegan.editing.settings import FilmSettings, check_film_settings, parse_sweep
from stylegan.latents.render import Painter, open_painter
from stylegan.latents.sources import gather
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_generator
from stylegan.networks.sampling import mix_layers
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
CONDITIONAL = replace(TINY, num_classes=3, channels=1)


@pytest.fixture
def painter(tmp_path: Path):
    def make(cfg: StyleGAN1Config = TINY, **view: object) -> Painter:
        torch.manual_seed(0)
        G = build_generator(cfg)
        for name, value in G.state_dict().items():
            if name.endswith(("bias", "noise_strength", "w_avg")):
                value.normal_(std=0.3)
        path = tmp_path / "net.safetensors"
        save_snapshot(path, G, config=cfg, resolution=16, alpha=1.0, kimg=5.0, data="pictures")
        return open_painter(View(str(path), **view))  # type: ignore[arg-type]

    return make


COURSES = [FilmSettings(space=space, path=path, loop=loop, frames=4)  # type: ignore[arg-type]
           for space in ("z", "w") for path in ("linear", "cubic", "circular") for loop in (False, True)]  # fmt: skip


@pytest.mark.parametrize("course", COURSES)
def test_keyframes_are_the_pictures_of_their_seeds_to_the_bit(painter, course):
    paint = painter(trunc=0.6)
    journey = plan(gather((3, 4, 9), paint), paint, course)
    times = times_of([journey], paint, course, 8, lambda count: None)
    assert len(times) == journey.segments * 4 + (not course.closed)
    pictures = paint.draw(journey.at(times))
    assert torch.equal(pictures[[0, 4, 8]], paint.paint([3, 4, 9]))
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(times)
    assert torch.equal(paint.draw(journey.at(times[5:6])), pictures[5:6])  # whatever is drawn beside it
    if course.closed:
        assert torch.equal(paint.draw(journey.at([float(journey.segments)])), pictures[:1])


@pytest.mark.parametrize("space", ["z", "w"])
def test_classes_blend_from_one_to_the_other(painter, space):
    paint, course = painter(CONDITIONAL), FilmSettings(space=space, frames=2)
    journey = plan(gather((5, 5), paint, (0, 2), each=True), paint, course)
    first, middle, last = paint.draw(journey.at([0, 0.5, 1]))
    expected = paint.paint([5, 5], torch.tensor([0, 2]))
    assert torch.equal(torch.stack([first, last]), expected)
    assert not torch.equal(middle, first) and not torch.equal(middle, last)


def test_a_blend_of_classes_gives_the_mapping_their_weights(painter):
    paint = painter(CONDITIONAL, trunc=1.0)
    keys = gather((5, 5), paint, (0, 2), each=True)
    journey = plan(keys, paint, FilmSettings(space="z"))
    assert keys.z is not None
    expected = paint.snapshot.G.map(keys.z[:1], 1.0, None, torch.tensor([[0.75, 0, 0.25]]))
    torch.testing.assert_close(journey.at([0.25]).ws, expected)


def test_progan_goes_through_z(painter):
    paint = painter(ProGANConfig(resolution=16, z_dim=8, fmap_max=16))
    journey = plan(gather((3, 4), paint), paint, FilmSettings())
    assert torch.equal(paint.draw(journey.at([0, 1])), paint.paint([3, 4]))
    with pytest.raises(UserError, match="--space z"):
        plan(gather((3, 4), paint), paint, FilmSettings(space="w"))
    with pytest.raises(UserError, match="ProGAN has no w"):
        untruncated(paint, FilmSettings(psi_sweep=(0, 1)))


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_sweep_goes_from_the_average_face_to_the_untruncated_one(painter, space):
    paint, course = painter(), FilmSettings(space=space, psi_sweep=(0, 1), frames=4)
    free = untruncated(paint, course)
    journey = plan(gather((3,), free), free, course)
    assert journey.segments == 1
    start, middle, end = paint.draw(journey.at([0, 0.5, 1]))
    G = paint.snapshot.G
    assert torch.equal(start, G.draw(G.broadcast(G.mapping.w_avg[None]))[0]) and torch.equal(end, G.render([3], 1.0)[0])
    assert torch.equal(middle, G.render([3], 0.5)[0])


def test_w_plus_is_gone_through_layer_by_layer(painter):
    paint = painter()
    keys = gather((3, 4), paint)
    plus = replace(keys, ws=mix_layers(keys.ws, keys.ws.flip(0), [0, 1]), z=None)
    halfway = plan(plus, paint, FilmSettings(space="w")).at([0.5]).ws
    torch.testing.assert_close(halfway[0], plus.ws.mean(0))
    with pytest.raises(UserError, match="no z.*--space w"):
        plan(plus, paint, FilmSettings(space="z"))
    with pytest.raises(UserError, match="truncation 0.7"):
        plan(replace(keys, ws=plus.ws), paint, FilmSettings(space="z"))


def test_noise_stays_but_for_maps_that_keyframes_bring(painter):
    paint = painter(noise_mode="random")
    keys = gather((3, 4), paint)
    there = plan(keys, paint, FilmSettings()).at([0, 0.5, 1]).noise
    assert all(torch.equal(m, own[:1].expand_as(m)) for m, own in zip(there, keys.noise, strict=True))
    paint = painter()
    there = plan(keys, paint, FilmSettings()).at([0, 0.5, 1]).noise
    for found, own in zip(there, keys.noise, strict=True):
        assert torch.equal(found[[0, 2]], own)
        torch.testing.assert_close(found[1], own.mean(0))


def test_even_speed_makes_steps_alike(painter):
    paint, course = painter(trunc=1.0), FilmSettings(space="z", ease="quintic", frames=12)
    journey = plan(gather((3, 4, 9), paint), paint, course)

    def spread(course: FilmSettings) -> float:
        heard: list[int] = []
        times = times_of([journey], paint, course, 5, heard.append)
        assert len(times) == 25 and sum(heard) == (2 * samples_of(course) + 1 if course.even else 0)
        pictures = paint.draw(journey.at(times))
        steps = picture_distance(pictures[1:], pictures[:-1])
        return float(steps.std() / steps.mean())

    assert spread(replace(course, ease="none", even=True)) < 0.3 * spread(course)


def test_what_makes_no_film():
    for course, count, says in (
        (FilmSettings(frames=0), 2, "--frames 0"), (FilmSettings(), 1, "two keyframes"), (FilmSettings(path="circular"), 4, "2 or 3"),
        (FilmSettings(path="cubic", psi_sweep=(0, 1)), 1, "--path cubic"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            check_film_settings(course, count)
    assert parse_sweep("-0.5:1") == (-0.5, 1)
    for text in ("nan:1", "0:11", "-1e30:0"):
        with pytest.raises(UserError, match="from -10 to 10"):
            parse_sweep(text)
    for text in ("1", "a:b", "0:1:2", ""):
        with pytest.raises(UserError, match="FROM:TO"):
            parse_sweep(text)


def test_edits_of_styles_fade_from_keyframe_to_keyframe(painter):
    paint = painter()
    keys = gather((3, 4), paint)
    styles = tuple(torch.randn(2, size) for size in paint.snapshot.G.synthesis.style_sizes())
    keys = replace(keys, styles=styles)
    way = plan(keys, paint, FilmSettings(frames=2)).at([0.0, 0.5, 1.0])
    assert all(torch.equal(found[[0, 2]], own) for found, own in zip(way.styles, styles, strict=True))
    torch.testing.assert_close(way.styles[1][1], styles[1].mean(dim=0))
    assert torch.equal(paint.draw(way)[[0, 2]], paint.draw(keys))


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_sweep_through_classes_truncates_towards_what_lies_between_their_averages(painter, space):
    paint, course = painter(CONDITIONAL), FilmSettings(space=space, psi_sweep=(0, 0), frames=4)
    free = untruncated(paint, course)
    journey = plan(gather((5, 5), free, (0, 2), each=True), free, course)
    averages = paint.snapshot.G.mapping.w_avg
    ws = journey.at([0, 0.25, 1]).ws[:, 0]
    torch.testing.assert_close(ws, torch.stack([averages[0], averages[0] * 0.75 + averages[2] * 0.25, averages[2]]))
