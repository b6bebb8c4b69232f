"""Films show at their keyframes what generate.py makes of them, to the bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.films import drawn, picture_distance, plan, samples_of, times_of, untruncated
from stylegan.editing.settings import FilmSettings, check_film_settings, parse_sweep
from stylegan.latents.render import View
from stylegan.latents.sources import gather
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_generator
from stylegan.networks.sampling import mix_layers
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
CONDITIONAL = replace(TINY, num_classes=3, channels=1)


def view_of(cfg: StyleGAN1Config = TINY, **how: object) -> View:
    torch.manual_seed(0)
    G = build_generator(cfg).eval().requires_grad_(False)
    for name, value in G.state_dict().items():
        if name.endswith(("bias", "noise_strength", "w_avg")):
            value.normal_(std=0.3)
    return View.of(Snapshot(G, None, cfg, Stage(16), 5.0, "pictures"), **how)  # type: ignore[arg-type]


FILMS = [FilmSettings(space=space, path=path, loop=loop, frames=4)  # type: ignore[arg-type]
           for space in ("z", "w") for path in ("linear", "cubic", "circular") for loop in (False, True)]  # fmt: skip


@pytest.mark.parametrize("film", FILMS)
def test_keyframes_are_the_pictures_of_their_seeds_to_the_bit(film):
    view = view_of(psi=0.6)
    walk = plan(gather((3, 4, 9), view), view, film)
    times = times_of([walk], view, film, 8, lambda count: None)
    assert len(times) == walk.segments * 4 + (not film.closed)
    pictures = view.draw(walk.at(times))
    assert torch.equal(pictures[[0, 4, 8]], view.render([3, 4, 9]))
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(times)
    assert torch.equal(view.draw(walk.at(times[5:6])), pictures[5:6])  # whatever is drawn beside it
    if film.closed:
        assert torch.equal(view.draw(walk.at([float(walk.segments)])), pictures[:1])


@pytest.mark.parametrize("even", [False, True])
def test_a_film_of_a_lower_resolution_has_its_size_and_its_pictures(even):
    view, film = view_of(resolution=8, alpha=0.4), FilmSettings(frames=4, even=even)
    walk = plan(gather((3, 4), view), view, film)
    times = times_of([walk], view, film, 8, lambda count: None)
    (pictures,) = zip(*drawn([walk], times, view, 8))
    pictures = torch.cat(pictures)
    assert pictures.shape == (5, 3, 8, 8)
    expected = Renderer.of(view.snapshot.G, Stage(8, 0.4)).render([3, 4], psi=0.7)
    assert torch.equal(pictures[[0, 4]], expected)


@pytest.mark.parametrize("space", ["z", "w"])
def test_classes_blend_from_one_to_the_other(space):
    view, film = view_of(CONDITIONAL), FilmSettings(space=space, frames=2)
    walk = plan(gather((5, 5), view, (0, 2), each=True), view, film)
    first, middle, last = view.draw(walk.at([0, 0.5, 1]))
    expected = view.render([5, 5], torch.tensor([0, 2]))
    assert torch.equal(torch.stack([first, last]), expected)
    assert not torch.equal(middle, first) and not torch.equal(middle, last)


def test_a_blend_of_classes_gives_the_mapping_their_weights():
    view = view_of(CONDITIONAL, psi=1.0)
    keys = gather((5, 5), view, (0, 2), each=True)
    walk = plan(keys, view, FilmSettings(space="z"))
    assert keys.z is not None
    expected = view.renderer.map(keys.z[:1], torch.tensor([[0.75, 0, 0.25]]), psi=1.0)
    torch.testing.assert_close(walk.at([0.25]).ws, expected)


def test_progan_goes_through_z():
    view = view_of(ProGANConfig(resolution=16, z_dim=8, fmap_max=16))
    walk = plan(gather((3, 4), view), view, FilmSettings())
    assert torch.equal(view.draw(walk.at([0, 1])), view.render([3, 4]))
    with pytest.raises(UserError, match="--space z"):
        plan(gather((3, 4), view), view, FilmSettings(space="w"))
    with pytest.raises(UserError, match="ProGAN has no w"):
        untruncated(view, FilmSettings(psi_sweep=(0, 1)))


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_sweep_goes_from_the_average_face_to_the_untruncated_one(space):
    view, film = view_of(), FilmSettings(space=space, psi_sweep=(0, 1), frames=4)
    free = untruncated(view, film)
    walk = plan(gather((3,), free), free, film)
    assert walk.segments == 1
    start, middle, end = view.draw(walk.at([0, 0.5, 1]))
    G, shown = view.snapshot.G, view.renderer
    assert torch.equal(start, shown.draw(G.broadcast(G.mapping.w_avg[None]))[0])
    assert torch.equal(end, shown.render([3], psi=1.0)[0]) and torch.equal(middle, shown.render([3], psi=0.5)[0])


def test_w_plus_is_gone_through_layer_by_layer():
    view = view_of()
    keys = gather((3, 4), view)
    plus = replace(keys, ws=mix_layers(keys.ws, keys.ws.flip(0), [0, 1]), z=None)
    halfway = plan(plus, view, FilmSettings(space="w")).at([0.5]).ws
    torch.testing.assert_close(halfway[0], plus.ws.mean(0))
    with pytest.raises(UserError, match="no z.*--space w"):
        plan(plus, view, FilmSettings(space="z"))
    with pytest.raises(UserError, match="truncation 0.7"):
        plan(replace(keys, ws=plus.ws), view, FilmSettings(space="z"))


def test_noise_stays_but_for_maps_that_keyframes_bring():
    view = view_of(noise_mode="random")
    keys = gather((3, 4), view)
    there = plan(keys, view, FilmSettings()).at([0, 0.5, 1]).noise
    assert all(torch.equal(m, own[:1].expand_as(m)) for m, own in zip(there, keys.noise, strict=True))
    view = view_of()
    there = plan(keys, view, FilmSettings()).at([0, 0.5, 1]).noise
    for found, own in zip(there, keys.noise, strict=True):
        assert torch.equal(found[[0, 2]], own)
        torch.testing.assert_close(found[1], own.mean(0))


def test_even_speed_makes_steps_alike():
    view, film = view_of(psi=1.0), FilmSettings(space="z", ease="quintic", frames=12)
    walk = plan(gather((3, 4, 9), view), view, film)

    def spread(film: FilmSettings) -> float:
        heard: list[int] = []
        times = times_of([walk], view, film, 5, heard.append)
        assert len(times) == 25 and sum(heard) == (2 * samples_of(film) + 1 if film.even else 0)
        pictures = view.draw(walk.at(times))
        steps = picture_distance(pictures[1:], pictures[:-1])
        return float(steps.std() / steps.mean())

    assert spread(replace(film, ease="none", even=True)) < 0.3 * spread(film)


def test_what_makes_no_film():
    for film, count, says in (
        (FilmSettings(frames=0), 2, "--frames 0"), (FilmSettings(), 1, "two keyframes"),
        (FilmSettings(path="circular"), 4, "2 or 3"),
        (FilmSettings(path="cubic", psi_sweep=(0, 1)), 1, "--path cubic"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            check_film_settings(film, count)
    assert parse_sweep("-0.5:1") == (-0.5, 1)
    for text in ("nan:1", "0:11", "-1e30:0"):
        with pytest.raises(UserError, match="from -10 to 10"):
            parse_sweep(text)
    for text in ("1", "a:b", "0:1:2", ""):
        with pytest.raises(UserError, match="FROM:TO"):
            parse_sweep(text)


def test_edits_of_styles_fade_from_keyframe_to_keyframe():
    view = view_of()
    keys = gather((3, 4), view)
    styles = tuple(torch.randn(2, size) for size in view.config.style_dims())
    keys = replace(keys, styles=styles)
    way = plan(keys, view, FilmSettings(frames=2)).at([0.0, 0.5, 1.0])
    assert all(torch.equal(found[[0, 2]], own) for found, own in zip(way.styles, styles, strict=True))
    torch.testing.assert_close(way.styles[1][1], styles[1].mean(dim=0))
    assert torch.equal(view.draw(way)[[0, 2]], view.draw(keys))


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_sweep_through_classes_truncates_towards_what_lies_between_their_averages(space):
    view, film = view_of(CONDITIONAL), FilmSettings(space=space, psi_sweep=(0, 0), frames=4)
    free = untruncated(view, film)
    walk = plan(gather((5, 5), free, (0, 2), each=True), free, film)
    averages = view.snapshot.G.mapping.w_avg
    ws = walk.at([0, 0.25, 1]).ws[:, 0]
    torch.testing.assert_close(ws, torch.stack([averages[0], averages[0] * 0.75 + averages[2] * 0.25, averages[2]]))
