"""Films show the images of generate.py at their keyframes, to the bit, at the speed that is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.editing.directions import in_w, one_by_one
from stylegan.editing.films import (
    EASINGS,
    draw_each,
    draw_frames,
    draw_moved,
    even_times,
    frame_times,
    image_distance,
    samples_per_segment,
    there_and_back,
    through,
    times_of,
)
from stylegan.editing.settings import FilmSettings
from stylegan.editing.walk import plan_walk
from stylegan.latents.render import View, gather
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer
from tests.stylegan.tiny import view_of
from torch_utils.images import to_uint8
from torch_utils.progress import Progress

# Times


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


def test_the_distance_is_none_for_the_same_image_and_grows_with_the_difference():
    a, noise = torch.rand(2, 3, 16, 24), torch.randn(2, 3, 16, 24)
    assert torch.equal(image_distance(a, a), torch.zeros(2))
    assert (image_distance(a, a + 0.2 * noise) > image_distance(a, a + 0.1 * noise)).all()
    assert torch.equal(image_distance(a, a + noise), image_distance(a + noise, a))


def test_another_colour_counts_more_than_noise_of_the_same_power():
    a, noise = torch.zeros(1, 1, 32, 32), torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(image_distance(a, a + noise.square().mean().sqrt())) > 1.5 * float(image_distance(a, a + noise))


def distance(time: float) -> float:
    """The distance covered by a film that is slow at first, and whose second segment is three times as long."""
    return time**3 if time < 1 else 1 + 3 * (time - 1)


@pytest.mark.parametrize("closed", [False, True])
def test_uneven_walks_become_even(closed):
    at = [j / 40 for j in range(81)]
    steps = np.diff([distance(t) for t in at]).reshape(2, 40)
    times = even_times(steps, frames=20, closed=closed)
    assert len(times) == 40 + (not closed) and times[0] == 0 and 1.0 in times
    steps_made = np.diff([distance(t) for t in times])
    assert steps_made.max() < 1.2 * steps_made.min()
    even = np.diff([distance(t) for t in np.linspace(0, 2, 41)])
    assert even.max() > 20 * even.min()


def test_easing_applies_to_distance_and_not_to_time():
    steps = np.diff([distance(j / 400) for j in range(401)]).reshape(1, 400)
    steps_made = np.diff([distance(t) for t in even_times(steps, 20, closed=False, ease="sine")])
    assert steps_made[0] == pytest.approx(steps_made[-1], rel=0.1) and steps_made[10] > 5 * steps_made[0]


@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 9))
def test_any_walk_gets_its_frames_in_order_and_a_frame_at_each_keyframe(steps, frames):
    times = even_times(np.array(steps), frames, closed=False)
    assert len(times) == frames * len(steps) + 1 and times == sorted(times)
    assert set(map(float, range(len(steps) + 1))) <= set(times)


# Frames


FILMS = [FilmSettings(space=space, path=path, loop=loop, frames=4)  # type: ignore[arg-type]
           for space in ("z", "w") for path in ("linear", "cubic", "circular") for loop in (False, True)]  # fmt: skip


@pytest.mark.parametrize("film", FILMS)
def test_keyframes_are_the_images_of_their_seeds_to_the_bit(film):
    view = view_of(psi=0.6)
    walk = plan_walk(gather((3, 4, 9), view), view, film)
    times = times_of([walk], view, film, 8, lambda count: None)
    assert len(times) == walk.segments * 4 + (not film.closed)
    images = view.draw(walk.at(times))
    assert torch.equal(images[[0, 4, 8]], view.render([3, 4, 9]))
    assert len({image.numpy().tobytes() for image in images}) == len(times)
    assert torch.equal(view.draw(walk.at(times[5:6])), images[5:6])  # whatever is drawn beside it
    if film.closed:
        assert torch.equal(view.draw(walk.at([float(walk.segments)])), images[:1])


@pytest.mark.parametrize("even", [False, True])
def test_a_film_of_a_lower_resolution_has_its_size_and_its_images(even):
    view, film = view_of(resolution=8, alpha=0.4), FilmSettings(frames=4, even=even)
    walk = plan_walk(gather((3, 4), view), view, film)
    times = times_of([walk], view, film, 8, lambda count: None)
    (images,) = zip(*draw_frames([walk], times, view, 8))
    pixels = np.concatenate(images)
    assert pixels.shape == (5, 8, 8, 3)
    expected = Renderer.of(view.snapshot.G, Stage(8, 0.4)).render([3, 4], psi=0.7)
    np.testing.assert_array_equal(pixels[[0, 4]], to_uint8(expected))


def test_even_speed_makes_steps_alike():
    view, film = view_of(psi=1.0), FilmSettings(space="z", ease="quintic", frames=12)
    walk = plan_walk(gather((3, 4, 9), view), view, film)

    def spread(film: FilmSettings) -> float:
        heard: list[int] = []
        times = times_of([walk], view, film, 5, heard.append)
        assert len(times) == 25 and sum(heard) == (2 * samples_per_segment(film) + 1 if film.even else 0)
        images = view.draw(walk.at(times))
        steps = image_distance(images[1:], images[:-1])
        return float(steps.std() / steps.mean())

    assert spread(replace(film, ease="none", even=True)) < 0.3 * spread(film)


# Along a direction


def test_each_of_some_latents_is_drawn_the_same_in_any_batch():
    view = view_of(psi=1.0)
    start = gather([3, 8], view)
    directions = in_w(torch.randn(2, 8), ["a", "b"], range(6), "chance", torch.eye(8).double())
    cells = one_by_one(directions, [-1.0, 0.0, 2.0]).of(start)
    images = draw_each(cells, view, 5, Progress("", quiet=True))
    np.testing.assert_array_equal(images[[1, 4]], to_uint8(view.render([3, 3])))
    np.testing.assert_array_equal(images, draw_each(cells, view, 12, Progress("", quiet=True)))


def test_a_film_goes_there_and_back():
    strengths = there_and_back([-1.0, 3.0, 0.0], 8)
    assert len(strengths) == 8 and strengths[0] == -1 and strengths[4] == 3
    np.testing.assert_allclose(strengths[1:4], strengths[:4:-1])
    view = view_of(psi=1.0)
    start = gather([3, 8], view)
    direction = in_w(torch.randn(1, 8), ["a"], range(6), "chance", torch.eye(8).double())
    assert through([(-1.0,), (3.0,)], 8) == [(strength,) for strength in strengths]
    each = [(strength,) for strength in strengths]
    frames = list(draw_moved(start, direction, each, None, view, 2, Progress("", quiet=True)))
    assert len(frames) == 8 and frames[0].shape == (16, 32, 3)
    np.testing.assert_array_equal(frames[1], frames[7])


def test_films_fill_their_batches(monkeypatch):
    view = view_of(psi=1.0)
    start, counts, pixels = gather([3, 8], view), [], View.pixels
    monkeypatch.setattr(View, "pixels", lambda self, latents, batch: counts.append(len(latents)) or pixels(
        self, latents, batch))  # fmt: skip
    walks = [plan_walk(gather(seeds, view), view, FilmSettings(frames=7)) for seeds in ((3, 4), (5, 6))]
    parts = list(draw_frames(walks, [i / 7 for i in range(7)], view, 6))
    assert counts == [6, 6, 2] and [len(first) for first, _ in parts] == [3, 3, 1]
    np.testing.assert_array_equal(parts[1][1], to_uint8(view.draw(walks[1].at([3 / 7, 4 / 7, 5 / 7]))))
    counts.clear()
    direction = in_w(torch.randn(1, 8), ["a"], range(6), "chance", torch.eye(8).double())
    frames = list(draw_moved(start, direction, [(i / 4,) for i in range(5)], None, view, 6, Progress("", quiet=True)))
    assert counts == [6, 4] and len(frames) == 5


def test_a_film_goes_through_its_turns_and_back_to_the_first():
    turns = [(0.0, 0.0), (1.5, 0.0), (1.5, -1.0)]
    found = np.array(through(turns, 12))
    np.testing.assert_allclose(found[[0, 4, 8]], turns, atol=1e-12)
    steps = np.abs(np.diff([*found, found[0]], axis=0)).max(axis=1)
    assert steps.max() < 0.8 and steps[0] < steps[1] and (steps > 0).all()  # no jump, no rest, slower at a turn
    assert ((found[:4, 1] == 0) & (found[:4, 0] < 1.5)).all() and (found[4:8, 0] == 1.5).all()
