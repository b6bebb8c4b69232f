"""Ways through latent space begin, pass and end at their keyframes, and closed ones close."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stylegan.editing.films import EASINGS, Curve, circle, frame_times, psi_at, slerp, smooth, straight, turning
from torch_utils.errors import UserError


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


@given(st.integers(0, 50), st.floats(0, 1), st.floats(0.1, 10))
def test_slerp_keeps_norms(seed, t, scale):
    a, b = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed))
    unit, other = a / a.norm(), b / b.norm() * scale
    assert float(slerp(unit, unit + 1e-7 * other, t).norm()) == pytest.approx(1, abs=1e-5)
    assert float(slerp(unit, other, t).norm()) == pytest.approx(1 + (scale - 1) * t, rel=1e-5)


def test_slerp_turns_at_even_speed():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    for t in (0.0, 0.25, 0.5, 1.0):
        x, y = slerp(a, b, t).tolist()
        assert math.atan2(y, x) == pytest.approx(t * math.pi / 2)


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


@pytest.mark.parametrize("ease", EASINGS)
def test_easing_begins_and_ends_at_the_keyframes_and_is_symmetric(ease):
    eased = [EASINGS[ease](i / 50) for i in range(51)]
    assert eased[0] == 0 and eased[-1] == 1 and eased == sorted(eased)
    assert [1 - x for x in reversed(eased)] == pytest.approx(eased)
    assert ease == "none" or eased[1] < 0.02


def test_frames_of_open_and_closed_paths():
    assert frame_times([2, 2], closed=False) == [0, 0.5, 1, 1.5, 2]
    assert frame_times([2, 2], closed=True) == [0, 0.5, 1, 1.5]
    assert frame_times([4], closed=False, ease="cubic")[1] == pytest.approx(0.15625)
    assert frame_times([1, 3], closed=True, ease="sine")[:2] == [0, 1]


def test_a_sweep_of_psi_goes_from_end_to_end_and_back_if_closed():
    assert [psi_at(t, 2, (0.2, 1.0), False) for t in (0, 1, 2)] == [0.2, pytest.approx(0.6), 1.0]
    assert [psi_at(t, 2, (0.2, 1.0), True) for t in (0, 0.5, 1, 2)] == [0.2, pytest.approx(0.6), 1.0, 0.2]
