"""Memory is counted as long as it is held, once."""

import torch

from training.runs.memory import LiveBytes


def test_what_is_held_is_counted_once_and_until_it_is_dropped():
    with torch.device("meta"), LiveBytes() as live:
        a = torch.empty(1000)
        b = a + 1
        views = a[10:], a.view(10, 100)
        assert (live.now, live.peak) == (8000, 8000)
        del a, b
        assert live.now == 4000, "a view holds all of it"
        del views
        assert (live.now, live.peak) == (0, 8000)


def test_graphs_hold_what_they_need_for_the_way_back():
    with torch.device("meta"), LiveBytes() as live:
        x = torch.empty(1000, requires_grad=True)
        y = (x.exp() * 2).sin().sum()
        assert live.now == 4 * 3001
        y.backward()
        del y
        assert live.now == 8000
