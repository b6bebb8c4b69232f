"""Even speed: steps of a film that look alike in size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.editing.films import even_times, picture_distance


def test_the_distance_is_none_for_the_same_picture_and_grows_with_the_difference():
    a, noise = torch.rand(2, 3, 16, 24), torch.randn(2, 3, 16, 24)
    assert torch.equal(picture_distance(a, a), torch.zeros(2))
    assert (picture_distance(a, a + 0.2 * noise) > picture_distance(a, a + 0.1 * noise)).all()
    assert torch.equal(picture_distance(a, a + noise), picture_distance(a + noise, a))


def test_another_colour_counts_more_than_noise_of_the_same_power():
    a, noise = torch.zeros(1, 1, 32, 32), torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(picture_distance(a, a + noise.square().mean().sqrt())) > 1.5 * float(picture_distance(a, a + noise))


def way(time: float) -> float:
    """How far a film has come that is slow at first, and whose second segment is three times as long."""
    return time**3 if time < 1 else 1 + 3 * (time - 1)


@pytest.mark.parametrize("closed", [False, True])
def test_uneven_ways_become_even(closed):
    at = [j / 40 for j in range(81)]
    steps = np.diff([way(t) for t in at]).reshape(2, 40)
    times = even_times(steps, frames=20, closed=closed)
    assert len(times) == 40 + (not closed) and times[0] == 0 and 1.0 in times
    gone = np.diff([way(t) for t in times])
    assert gone.max() < 1.2 * gone.min()
    even = np.diff([way(t) for t in np.linspace(0, 2, 41)])
    assert even.max() > 20 * even.min()


def test_easing_is_of_the_way_and_not_of_time():
    steps = np.diff([way(j / 400) for j in range(401)]).reshape(1, 400)
    gone = np.diff([way(t) for t in even_times(steps, 20, closed=False, ease="sine")])
    assert gone[0] == pytest.approx(gone[-1], rel=0.1) and gone[10] > 5 * gone[0]


@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 9))
def test_any_way_gets_its_frames_in_order_and_a_frame_at_each_keyframe(steps, frames):
    times = even_times(np.array(steps), frames, closed=False)
    assert len(times) == frames * len(steps) + 1 and times == sorted(times)
    assert set(map(float, range(len(steps) + 1))) <= set(times)
