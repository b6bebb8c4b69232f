"""Latent walks begin, pass and end at their keyframes to the bit, and closed ones close."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stylegan.editing.settings import FilmSettings
from stylegan.editing.walk import (
    Curve,
    circle,
    plan_walk,
    plan_walks,
    psi_at,
    smooth,
    straight,
    turning,
    untruncated,
)
from stylegan.latents.render import gather
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.sampling import mix_layers
from tests.stylegan.tiny import TINY, view_of
from torch_utils.errors import UserError

CONDITIONAL = replace(TINY, num_classes=3, channels=1)


# Curves


def keys(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def curves(closed: bool) -> list[Curve]:
    four = keys(4, 6, 5)
    return [straight(four, closed), turning(four, closed), smooth(four, closed), smooth(four, closed, keep_length=True)]


def circles() -> list[Curve]:
    return [circle(keys(3, 6, 5), torch.zeros(6, 5)), circle(keys(2, 6, 5), keys(1, 6, 5)[0])]


@pytest.mark.parametrize("curve", [*curves(False), *curves(True), *circles()])
def test_at_whole_times_a_path_is_at_its_keyframes_to_the_bit(curve):
    count = len(curve.keys)
    found = curve.at([float(i) for i in range(curve.segments + 1)])
    assert torch.equal(found[:count], curve.keys)
    if curve.segments == count:
        assert torch.equal(found[-1], curve.keys[0])


@pytest.mark.parametrize("curve", [*curves(False), *curves(True), *circles()])
def test_paths_do_not_jump(curve):
    steps = 400
    points = curve.at([i / steps for i in range(curve.segments * steps + 1)])
    longest = (points[1:] - points[:-1]).flatten(1).norm(dim=1).max()
    assert longest < 4 * (curve.keys[1:] - curve.keys[:-1]).flatten(1).norm(dim=1).max() / steps
    assert points.dtype == torch.float32 and points.isfinite().all()


def test_smooth_curves_have_no_corner_at_keyframes_where_straight_ones_have():
    def corner(curve: Curve, at: float) -> float:
        before, here, after = curve.at([at - 1e-3, at, at + 1e-3]).double()
        return float(((after - here) - (here - before)).norm() / (after - here).norm())

    points = keys(4, 8)
    assert corner(smooth(points), 1) < 0.05 < corner(straight(points), 1)
    assert corner(smooth(points, closed=True), 2) < 0.05
    closed = smooth(points, closed=True)
    ends = closed.at([1e-3, 0, 4 - 1e-3]).double()
    assert float(((ends[0] - ends[1]) - (ends[1] - ends[2])).norm() / (ends[0] - ends[1]).norm()) < 0.05
    assert torch.allclose(smooth(points[:2]).at([0.3]), straight(points[:2]).at([0.3]), atol=1e-6)


def test_a_circle_through_three_keyframes_is_one_and_passes_them_in_order():
    curve = circle(keys(3, 10), torch.zeros(10))
    points = curve.at([i / 20 for i in range(60)]).double()
    apart = torch.cdist(points, points)
    furthest = apart.max(dim=1).values
    assert torch.allclose(furthest, furthest[0].expand(60), rtol=1e-2)  # a diameter from everywhere
    a, b, c = keys(3, 10).double()
    cosine = float((a - c) @ (b - c) / ((a - c).norm() * (b - c).norm()))
    assert float(furthest.max()) == pytest.approx(float((a - b).norm()) / math.sin(math.acos(cosine)), rel=1e-2)


def test_a_circle_through_two_goes_round_its_centre():
    centre, pair = keys(1, 10)[0], keys(2, 10)
    pair = centre + (pair - centre) / (pair - centre).norm(dim=1, keepdim=True)
    curve = circle(pair, centre)
    assert curve.segments == 4
    points = curve.at([i / 10 for i in range(40)])
    assert torch.allclose((points - centre).norm(dim=1), torch.ones(40), atol=1e-5)
    assert torch.allclose(points[:20] - centre, centre - points[20:], atol=1e-5)  # what is opposite, half round later


def test_no_circle_goes_through_points_on_a_line():
    a, b = keys(2, 10)
    for middle in (a, (a + b) / 2, 2 * b - a):
        with pytest.raises(UserError, match="on one line"):
            circle(torch.stack([a, middle, b]), torch.zeros(10))


# Walks


@pytest.mark.parametrize("space", ["z", "w"])
def test_classes_blend_from_one_to_the_other(space):
    view, film = view_of(CONDITIONAL), FilmSettings(space=space, frames=2)
    walk = plan_walk(gather((5, 5), view, (0, 2), each=True), view, film)
    first, middle, last = view.draw(walk.at([0, 0.5, 1]))
    expected = view.render([5, 5], torch.tensor([0, 2]))
    assert torch.equal(torch.stack([first, last]), expected)
    assert not torch.equal(middle, first) and not torch.equal(middle, last)


def test_a_blend_of_classes_gives_the_mapping_their_weights():
    view = view_of(CONDITIONAL, psi=1.0)
    keys = gather((5, 5), view, (0, 2), each=True)
    walk = plan_walk(keys, view, FilmSettings(space="z"))
    assert keys.z is not None
    expected = view.snapshot.renderer.map(keys.z[:1], torch.tensor([[0.75, 0, 0.25]]), psi=1.0)
    torch.testing.assert_close(walk.at([0.25]).ws, expected)


def test_progan_goes_through_z():
    view = view_of(ProGANConfig(resolution=16, z_dim=8, fmap_max=16))
    walk = plan_walk(gather((3, 4), view), view, FilmSettings())
    assert torch.equal(view.draw(walk.at([0, 1])), view.render([3, 4]))
    with pytest.raises(UserError, match="--space z"):
        plan_walk(gather((3, 4), view), view, FilmSettings(space="w"))
    with pytest.raises(UserError, match="ProGAN has no w"):
        untruncated(view, FilmSettings(psi_sweep=(0, 1)))


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_sweep_goes_from_the_average_face_to_the_untruncated_one(space):
    view, film = view_of(), FilmSettings(space=space, psi_sweep=(0, 1), frames=4)
    free = untruncated(view, film)
    walk = plan_walk(gather((3,), free), free, film)
    assert walk.segments == 1
    start, middle, end = view.draw(walk.at([0, 0.5, 1]))
    G, shown = view.snapshot.G, view.snapshot.renderer
    assert torch.equal(start, shown.draw(G.broadcast(G.mapping.w_avg[None]))[0])
    assert torch.equal(end, shown.render([3], psi=1.0)[0]) and torch.equal(middle, shown.render([3], psi=0.5)[0])


def test_a_walk_through_w_plus_goes_layer_by_layer():
    view = view_of()
    keys = gather((3, 4), view)
    plus = replace(keys, ws=mix_layers(keys.ws, keys.ws.flip(0), [0, 1]), z=None)
    halfway = plan_walk(plus, view, FilmSettings(space="w")).at([0.5]).ws
    torch.testing.assert_close(halfway[0], plus.ws.mean(0))
    with pytest.raises(UserError, match="no z.*--space w"):
        plan_walk(plus, view, FilmSettings(space="z"))
    with pytest.raises(UserError, match="truncation 0.7"):
        plan_walk(replace(keys, ws=plus.ws), view, FilmSettings(space="z"))


def test_noise_stays_but_for_maps_that_keyframes_bring():
    view = view_of(noise_mode="random")
    keys = gather((3, 4), view)
    there = plan_walk(keys, view, FilmSettings()).at([0, 0.5, 1]).noise
    assert all(torch.equal(m, own[:1].expand_as(m)) for m, own in zip(there, keys.noise, strict=True))
    view = view_of()
    there = plan_walk(keys, view, FilmSettings()).at([0, 0.5, 1]).noise
    for found, own in zip(there, keys.noise, strict=True):
        assert torch.equal(found[[0, 2]], own)
        torch.testing.assert_close(found[1], own.mean(0))


def test_edits_of_styles_fade_from_keyframe_to_keyframe():
    view = view_of()
    keys = gather((3, 4), view)
    styles = tuple(torch.randn(2, size) for size in view.snapshot.config.style_dims())
    keys = replace(keys, styles=styles)
    found = plan_walk(keys, view, FilmSettings(frames=2)).at([0.0, 0.5, 1.0])
    assert all(torch.equal(faded[[0, 2]], own) for faded, own in zip(found.styles, styles, strict=True))
    torch.testing.assert_close(found.styles[1][1], styles[1].mean(dim=0))
    assert torch.equal(view.draw(found)[[0, 2]], view.draw(keys))


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_sweep_through_classes_truncates_towards_what_lies_between_their_averages(space):
    view, film = view_of(CONDITIONAL), FilmSettings(space=space, psi_sweep=(0, 0), frames=4)
    free = untruncated(view, film)
    walk = plan_walk(gather((5, 5), free, (0, 2), each=True), free, film)
    averages = view.snapshot.G.mapping.w_avg
    ws = walk.at([0, 0.25, 1]).ws[:, 0]
    torch.testing.assert_close(ws, torch.stack([averages[0], averages[0] * 0.75 + averages[2] * 0.25, averages[2]]))


def test_films_side_by_side_get_the_same_number_of_keyframes_in_order():
    view = view_of()
    keys = gather((3, 4, 5, 6), view)
    walks = plan_walks(keys, 2, view, FilmSettings())
    assert [torch.equal(walk.at([0, 1]).ws, keys.ws[k : k + 2]) for k, walk in zip((0, 2), walks)] == [True, True]
    with pytest.raises(UserError, match="4 keyframes cannot be divided equally among 3 films; use a multiple of 3"):
        plan_walks(keys, 3, view, FilmSettings())


def test_a_sweep_of_psi_goes_from_end_to_end_and_back_if_closed():
    assert [psi_at(t, 2, (0.2, 1.0), False) for t in (0, 1, 2)] == [0.2, pytest.approx(0.6), 1.0]
    assert [psi_at(t, 2, (0.2, 1.0), True) for t in (0, 0.5, 1, 2)] == [0.2, pytest.approx(0.6), 1.0, 0.2]
